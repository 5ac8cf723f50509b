//! Patterns over names: globs. Pure.

pub mod glob;

pub use glob::Glob;
