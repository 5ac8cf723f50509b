//! Blobs: from the store, from a fill under way, or by beginning one.

use std::sync::Arc;

use crate::access::Grant;
use crate::body::Content;
use crate::oci::ByteRange;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::range::Extent;
use crate::repository::Proxied;
use crate::store::Origin;
use crate::store::Put;
use crate::store::spool::HELD_BACK_BYTES;
use crate::store::spool::Spooled;
use crate::upstream::Priority;

use super::Cache;
use super::Served;
use super::error::Error;
use super::fill;
use super::fill::Fill;
use super::fill::Order;
use super::fill::Stage;
use super::pass;
use super::status::CacheStatus;
use super::status::Source;

/// How often a request begins anew when what it joined failed for somebody else's reason.
const TRIES: usize = 4;

/// A blob, or a part of one.
#[derive(Debug)]
pub struct Blob {
    /// The bytes of `extent`.
    pub content: Content,
    /// The size of the whole, where it is known.
    pub size: Option<u64>,
    /// The part that was asked for; `None` where all of it was.
    pub extent: Option<Extent>,
}

impl Cache {
    /// A blob, or a range of it, in the granted repository.
    pub async fn blob(&self, grant: &Grant, digest: &Digest, range: Option<ByteRange>) -> Result<Served<Blob>, Error> {
        let repository = grant.repository();
        let served = match self.held_blob(repository, digest, range).await? {
            Some(served) => served,
            // Boxed, so that a hit is not as large in memory as a fill.
            None => Box::pin(self.missed_blob(repository, digest, range)).await?,
        };
        let bytes = served.content.extent.map(|e| e.length()).or(served.content.size);
        self.history.sent(repository, bytes.unwrap_or_default(), served.status.is_hit(), self.clock.now());
        Ok(served)
    }

    async fn missed_blob(
        &self,
        repository: &RepositoryKey,
        digest: &Digest,
        range: Option<ByteRange>,
    ) -> Result<Served<Blob>, Error> {
        let proxied = self.proxied(repository).map_err(super::Unproxied::or_blob_unknown)?;
        self.check_absent(repository, digest)?;
        if !fill::has_room(&self.store, self.expected.get(&(repository.clone(), *digest))) {
            return self.pass_through(&proxied, repository, digest, range).await;
        }
        for _ in 0..TRIES {
            let Some((fill, collapsed)) = self.join_fill(repository, &proxied, digest, Priority::Client).await? else {
                // It came to be held in the meantime, or was linked.
                if let Some(served) = self.held_blob(repository, digest, range).await? {
                    return Ok(served);
                }
                continue;
            };
            match fill.answered().await {
                Stage::Filling(spooled) => {
                    let status = CacheStatus::new(Source::Miss).collapsed(collapsed);
                    return self.follow(&fill, &spooled, range, status).await;
                }
                Stage::NoRoom => return self.pass_through(&proxied, repository, digest, range).await,
                Stage::Failed(error) if fill.repository() == repository => {
                    return Err(self.noted_absent(repository, digest, error));
                }
                // Another repository's upstream failed, or it is stored by now: this one asks for itself.
                Stage::Failed(_) | Stage::Stored | Stage::Asking => {}
            }
            if let Some(served) = self.held_blob(repository, digest, range).await? {
                return Ok(served);
            }
            tokio::task::yield_now().await;
        }
        Err(Error::BrokenOff(None))
    }

    /// The size of a blob: a HEAD. Of what is not held it is a HEAD upstream, and starts nothing.
    pub async fn blob_size(&self, grant: &Grant, digest: &Digest) -> Result<Served<u64>, Error> {
        let repository = grant.repository();
        if let Some(held) = self.held(repository, digest).await? {
            return Ok(Served { content: held.link.size, status: CacheStatus::new(Source::Hit) });
        }
        let proxied = self.proxied(repository).map_err(super::Unproxied::or_blob_unknown)?;
        self.check_absent(repository, digest)?;
        let (size, collapsed) = Box::pin(self.confirm(repository, &proxied, digest)).await?;
        Ok(Served { content: size, status: CacheStatus::new(Source::Asked).collapsed(collapsed) })
    }

    /// Begins the fill of a blob in the background, as a manifest that names it is served.
    pub(super) async fn fill_ahead(
        &self,
        repository: &RepositoryKey,
        proxied: &Proxied,
        digest: &Digest,
        priority: Priority,
    ) -> Result<(), Error> {
        if self.store.held(repository, digest).await?.is_some() {
            return Ok(());
        }
        if let Some((fill, _)) = self.join_fill(repository, proxied, digest, priority).await? {
            fill.over().await;
        }
        Ok(())
    }

    async fn held_blob(
        &self,
        repository: &RepositoryKey,
        digest: &Digest,
        range: Option<ByteRange>,
    ) -> Result<Option<Served<Blob>>, Error> {
        let Some(held) = self.held(repository, digest).await? else { return Ok(None) };
        self.store.used(repository, digest, self.clock.now());
        let size = held.link.size;
        let extent = range.map(|r| r.within(size)).transpose().map_err(|e| Error::Unsatisfiable { size: e.size })?;
        let whole = Extent { start: 0, end: size };
        let part = extent.unwrap_or(whole);
        let Some(content) = self.sound_content(&held, part).await else { return Ok(None) };
        Ok(Some(Served { content: Blob { content, size: Some(size), extent }, status: CacheStatus::new(Source::Hit) }))
    }

