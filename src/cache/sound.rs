//! Whether stored bytes are still what their digest says.
//!
//! A disk may change bytes while nobody looks. So a blob is hashed once after this process has opened it, and again when
//! its file has changed under it; meanwhile its last bytes are held back, as those of a fill are: a damaged blob is a
//! broken transfer and is fetched anew, never a complete wrong one. What a fill has just written needs no second look.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::Cache as Bounded;

use crate::body;
use crate::body::Content;
use crate::body::FileRange;
use crate::body::Parts;
use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::Hasher;
use crate::oci::range::Extent;
use crate::store::BlobKey;
use crate::store::Held;
use crate::store::HeldBytes;
use crate::store::Stamp;
use crate::store::spool::HELD_BACK_BYTES;

use super::Cache;

/// The blobs whose bytes were found right, bounded.
#[derive(Debug)]
pub(super) struct Sound(Bounded<BlobKey, Stamp>);

impl Sound {
    pub(super) fn new(most: usize) -> Self {
        Self(Bounded::new(most))
    }

    /// Notes that what is held was found right just now.
    pub(super) fn note(&self, held: &Held) {
        if let HeldBytes::File { stamp, .. } = &held.bytes {
            self.0.insert(held.link.blob(), *stamp);
        }
    }

    fn is(&self, key: &BlobKey, stamp: &Stamp) -> bool {
        self.0.get(key).is_some_and(|seen| seen == *stamp)
    }
}

impl Cache {
    /// The bytes of `part` of what is held, hashed before the last of them go out where that was not done yet. `None`
    /// where they turned out wrong before any went out: they are out of use by now.
    pub(super) async fn sound_content(&self, held: &Arc<Held>, part: Extent) -> Option<Content> {
        let HeldBytes::File { range, stamp } = &held.bytes else {
            return Some(held.content(part.start, part.length()));
        };
        // The store has looked at the file just now.
        if self.sound.is(&held.link.blob(), stamp) {
            return Some(held.content(part.start, part.length()));
        }
        if held.link.size <= HELD_BACK_BYTES {
            return self.is_right(held).await.then(|| held.content(part.start, part.length()));
        }
        let (cache, looked_at) = (self.clone(), Arc::clone(held));
        self.tasks.spawn("look at stored bytes", async move { cache.is_right(&looked_at).await });
        let reading = Reading { cache: self.clone(), held: Arc::clone(held), range: range.clone(), part };
        Some(Content::Stream { length: Some(part.length()), bytes: body::stream(reading) })
    }

    /// Hashes what is held, once for all who wait; takes it out of use where it is wrong.
    async fn is_right(&self, held: &Arc<Held>) -> bool {
        let HeldBytes::File { range, .. } = &held.bytes else { return true };
        let key = held.link.blob();
        // A transfer may have begun long ago: the file is looked at again.
        if Stamp::of(&range.file).is_ok_and(|now| self.sound.is(&key, &now)) {
            return true;
        }
        let (cache, range) = (self.clone(), range.clone());
        let landed = self
            .looks
            .join(key, |publish| async move {
                let right = cache.look_at(&key, range).await;
                publish.send(right);
            })
            .await;
        landed.is_ok_and(|landed| landed.value)
    }

    async fn look_at(&self, key: &BlobKey, range: FileRange) -> bool {
        // The semaphore is never closed.
        let Ok(_turn) = self.hashing.acquire().await else { return false };
        let file = Arc::clone(&range.file);
        let before = Stamp::of(&file);
        let algorithm = key.digest.algorithm();
        let hashed = tokio::task::spawn_blocking(move || hash(&range, algorithm)).await;
        let got = hashed.map_err(io::Error::other).and_then(|got| got);
        match (got, before) {
            (Ok(got), Ok(before)) if got == key.digest => {
                self.sound.0.insert(*key, before);
                true
            }
            (Ok(_), _) => {
                self.metrics.verify_failure();
                if let Err(error) = self.store.quarantine(key).await {
                    tracing::error!(digest = %key.digest, error = %crate::telemetry::chain(&error), "damaged bytes could not be taken out of use");
                }
                false
            }
            (Err(error), _) => {
                tracing::error!(digest = %key.digest, %error, "stored bytes could not be read");
                false
            }
        }
    }
}

fn hash(range: &FileRange, algorithm: Algorithm) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    range.each(|bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// Stored bytes on their way to a client while they are being hashed.
struct Reading {
    cache: Cache,
    held: Arc<Held>,
    range: FileRange,
    part: Extent,
}

impl Parts for Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.part.start >= self.part.end {
            return Ok(None);
        }
        let free = self.held.link.size.saturating_sub(HELD_BACK_BYTES);
        let end = if self.part.start < free {
            self.part.end.min(free)
        } else if self.cache.is_right(&self.held).await {
            self.part.end
        } else {
            return Err(io::Error::other("the stored bytes are damaged; they are fetched anew"));
        };
        let bytes = self.range.slice(self.part.start, end - self.part.start).read().await?;
        self.part.start += bytes.len() as u64;
        Ok(Some(bytes))
    }
}
