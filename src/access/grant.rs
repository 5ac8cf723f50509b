//! Permission as a value.

use crate::oci::RepositoryKey;

use super::Action;
use super::Principal;

/// Proof that a principal may do something with a repository: the only key that opens cache and push.
///
/// Only [`Access::authorize`](super::Access::authorize) makes one for a client; [`Grant::for_job`] makes the named
/// exception for our own work.
#[derive(Clone, Debug)]
pub struct Grant {
    repository: RepositoryKey,
    principal: Principal,
    action: Action,
}

impl Grant {
    pub(super) fn new(repository: RepositoryKey, principal: Principal, action: Action) -> Self {
        Self { repository, principal, action }
    }

    /// Permission for our own work named `job` to read `repository`: revalidation, prefetch, scrubbing, warming.
    pub fn for_job(job: &'static str, repository: RepositoryKey) -> Self {
        Self::new(repository, Principal::Job(job), Action::Pull)
    }

    /// The repository that it is for.
    pub fn repository(&self) -> &RepositoryKey {
        &self.repository
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What it allows.
    pub fn action(&self) -> Action {
        self.action
    }
}
