//! Which repository a request means, and where that repository comes from.
//!
//! [`find`] reads the name; [`Repositories`] knows the configured registries and answers what a repository is: hosted
//! here, or proxied from an upstream. It decides no permission and moves no bytes.

pub mod names;

pub use names::NameProblem;
pub use names::Names;
pub use names::OwnNames;
pub use names::Spelling;
pub use names::find;
