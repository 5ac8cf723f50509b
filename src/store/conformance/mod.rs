//! What every tree and every index must do, whatever it is made of.

mod index;
mod tree;
