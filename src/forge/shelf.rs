//! What is known, by repository: in memory and under the store's state, so that it survives restarts.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::store::Store;

use super::Error;
use super::ledger::Ledger;
use super::ledger::Made;

/// The kind of state that this is kept as.
const KIND: &str = "forge";

/// How long a listing is good for where no event says otherwise.
const FRESH: Duration = Duration::from_mins(1);

/// Of what something is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) forge: String,
    /// In lower case: forges do not tell names by case.
    pub(super) repository: String,
}

/// How it is written down.
#[derive(Serialize, Deserialize)]
struct Record<L> {
    forge: String,
    repository: String,
    known: L,
}

/// All that is known of one kind.
pub(super) struct Shelf<L: Ledger> {
    kind: &'static str,
    store: Store,
    clock: Clock,
    entries: tokio::sync::Mutex<HashMap<Key, Arc<Entry<L>>>>,
}

/// What is known of one repository.
pub(super) struct Entry<L: Ledger> {
    key: Key,
    id: String,
    /// One listing at a time.
    listing: tokio::sync::Mutex<()>,
    /// One write at a time, so that none overtakes another.
    writing: tokio::sync::Mutex<()>,
    state: Mutex<State<L>>,
}

struct State<L: Ledger> {
    known: Arc<L>,
    /// When it was listed last, by both clocks: one that is set back makes nothing fresh.
    listed: Option<(Instant, Timestamp)>,
    /// What events said to be there while a listing runs.
    during: Option<BTreeSet<L::Key>>,
}

impl<L: Ledger> Shelf<L> {
    /// Nothing is read yet. `kind` tells what is kept of a repository from what else is.
    pub(super) fn new(kind: &'static str, store: Store, clock: Clock) -> Self {
        Self { kind, store, clock, entries: tokio::sync::Mutex::default() }
    }

    /// The entry of a repository, made where there is none; at most `most` of one forge.
    pub(super) async fn entry(&self, key: Key, most: u32) -> Result<Arc<Entry<L>>, Error> {
        let mut entries = self.entries.lock().await;
        if let Some(entry) = entries.get(&key) {
            return Ok(Arc::clone(entry));
        }
        let of_forge = entries.keys().filter(|other| other.forge == key.forge).count();
        if of_forge >= most as usize {
            return Err(Error::Many { forge: key.forge, most });
        }
        let known = self.read(&key).await?.unwrap_or_default();
        let entry = Arc::new(Entry::new(key.clone(), self.id(&key), known));
        entries.insert(key, Arc::clone(&entry));
        Ok(entry)
    }

    /// The entry of a repository of which something is known; none where nobody ever asked for it.
    pub(super) async fn known(&self, key: Key, most: u32) -> Result<Option<Arc<Entry<L>>>, Error> {
        if let Some(entry) = self.entries.lock().await.get(&key) {
            return Ok(Some(Arc::clone(entry)));
        }
        match self.read(&key).await? {
            Some(_) => self.entry(key, most).await.map(Some),
            None => Ok(None),
        }
    }

    fn id(&self, key: &Key) -> String {
        let named = format!("{}\0{}", key.forge, key.repository);
        format!("{}-{}", self.kind, Digest::of(named.as_bytes()).hex())
    }

    async fn read(&self, key: &Key) -> Result<Option<L>, Error> {
        let read: Result<Option<Record<L>>, _> = self.store.state(KIND, &self.id(key)).await;
        match read {
            Ok(record) => Ok(record.map(|record| record.known)),
            // As if nobody had asked before: that keeps, and the next listing writes it anew.
            Err(error) if error.is_damaged_record() => {
                let (forge, repository) = (&key.forge, &key.repository);
                tracing::warn!(forge, repository, "what was known of a repository's branches is damaged and forgotten");
                Ok(None)
            }
            Err(source) => Err(Error::State { repository: key.repository.clone(), source: Arc::new(source) }),
        }
    }

    /// What is known without asking anybody.
    pub(super) fn peek(entry: &Entry<L>) -> Arc<L> {
        Arc::clone(&entry.state().known)
    }

