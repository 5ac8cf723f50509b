//! What goes and what stays: policies over tags, here and in the registries behind, and the collection of what nothing
//! names any more.
//!
//! The decision is pure; this module's shells read what is there, ask what is known of branches, and carry out exactly what
//! was planned.

mod apply;
mod document;
mod gather;
pub mod gc;
pub mod hosted;
mod in_use;
pub mod plan;
mod plan_file;
pub mod records;
pub mod remote;
mod replay;
mod run;
pub mod sizes;
mod verify;

pub use apply::Applied;
pub use apply::Done;
pub use apply::Outcome;
pub use document::Delete;
pub use document::Document;
pub use document::Kept;
pub use plan_file::PlanFile;
pub use replay::Replay;
pub use run::Deps;
pub use run::Error;
pub use run::Made;
pub use run::OpenError;
pub use run::Prune;
pub use run::Scope;
pub use run::Settings;
