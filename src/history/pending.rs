//! Uses that were not written down yet: bounded, and so cheap that a hit does not feel it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use quick_cache::DefaultHashBuilder;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::Use;

/// Parts, each with a lock: clients of different images seldom wait for each other.
const SHARDS: usize = 16;

/// The uses of one image since the last time that they were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) repository: RepositoryKey,
    pub(super) tag: Option<Tag>,
    pub(super) digest: Digest,
    /// The last of them.
    pub(super) at: Timestamp,
    pub(super) pulls: u32,
    pub(super) hits: u32,
}

/// Bytes of blobs that went out of one repository since then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) at: Timestamp,
    pub(super) bytes: u64,
    pub(super) from_here: u64,
}

/// What policies deleted in one repository since then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) at: Timestamp,
    pub(super) deleted: u64,
    pub(super) freed: u64,
}

/// Everything since the last time.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) notes: Vec<Note>,
    pub(super) sent: Vec<(RepositoryKey, Traffic)>,
    pub(super) pruned: Vec<(RepositoryKey, Loss)>,
    /// Uses that found no room.
    pub(super) dropped: u64,
}

#[derive(Debug)]
pub(super) struct Pending {
    spread: DefaultHashBuilder,
    shards: Box<[Mutex<Shard>]>,
    /// The most that one shard has.
    room: usize,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    notes: HashMap<u64, Note>,
    sent: HashMap<RepositoryKey, Traffic>,
    pruned: HashMap<RepositoryKey, Loss>,
}

impl Pending {
    /// Room for about `capacity` images and as many repositories.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            spread: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            room: capacity.div_ceil(SHARDS),
            dropped: AtomicU64::new(0),
        }
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, Shard>> {
        let shard = self.shards.get(usize::try_from(hash % SHARDS as u64).ok()?)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hash(&self, of: impl Hash) -> u64 {
        self.spread.hash_one(of)
    }

    /// Notes a use of an image.
    pub(super) fn used(&self, of: &RepositoryKey, tag: Option<&Tag>, digest: &Digest, how: Use, at: Timestamp) {
        let (pulls, hits) = match how {
            Use::Resolved => (0, 0),
            Use::Pulled { from_here } => (1, u32::from(from_here)),
        };
        let hash = self.hash((of, tag, digest));
        let Some(mut shard) = self.shard(hash) else { return };
        let full = shard.notes.len() >= self.room;
        match shard.notes.get_mut(&hash) {
            Some(note) if note.digest == *digest && note.tag.as_ref() == tag && note.repository == *of => {
                note.at = note.at.max(at);
                note.pulls = note.pulls.saturating_add(pulls);
                note.hits = note.hits.saturating_add(hits);
            }
            None if !full => {
                let (repository, tag) = (of.clone(), tag.cloned());
                shard.notes.insert(hash, Note { repository, tag, digest: *digest, at, pulls, hits });
            }
            // Two images of one hash are as good as never.
            Some(_) | None => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Notes bytes that went out. They are figures for people: what finds no room is not missed.
    pub(super) fn sent(&self, of: &RepositoryKey, bytes: u64, from_here: bool, at: Timestamp) {
        let Some(mut shard) = self.shard(self.hash(of)) else { return };
        if let Some(traffic) = shard.sent.get_mut(of) {
            traffic.add(bytes, from_here, at);
        } else if shard.sent.len() < self.room {
            shard.sent.entry(of.clone()).or_default().add(bytes, from_here, at);
        }
    }

    /// Notes what policies deleted; a figure for people too.
    pub(super) fn pruned(&self, of: &RepositoryKey, deleted: u64, freed: u64, at: Timestamp) {
        let Some(mut shard) = self.shard(self.hash(of)) else { return };
        if shard.pruned.len() < self.room || shard.pruned.contains_key(of) {
            let loss = shard.pruned.entry(of.clone()).or_default();
            loss.at = loss.at.max(at);
            loss.deleted = loss.deleted.saturating_add(deleted);
            loss.freed = loss.freed.saturating_add(freed);
        }
    }

    /// Takes everything out.
    pub(super) fn take(&self) -> Taken {
        let mut taken = Taken::default();
        for shard in &self.shards {
            let shard = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            taken.notes.extend(shard.notes.into_values());
            taken.sent.extend(shard.sent);
            taken.pruned.extend(shard.pruned);
        }
        taken.dropped = self.dropped.swap(0, Ordering::Relaxed);
        taken
    }
}

impl Traffic {
    fn add(&mut self, bytes: u64, from_here: bool, at: Timestamp) {
        self.at = self.at.max(at);
        self.bytes = self.bytes.saturating_add(bytes);
        if from_here {
            self.from_here = self.from_here.saturating_add(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> RepositoryKey {
        RepositoryKey::from_path("docker.io/library/alpine").unwrap()
    }

    #[test]
    fn uses_of_one_image_are_one_note_and_what_finds_no_room_is_counted() {
        let pending = Pending::new(SHARDS);
        let (tag, digest) = ("3".parse().unwrap(), Digest::of(b"a"));
        for (n, from_here) in [(1, false), (3, true), (2, true)] {
            pending.used(&of(), Some(&tag), &digest, Use::Pulled { from_here }, Timestamp(n));
        }
        pending.used(&of(), Some(&tag), &digest, Use::Resolved, Timestamp(9));
        let taken = pending.take();
        let note = Note { repository: of(), tag: Some(tag), digest, at: Timestamp(9), pulls: 3, hits: 2 };
        assert_eq!((taken.notes, taken.dropped), (vec![note], 0));
        // A tag and its digest are two; each shard has room for one.
        for n in 0..100_u8 {
            pending.used(&of(), None, &Digest::of(&[n]), Use::Resolved, Timestamp(1));
        }
        let taken = pending.take();
        assert!(taken.notes.len() <= SHARDS);
        assert_eq!(taken.dropped, 100 - taken.notes.len() as u64);
        assert_eq!(pending.take().dropped, 0);
    }

    #[test]
    fn bytes_are_added_up_by_repository() {
        let pending = Pending::new(10);
        pending.sent(&of(), 10, true, Timestamp(5));
        pending.sent(&of(), 7, false, Timestamp(4));
        assert_eq!(pending.take().sent, [(of(), Traffic { at: Timestamp(5), bytes: 17, from_here: 10 })]);
        assert_eq!(pending.take().sent, []);
    }
}