    /// What is known by a listing that is new enough, else by one that is made now. `list` is polled only if it is needed.
    pub(super) async fn ask(
        &self,
        entry: &Entry<L>,
        most: usize,
        list: impl Future<Output = Result<L::Listing, Error>> + Send,
    ) -> Result<Arc<L>, Error> {
        let _one = entry.listing.lock().await;
        if let Some(known) = entry.fresh(self.clock.now()) {
            return Ok(known);
        }
        let running = Running::begin(entry);
        let begun = self.clock.now();
        let listing = list.await?;
        let known = running.end(listing, Made { begun, ended: self.clock.now() }, most);
        self.write(entry, true).await;
        Ok(known)
    }

    /// Takes in a listing that somebody else made.
    pub(super) async fn take(&self, entry: &Entry<L>, listing: L::Listing, made: Made, most: usize) -> Arc<L> {
        let _one = entry.listing.lock().await;
        let known = Running::begin(entry).end(listing, made, most);
        self.write(entry, true).await;
        known
    }

    /// Changes what is known as an event says. `is_here` is what the event says to be there.
    pub(super) async fn touch(
        &self,
        entry: &Entry<L>,
        is_here: (L::Key, bool),
        change: impl FnOnce(&mut L) -> bool + Send,
    ) -> bool {
        let news = entry.state().touch(is_here, change);
        if news {
            self.write(entry, false).await;
        }
        news
    }

    /// Writes down what is known. Where that fails a restart forgets: what is forgotten keeps, so it goes on.
    async fn write(&self, entry: &Entry<L>, durable: bool) {
        let _one = entry.writing.lock().await;
        let known = L::clone(&entry.state().known);
        let record = Record { forge: entry.key.forge.clone(), repository: entry.key.repository.clone(), known };
        let written = if durable {
            self.store.put_state(KIND, &entry.id, &record).await
        } else {
            self.store.note_state(KIND, &entry.id, &record).await
        };
        if let Err(error) = written {
            let (forge, repository, error) = (record.forge, record.repository, crate::telemetry::chain(&error));
            tracing::warn!(forge, repository, error, "what is known of a repository's branches could not be kept");
        }
    }
}

impl<L: Ledger> fmt::Debug for Shelf<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Shelf({})", self.kind)
    }
}

impl<L: Ledger> Entry<L> {
    fn new(key: Key, id: String, known: L) -> Self {
        let state = Mutex::new(State { known: Arc::new(known), listed: None, during: None });
        Self { key, id, listing: tokio::sync::Mutex::default(), writing: tokio::sync::Mutex::default(), state }
    }

    fn fresh(&self, now: Timestamp) -> Option<Arc<L>> {
        let state = self.state();
        let (steady, wall) = state.listed?;
        (steady.elapsed() < FRESH && now.since(wall) < FRESH).then(|| Arc::clone(&state.known))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Ledger> State<L> {
    fn touch(&mut self, (key, is_here): (L::Key, bool), change: impl FnOnce(&mut L) -> bool) -> bool {
        if let Some(during) = &mut self.during {
            if is_here {
                during.insert(key);
            } else {
                during.remove(&key);
            }
        }
        if !is_here {
            // That something is gone is believed when a listing lacks it.
            self.listed = None;
        }
        change(Arc::make_mut(&mut self.known))
    }
}

/// A listing under way; one that is dropped leaves what is known as it was.
struct Running<'a, L: Ledger>(&'a Entry<L>);

impl<'a, L: Ledger> Running<'a, L> {
    fn begin(entry: &'a Entry<L>) -> Self {
        let mut state = entry.state();
        state.during = Some(BTreeSet::new());
        // An event while it runs takes this away again, and the next to ask lists anew.
        state.listed = Some((Instant::now(), Timestamp::default()));
        Self(entry)
    }

    fn end(self, listing: L::Listing, made: Made, most: usize) -> Arc<L> {
        let mut state = self.0.state();
        let during = state.during.take().unwrap_or_default();
        Arc::make_mut(&mut state.known).take(listing, &during, made, most);
        state.listed = state.listed.map(|_| (Instant::now(), made.ended));
        Arc::clone(&state.known)
    }
}

impl<L: Ledger> Drop for Running<'_, L> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.during.take().is_some() {
            state.listed = None;
        }
    }
}
