//! Patterns over names: globs, and templates that are filled in and read back. Pure.

pub mod glob;
pub mod template;

pub use glob::Glob;
pub use template::Template;
pub use template::Variables;
