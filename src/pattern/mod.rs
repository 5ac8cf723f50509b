//! Patterns over names: globs, with names for their parts or without, templates that are filled in and read back, and
//! versions in tags. Pure.

pub mod capture;
pub mod glob;
pub mod template;
pub mod version;

pub use capture::Capture;
pub use glob::Glob;
pub use template::Template;
pub use template::Variables;
pub use version::Version;
