//! Which manifest a tag means where that is not what its own record says: what a run saw first, the build cache of another
//! branch.
//!
//! Views decide, and move no bytes: what they name is served by `cache`, under a grant of its own.

mod fallback;
mod run;

pub use fallback::Fallbacks;
pub use run::Error;
pub use run::Pin;
pub use run::Runs;
pub use run::Shown;

/// All views. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Views {
    /// What stands in for missing build caches.
    pub fallbacks: Fallbacks,
    /// What runs saw.
    pub runs: Runs,
}
