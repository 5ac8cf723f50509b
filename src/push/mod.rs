//! The writable side: what clients push to hosted repositories, and what they remove from them.
//!
//! It does not know HTTP: what a client may learn of an [`Error`] is decided in `api`. It is opened with
//! a [`Grant`] only, and writes through the store's one commit.

mod delete;
mod error;
mod manifest;
mod mount;
mod session;
mod upload;

use std::sync::Arc;

use crate::access::Grant;
use crate::config;
use crate::config::Action;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::repository::Repositories;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use error::Error;
pub use manifest::NewManifest;
pub use manifest::PushedManifest;
pub use session::Progress;
pub use upload::Writing;

use session::Sessions;

/// Takes pushes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Push {
    store: Store,
    repositories: Arc<Repositories>,
    sessions: Arc<Sessions>,
    /// The most bytes of a blob.
    blob_bytes: u64,
}

impl Push {
    /// Pushes into `store`, to the hosted ones of `repositories`; a principal may have `uploads` open at a time.
    pub fn new(
        store: Store,
        repositories: Arc<Repositories>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
        limits: &config::Limits,
        uploads: u32,
    ) -> Self {
        let sessions = Sessions::new(store.clone(), tasks, metrics, limits.upload_idle, uploads);
        Self { store, repositories, sessions: Arc::new(sessions), blob_bytes: limits.blob_bytes }
    }

    /// The repository that the grant is for, if it takes pushes and the grant is for `action`.
    fn hosted(grant: &Grant, action: Action) -> Result<&RepositoryKey, Error> {
        debug_assert_eq!(grant.action(), action, "a grant opens only what it is for");
        let repository = grant.repository();
        if repository.is_hosted() && grant.action() == action { Ok(repository) } else { Err(Error::NotHosted) }
    }

    /// Tells which tags of the repository neither move nor go.
    fn fixed(&self, repository: &RepositoryKey) -> Arc<dyn Fn(&Tag) -> bool + Send + Sync> {
        let patterns = self.repositories.immutable_tags(repository);
        Arc::new(move |tag| patterns.iter().any(|pattern| pattern.matches(tag.as_str())))
    }
}
