//! Which manifest a tag means where that is not what its own record says: the build cache of another branch.
//!
//! Views decide, and move no bytes: what they name is served by `cache`, under a grant of its own.

mod fallback;

pub use fallback::Fallbacks;

/// All views. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Views {
    /// What stands in for missing build caches.
    pub fallbacks: Fallbacks,
}
