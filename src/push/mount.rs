//! Blobs that need not be pushed: they are here already, in a repository that the caller may pull (distribution-spec,
//! "Mounting a blob from another repository", end-11).
//!
//! Presence is no permission: a blob is linked only from a repository that a grant to pull is held for.

use crate::access::Grant;
use crate::config::Action;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::repository::Repository;
use crate::store;
use crate::store::Kind;
use crate::store::Origin;
use crate::store::Put;

use super::Error;
use super::Push;

/// How many repositories that have a blob are looked at.
const HOLDERS_MAX: usize = 16;

impl Push {
    /// Links a blob that the repository of `source` has, and protects it for the lease time. False where it has none, or
    /// none that can be relied on: then it is to be pushed.
    pub async fn mount(&self, grant: &Grant, source: &Grant, digest: &Digest) -> Result<bool, Error> {
        let repository = Self::hosted(grant, Action::Push)?;
        debug_assert_eq!(source.action(), Action::Pull, "who may not pull it may not link it");
        if source.action() != Action::Pull || !self.has(source.repository(), digest).await? {
            return Ok(false);
        }
        match self.store.commit(repository, Origin::Pushed, vec![Put::Link { digest: *digest }]).await {
            Ok(()) => self.lease(digest).await,
            // The bytes went meanwhile, or the index does not know of them yet.
            Err(store::Error::Missing { .. } | store::Error::Incomplete) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Protects a blob or manifest of the granted repository for the lease time, before its pusher is told that it is here.
    /// False where it is not, or is damaged: a push repairs it.
    pub async fn protect(&self, grant: &Grant, digest: &Digest) -> Result<bool, Error> {
        let repository = Self::hosted(grant, Action::Push)?;
        let is_here = async || Ok::<_, Error>(self.links(repository, digest).await?.is_some());
        // Looked at once more behind the lease: until that the collector may have taken it.
        Ok(is_here().await? && self.lease(digest).await? && is_here().await?)
    }

    /// Repositories that have the blob, some of them. [`store::Error::Incomplete`] while the index is being rebuilt.
    pub async fn holders(&self, digest: &Digest) -> Result<Vec<RepositoryKey>, Error> {
        Ok(self.store.linked_in(digest, HOLDERS_MAX).await?)
    }

    /// Those of them that come from an upstream which shows them to anybody.
    pub async fn public_holders(&self, digest: &Digest) -> Result<Vec<RepositoryKey>, Error> {
        match self.store.linked_in(digest, HOLDERS_MAX).await {
            Ok(holders) => Ok(holders.into_iter().filter(|of| self.is_public(of)).collect()),
            // It is only not saved a push.
            Err(store::Error::Incomplete) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_public(&self, of: &RepositoryKey) -> bool {
        match self.repositories.resolve(of) {
            Ok(Repository::Proxied(proxied)) => proxied.is_everybodys(of),
            Ok(Repository::Hosted(_)) | Err(_) => false,
        }
    }

    async fn has(&self, repository: &RepositoryKey, digest: &Digest) -> Result<bool, Error> {
        Ok(self.links(repository, digest).await? == Some(Kind::Blob))
    }

    /// What the repository's link leads to; none where there is none, and where the bytes are damaged.
    async fn links(&self, repository: &RepositoryKey, digest: &Digest) -> Result<Option<Kind>, Error> {
        match self.store.held(repository, digest).await {
            Ok(held) => Ok(held.map(|held| held.link.kind.clone())),
            Err(store::Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn lease(&self, digest: &Digest) -> Result<bool, Error> {
        match self.store.lease(digest).await {
            Ok(leased) => Ok(leased),
            // While the index is being rebuilt nothing is removed, and the lease was taken before it was asked.
            Err(store::Error::Incomplete) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
