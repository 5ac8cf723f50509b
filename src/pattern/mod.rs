//! Patterns over names: globs, with names for their parts or without, and templates that are filled in and read back. Pure.

pub mod capture;
pub mod glob;
pub mod template;

pub use capture::Capture;
pub use glob::Glob;
pub use template::Template;
pub use template::Variables;