    /// Joins the fill of a blob, or begins it; `None` where the bytes turned out to be here.
    ///
    /// Bytes are shared between repositories, permission is not: before a repository joins a fill that another began, or
    /// gets a link to bytes that are here, its own upstream must say that it has the blob.
    async fn join_fill(
        &self,
        repository: &RepositoryKey,
        proxied: &Proxied,
        digest: &Digest,
        priority: Priority,
    ) -> Result<Option<(Arc<Fill>, bool)>, Error> {
        if let Some(fill) = self.fills.find(digest) {
            if fill.repository() != repository && !fill.is_confirmed(repository) {
                self.confirm(repository, proxied, digest).await?;
                fill.confirm(repository);
            }
            return Ok(Some((fill, true)));
        }
        // Where the index can't tell, as it is being made or opened anew, the blob is fetched: no pull waits for it.
        if matches!(self.store.present(digest).await, Ok(Some(_))) {
            self.confirm(repository, proxied, digest).await?;
            let linked = self.store.commit(repository, Origin::Proxied, vec![Put::Link { digest: *digest }]).await;
            match linked {
                Ok(()) => return Ok(None),
                // The bytes went in the meantime, or can't be linked now: they are fetched.
                Err(error) => tracing::debug!(%digest, %repository, %error, "a blob that is here could not be linked"),
            }
        }
        let order = Order {
            repository: repository.clone(),
            proxied: proxied.clone(),
            ask: Self::ask(repository, priority),
            digest: *digest,
            size: self.expected.get(&(repository.clone(), *digest)),
        };
        self.fills.join(&order).map(Some)
    }

    /// Asks the repository's upstream whether it has the blob; one request for all who wait.
    async fn confirm(
        &self,
        repository: &RepositoryKey,
        proxied: &Proxied,
        digest: &Digest,
    ) -> Result<(u64, bool), Error> {
        let key = (repository.clone(), *digest);
        let (upstream, ask, digest) = (Arc::clone(&proxied.upstream), Self::ask(repository, Priority::Client), *digest);
        let landed = self
            .confirmations
            .join(key, |publish| async move {
                publish.send(match upstream.blob_size(&ask, &digest).await {
                    Ok(Some(size)) => Ok(size),
                    Ok(None) => Err(Error::BlobUnknown),
                    Err(error) => Err(error.into()),
                });
            })
            .await?;
        let size = landed.value.map_err(|e| self.noted_absent(repository, &digest, e))?;
        Ok((size, landed.collapsed))
    }

    /// Follows the spool of a fill.
    async fn follow(
        &self,
        fill: &Arc<Fill>,
        spooled: &Arc<Spooled>,
        range: Option<ByteRange>,
        status: CacheStatus,
    ) -> Result<Served<Blob>, Error> {
        let size = spooled.size();
        // A range of a blob whose size nobody knows is answered with all of it, as RFC 9110 §14.2 allows.
        let extent = match (range, size) {
            (Some(range), Some(size)) => Some(range.within(size).map_err(|e| Error::Unsatisfiable { size: e.size })?),
            _ => None,
        };
        let unverified = extent.zip(size).is_some_and(|(extent, size)| extent.end < size) && !spooled.is_verified();
        if let Some(extent) = extent {
            self.fills.reach(fill, extent);
        }
        if size.is_some_and(|s| s <= HELD_BACK_BYTES) && !unverified {
            // It would all be held back anyway: so a wrong one is an error, not a broken transfer.
            if let Ok(Err(_)) = tokio::time::timeout(self.limits.verify_wait, spooled.wait_verified()).await {
                return Err(match fill.answered().await {
                    Stage::Failed(error) => error,
                    _ => Error::BrokenOff(None),
                });
            }
        }
        let length = extent.map(|e| e.length()).or(size);
        let content = Content::Stream { bytes: spooled.follow(extent), length };
        Ok(Served { content: Blob { content, size, extent }, status: CacheStatus { unverified, ..status } })
    }

    /// A transfer for this client alone, which is checked and not kept: the store has no room.
    async fn pass_through(
        &self,
        proxied: &Proxied,
        repository: &RepositoryKey,
        digest: &Digest,
        range: Option<ByteRange>,
    ) -> Result<Served<Blob>, Error> {
        let ask = Self::ask(repository, Priority::Client);
        let expected = self.expected.get(&(repository.clone(), *digest));
        let passed = pass::begin(proxied, &ask, digest, expected).await?;
        let extent = match (range, passed.size) {
            (Some(range), Some(size)) => Some(range.within(size).map_err(|e| Error::Unsatisfiable { size: e.size })?),
            _ => None,
        };
        let (size, length) = (passed.size, extent.map(|e| e.length()).or(passed.size));
        let content =
            Content::Stream { bytes: passed.stream(extent, (self.alarm.clone(), repository.clone())), length };
        Ok(Served { content: Blob { content, size, extent }, status: CacheStatus::new(Source::PassThrough) })
    }
}
