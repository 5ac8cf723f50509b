//! One run: what it saw, and what of that is written down. No waiting in here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

/// The last use is written down when it lies this part of `keep` behind.
const USE_PART: u32 = 16;

/// A tag as a run saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The repository.
    pub repository: RepositoryKey,
    /// The tag.
    pub tag: Tag,
    /// What it means for the run.
    pub digest: Digest,
    /// Since when.
    pub at: Timestamp,
}

/// A run as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) began: Timestamp,
    pub(super) used: Timestamp,
    pub(super) pins: Vec<Pin>,
}

/// A run that lives.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: Arc<str>,
    state: Mutex<State>,
    /// Held by whoever writes or removes the record.
    pub(super) writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) began: Timestamp,
    pub(super) used: Timestamp,
    pins: HashMap<(RepositoryKey, Tag), Seen>,
    /// How often the run has changed.
    changed: u64,
    /// The change up to which the record is settled: written, or given up because the store takes no writes.
    settled: u64,
    /// The change up to which it is written.
    written: u64,
    /// The last use as the record has it.
    written_used: Timestamp,
    /// It is being removed, and nothing is written for it any more.
    pub(super) ended: bool,
}

/// What a tag means for the run, and the change that this came with.
#[derive(Clone, Copy, Debug)]
struct Seen {
    digest: Digest,
    at: Timestamp,
    change: u64,
}

/// What became of a digest that was to be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// The tag means this for the run, from that change on.
    Means(Digest, u64),
    /// The run has as many tags as it may have.
    Full,
    /// The run is being removed.
    Ended,
}

/// Whether what a run saw before counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// What came first stays.
    First,
    /// The run itself pushed the tag.
    Pushed,
}

impl Run {
    pub(super) fn new(id: Arc<str>, now: Timestamp) -> Self {
        Self::with(
            id,
            State {
                began: now,
                used: now,
                pins: HashMap::new(),
                changed: 0,
                settled: 0,
                written: 0,
                written_used: now,
                ended: false,
            },
        )
    }

    fn with(id: Arc<str>, state: State) -> Self {
        Self { id, state: Mutex::new(state), writing: tokio::sync::Mutex::default() }
    }

    pub(super) fn of_record(record: Record) -> Self {
        let seen = |pin: Pin| ((pin.repository, pin.tag), Seen { digest: pin.digest, at: pin.at, change: 0 });
        let mut state = Self::new(record.id.as_str().into(), record.began);
        let inner = state.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (inner.used, inner.written_used) = (record.used, record.used);
        inner.pins = record.pins.into_iter().map(seen).collect();
        state
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many tags it saw.
    pub(super) fn tags(&self) -> usize {
        self.pins.len()
    }

    /// Whether nobody used it for so long that it is over.
    pub(super) fn is_over(&self, now: Timestamp, keep: Duration) -> bool {
        now.since(self.used) > keep
    }

    /// It begins again, as if it had not been. Gives the count of tags that it forgets.
    pub(super) fn begin_anew(&mut self, now: Timestamp) -> usize {
        (self.began, self.used) = (now, now);
        self.changed += 1;
        std::mem::take(&mut self.pins).len()
    }

    /// What the tag means for it, and the change that this came with.
    pub(super) fn meaning(&self, of: &(RepositoryKey, Tag)) -> Option<(Digest, u64)> {
        self.pins.get(of).map(|seen| (seen.digest, seen.change))
    }

    /// Notes what the tag means, unless something else came first or there is no room.
    pub(super) fn note(
        &mut self,
        of: (RepositoryKey, Tag),
        digest: Digest,
        now: Timestamp,
        (mode, tags_max): (Mode, usize),
    ) -> Noted {
        if self.ended {
            return Noted::Ended;
        }
        match self.pins.get(&of) {
            Some(seen) if mode == Mode::First || seen.digest == digest => {
                return Noted::Means(seen.digest, seen.change);
            }
            None if self.pins.len() >= tags_max => return Noted::Full,
            Some(_) | None => {}
        }
        self.changed += 1;
        self.pins.insert(of, Seen { digest, at: now, change: self.changed });
        Noted::Means(digest, self.changed)
    }

    /// Forgets every tag of the repository that means the digest. Gives their count, and the change.
    pub(super) fn forget(&mut self, repository: &RepositoryKey, digest: &Digest) -> Option<(usize, u64)> {
        let before = self.pins.len();
        self.pins.retain(|(of, _), seen| of != repository || seen.digest != *digest);
        let gone = before - self.pins.len();
        if gone == 0 {
            return None;
        }
        self.changed += 1;
        Some((gone, self.changed))
    }

    /// Whether the record is settled as far as `change`.
    pub(super) fn is_settled(&self, change: u64) -> bool {
        self.settled >= change
    }

    /// The change up to which there is something to write.
    pub(super) fn unwritten(&self, keep: Duration) -> Option<u64> {
        let lags = self.used.since(self.written_used) >= keep / USE_PART && self.used > self.written_used;
        (self.written < self.changed || lags).then_some(self.changed)
    }

    /// What is to be written, and how far that settles it.
    pub(super) fn record(&self, id: &str) -> (Record, u64) {
        let record = Record { id: id.to_owned(), began: self.began, used: self.used, pins: self.pins() };
        (record, self.changed)
    }

    /// The record is written as it was at that change, with that last use.
    pub(super) fn was_written(&mut self, change: u64, used: Timestamp) {
        (self.written, self.written_used) = (change, used);
        self.settled = self.settled.max(change);
    }

    /// The record could not be written: what waits for it waits no longer.
    pub(super) fn was_given_up(&mut self, change: u64) {
        self.settled = self.settled.max(change);
    }

    /// What it saw, by repository and tag.
    pub(super) fn pins(&self) -> Vec<Pin> {
        let pin = |((repository, tag), seen): (&(RepositoryKey, Tag), &Seen)| Pin {
            repository: repository.clone(),
            tag: tag.clone(),
            digest: seen.digest,
            at: seen.at,
        };
        let mut pins: Vec<Pin> = self.pins.iter().map(pin).collect();
        pins.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)));
        pins
    }
}
