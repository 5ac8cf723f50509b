//! What goes and what stays: policies over tags, here and in the registries behind, and the collection of what nothing
//! names any more.
//!
//! The decision is pure; this module's shells read what is there, ask what is known of branches, and carry out exactly what
//! was planned.

pub mod gc;
pub mod plan;
pub mod records;
pub mod remote;
pub mod sizes;
