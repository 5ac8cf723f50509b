//! Times of use and of validation: exact in memory, written to the index now and then. They may be lost.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quick_cache::DefaultHashBuilder;

use crate::clock::Timestamp;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::Inner;
use super::index::Index;
use super::index::Moment;
use super::names::Name;

/// How often times are written down.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How old a written time may be before the object's next use is written: an hour's error costs eviction nothing.
const WRITE_EVERY: Duration = Duration::from_hours(1);
/// Rows that one transaction writes at most: nobody's commit waits for more.
const ROWS_MAX: usize = 500;
/// Uses that are remembered as just noted.
const NOTED_MAX: usize = 4096;

/// Times in memory.
#[derive(Debug)]
pub(super) struct Uses {
    capacity: usize,
    noted: Noted,
    state: Mutex<State>,
}

/// Uses that were noted within their second: the same again tells nothing new, and hits of what is popular take no lock.
/// One that pushed another out of its place is noted anew.
#[derive(Debug)]
struct Noted {
    spread: DefaultHashBuilder,
    marks: Box<[AtomicU64]>,
}

impl Noted {
    fn new() -> Self {
        Self { spread: DefaultHashBuilder::default(), marks: (0..NOTED_MAX).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether it is the first of its second; notes it.
    fn is_first(&self, of: &RepositoryKey, name: &Name, at: Timestamp) -> bool {
        let mark = self.spread.hash_one((of, name, at.0 / 1000));
        let place = usize::try_from(mark % NOTED_MAX as u64).unwrap_or_default();
        let Some(noted) = self.marks.get(place) else { return true };
        let first = noted.load(Ordering::Relaxed) != mark;
        if first {
            noted.store(mark, Ordering::Relaxed);
        }
        first
    }
}

#[derive(Debug, Default)]
struct State {
    used: HashMap<(RepositoryKey, Name), Used>,
    validated: HashMap<(RepositoryKey, Tag), Timestamp>,
    /// Uses that found no room since the last flush.
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    at: Timestamp,
    written: Option<Timestamp>,
}

impl Used {
    fn is_due(&self) -> bool {
        self.written.is_none_or(|written| self.at.since(written) >= WRITE_EVERY)
    }
}

impl Uses {
    /// Room for the times of `capacity` objects.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, noted: Noted::new(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a use, to the second.
    pub(super) fn used(&self, of: &RepositoryKey, name: Name, at: Timestamp) {
        if !self.noted.is_first(of, &name, at) {
            return;
        }
        let mut state = self.state();
        let key = (of.clone(), name);
        if let Some(used) = state.used.get_mut(&key) {
            used.at = used.at.max(at);
        } else if state.used.len() < self.capacity {
            state.used.insert(key, Used { at, written: None });
        } else {
            state.lost += 1;
        }
    }

    pub(super) fn validated(&self, of: &RepositoryKey, tag: &Tag, at: Timestamp) {
        let mut state = self.state();
        if state.validated.len() < self.capacity {
            let known = state.validated.entry((of.clone(), tag.clone())).or_default();
            *known = at.max(*known);
        }
    }

    /// The last use, as far as it is in memory.
    pub(super) fn last(&self, of: &RepositoryKey, name: &Name) -> Option<Timestamp> {
        self.state().used.get(&(of.clone(), name.clone())).map(|used| used.at)
    }

    /// The last validation, as far as it was not written down.
    pub(super) fn last_validation(&self, of: &RepositoryKey, tag: &Tag) -> Option<Timestamp> {
        self.state().validated.get(&(of.clone(), tag.clone())).copied()
    }

    /// What is to be written down now; it counts as written. With `all`, also what was written less than an hour ago.
    fn take(&self, all: bool) -> Vec<Moment> {
        let mut state = self.state();
        let State { used, validated, lost } = &mut *state;
        let mut moments: Vec<_> = validated.drain().map(|((of, tag), at)| Moment::Validated { of, tag, at }).collect();
        for ((of, name), used) in &mut *used {
            if used.is_due() || (all && used.written != Some(used.at)) {
                used.written = Some(used.at);
                moments.push(Moment::Used { of: of.clone(), name: name.clone(), at: used.at });
            }
        }
        if std::mem::take(lost) > 0 || used.len() >= self.capacity {
            make_room(used, &mut moments);
        }
        moments
    }

    /// Writes down what is due.
    pub(super) async fn flush(&self, index: &dyn Index, all: bool) {
        let moments = self.take(all);
        for rows in moments.chunks(ROWS_MAX) {
            if let Err(error) = index.touch(rows.to_vec()).await {
                // They may be lost; a full disk says so elsewhere.
                tracing::debug!(error = %crate::telemetry::chain(&error), "times of use were not written down");
                return;
            }
        }
    }
}

/// Forgets the half that was used longest ago: what of it was not written down is, so that the index has it.
fn make_room(used: &mut HashMap<(RepositoryKey, Name), Used>, moments: &mut Vec<Moment>) {
    let mut times: Vec<_> = used.values().map(|used| used.at).collect();
    let middle = times.len() / 2;
    if times.is_empty() {
        return;
    }
    let median = *times.select_nth_unstable(middle).1;
    used.retain(|(of, name), used| {
        let keep = used.at > median;
        if !keep && used.written != Some(used.at) {
            moments.push(Moment::Used { of: of.clone(), name: name.clone(), at: used.at });
        }
        keep
    });
}

/// Writes times down until the store is gone or larder stops.
pub(super) async fn keep_flushing(store: Weak<Inner>, stopping: tokio_util::sync::CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(FLUSH_EVERY) => {}
        }
        let Some(store) = store.upgrade() else { return };
        store.uses.flush(&*store.index, false).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> RepositoryKey {
        RepositoryKey::from_path("docker.io/library/alpine").unwrap()
    }

    fn name(text: &str) -> Name {
        Name::Tag(text.parse().unwrap())
    }

    #[test]
    fn a_time_is_written_at_most_once_an_hour() {
        let uses = Uses::new(10);
        uses.used(&of(), name("a"), Timestamp(1000));
        assert_eq!(uses.take(false).len(), 1);
        uses.used(&of(), name("a"), Timestamp(2000));
        assert_eq!(uses.take(false), []);
        assert_eq!(uses.last(&of(), &name("a")), Some(Timestamp(2000)));
        uses.used(&of(), name("a"), Timestamp(1000 + 3_600_000));
        assert_eq!(uses.take(false).len(), 1);
        uses.used(&of(), name("a"), Timestamp(2000 + 3_600_000));
        assert_eq!(uses.take(true).len(), 1);
    }

    #[test]
    fn the_map_stays_within_its_bound_and_keeps_the_newest() {
        let uses = Uses::new(4);
        for at in 0..100 {
            uses.used(&of(), name(&format!("t{at}")), Timestamp(at));
            uses.take(false);
        }
        assert!(uses.state().used.len() <= 4);
        assert_eq!(uses.last(&of(), &name("t99")), Some(Timestamp(99)));
    }

    #[test]
    fn uses_of_one_second_are_noted_once() {
        let uses = Uses::new(4);
        for at in [9_000, 9_001, 9_999] {
            uses.used(&of(), name("a"), Timestamp(at));
        }
        assert_eq!(uses.last(&of(), &name("a")), Some(Timestamp(9_000)));
        uses.used(&of(), name("a"), Timestamp(10_000));
        assert_eq!(uses.last(&of(), &name("a")), Some(Timestamp(10_000)));
    }

    #[test]
    fn a_time_never_goes_back() {
        let uses = Uses::new(4);
        uses.used(&of(), name("a"), Timestamp(9_000));
        uses.used(&of(), name("a"), Timestamp(5_000));
        assert_eq!(uses.last(&of(), &name("a")), Some(Timestamp(9_000)));
    }
}
