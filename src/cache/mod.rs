//! The read-through cache: answers from the store, else fills from the upstream. The heart of larder.
//!
//! It does not know HTTP: what a client may learn of an [`Error`] is decided in `api`. It is opened with
//! a [`Grant`](crate::access::Grant) only. Whatever moves bytes from an upstream to the store is in `fill`.

mod ahead;
mod alarm;
mod blob;
mod claims;
mod error;
pub mod evict;
mod fill;
mod fills;
mod flight;
pub mod freshness;
mod listing;
mod manifest;
mod pass;
mod presence;
mod sound;
mod status;
mod tag;

use quick_cache::Weighter;
use quick_cache::sync::Cache as Bounded;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::limits::Limits;
use crate::events::Events;
use crate::history::History;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::repository::Proxied;
use crate::repository::Repositories;
use crate::repository::Repository;
use crate::store::BlobKey;
use crate::store::Held;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::Ask;
use crate::upstream::Identity;
use crate::upstream::Priority;

pub use blob::Blob;
pub use error::Error;
pub use flight::Lost;
pub use listing::Listed;
pub use listing::Referrers;
pub use listing::Wanted;
pub use manifest::ManifestBody;
pub use manifest::Purpose;
pub use presence::Presence;
pub use status::CacheStatus;
pub use status::Source;
pub use status::View;
pub use tag::Refreshed;

use alarm::Alarm;
use fills::Fills;
use flight::Flights;
use sound::Sound;

/// How many sizes of blobs, as manifests name them, are remembered.
const EXPECTED_MAX: usize = 100_000;

/// How many manifests that came a moment ago are remembered, and how many bytes of them.
const RECENT_MAX: usize = 256;
const RECENT_BYTES: u64 = 16 << 20;

/// Weighs a manifest by its bytes.
#[derive(Clone, Debug)]
struct BodyBytes;

impl Weighter<(RepositoryKey, Digest), ManifestBody> for BodyBytes {
    fn weight(&self, _: &(RepositoryKey, Digest), body: &ManifestBody) -> u64 {
        body.bytes.len() as u64 + 256
    }
}

/// Something served, and how it came to be.
#[derive(Clone, Debug)]
pub struct Served<T> {
    /// The thing.
    pub content: T,
    /// How it came to be.
    pub status: CacheStatus,
}

/// What a cache is put together from.
#[derive(Debug)]
pub struct Parts {
    /// Where bytes are kept.
    pub store: Store,
    /// Where is noted what clients use.
    pub history: History,
    /// The repositories, with their upstreams.
    pub repositories: Arc<Repositories>,
    /// The time, for freshness and times of use.
    pub clock: Clock,
    /// Where its background work runs.
    pub tasks: Tasks,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Told of wrong bytes.
    pub events: Events,
}

/// The cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {
    store: Store,
    history: History,
    repositories: Arc<Repositories>,
    clock: Clock,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    /// Told of bytes that are not what was asked for.
    alarm: Alarm,
    fills: Fills,
    /// Manifests being fetched by digest.
    manifests: Flights<(RepositoryKey, Digest), Result<ManifestBody, Error>>,
    /// Tags being looked up.
    tags: Flights<(RepositoryKey, Tag), Result<Refreshed, Error>>,
    /// Blobs being confirmed by a repository's upstream.
    confirmations: Flights<(RepositoryKey, Digest), Result<u64, Error>>,
    /// What an upstream said is absent, and when.
    absent: Arc<Bounded<(RepositoryKey, Reference), Instant>>,
    /// The sizes of blobs as the repository's manifests name them.
    expected: Arc<Bounded<(RepositoryKey, Digest), u64>>,
    /// Manifests that came a moment ago: their commit may be under way, or the store have no room for them.
    recent: Arc<Bounded<(RepositoryKey, Digest), ManifestBody, BodyBytes>>,
    /// Manifests whose blobs were seen to be here or begun.
    looked_after: Arc<Bounded<(RepositoryKey, Digest), ()>>,
    ahead: Arc<Semaphore>,
    /// The blobs whose stored bytes were found right.
    sound: Arc<Sound>,
    /// Stored bytes being hashed, and how many at a time.
    looks: Flights<BlobKey, bool>,
    hashing: Arc<Semaphore>,
    grown: Arc<Notify>,
    limits: Limits,
}

impl Cache {
    /// A cache put together from these.
    pub fn new(parts: Parts, limits: Limits) -> Self {
        let Parts { store, history, repositories, clock, tasks, metrics, events } = parts;
        let alarm = Alarm { metrics: Arc::clone(&metrics), events };
        let grown = Arc::new(Notify::new());
        let sound = Arc::new(Sound::new(EXPECTED_MAX));
        Self {
            looks: Flights::new(tasks.clone()),
            hashing: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))),
            sound: Arc::clone(&sound),
            fills: Fills::new(
                store.clone(),
                tasks.clone(),
                alarm.clone(),
                &limits,
                Arc::clone(&grown),
                Arc::clone(&sound),
            ),
            manifests: Flights::new(tasks.clone()),
            tags: Flights::new(tasks.clone()),
            confirmations: Flights::new(tasks.clone()),
            absent: Arc::new(Bounded::new(limits.absent_entries as usize)),
            expected: Arc::new(Bounded::new(EXPECTED_MAX)),
            recent: Arc::new(Bounded::with_weighter(RECENT_MAX, RECENT_BYTES, BodyBytes)),
            looked_after: Arc::new(Bounded::new(EXPECTED_MAX)),
            ahead: Arc::new(Semaphore::new(limits.prefetch as usize)),
            alarm,
            grown,
            store,
            history,
            repositories,
            clock,
            tasks,
            metrics,
            limits,
        }
    }

    /// How many fills are under way.
    pub fn fills(&self) -> usize {
        self.fills.count()
    }

    /// The proxied repository behind a key.
    fn proxied(&self, repository: &RepositoryKey) -> Result<Proxied, Unproxied> {
        match self.repositories.resolve(repository) {
            Ok(Repository::Proxied(proxied)) => Ok(proxied),
            // What is hosted and not held is nowhere.
            Ok(Repository::Hosted(_)) => Err(Unproxied::Hosted),
            Err(refused) => Err(Unproxied::Refused(refused.into())),
        }
    }

    async fn held(&self, repository: &RepositoryKey, digest: &Digest) -> Result<Option<Arc<Held>>, Error> {
        if let Some(held) = self.store.peek(repository, digest) {
            return Ok(Some(held));
        }
        Ok(Box::pin(self.store.held(repository, digest)).await?)
    }

    /// Counts work until the guard is dropped: `larder_fills` by state.
    fn counted(&self, state: &'static str) -> Counted {
        Counted::new(&self.metrics, state)
    }

    fn ask(repository: &RepositoryKey, priority: Priority) -> Ask {
        Ask { name: repository.name.clone(), priority, identity: Identity::Configured, within: None }
    }

    /// Answers from memory that a thing is absent, where the upstream said so a moment ago.
    fn check_absent(&self, repository: &RepositoryKey, reference: impl Into<Sought>) -> Result<(), Error> {
        let Sought(reference, error) = reference.into();
        match self.absent.get(&(repository.clone(), reference)) {
            Some(since) if since.elapsed() < self.limits.absent => Err(error),
            _ => Ok(()),
        }
    }

    /// Remembers that a thing is absent, where that is what the error says; passes the error on.
    fn noted_absent(&self, repository: &RepositoryKey, reference: impl Into<Sought>, error: Error) -> Error {
        if matches!(error, Error::ManifestUnknown | Error::BlobUnknown) {
            self.absent.insert((repository.clone(), reference.into().0), Instant::now());
        }
        error
    }
}

/// Work that is counted while this lives.
#[derive(Debug)]
struct Counted {
    metrics: Arc<Metrics>,
    state: &'static str,
}

impl Counted {
    fn new(metrics: &Arc<Metrics>, state: &'static str) -> Self {
        metrics.fills(state, 1);
        Self { metrics: Arc::clone(metrics), state }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.fills(self.state, -1);
    }
}

/// A thing that was asked for, and the error that says that it is absent.
struct Sought(Reference, Error);

impl From<&Digest> for Sought {
    fn from(digest: &Digest) -> Self {
        Self(Reference::Digest(*digest), Error::BlobUnknown)
    }
}

impl From<&Reference> for Sought {
    fn from(reference: &Reference) -> Self {
        Self(reference.clone(), Error::ManifestUnknown)
    }
}

impl From<&Tag> for Sought {
    fn from(tag: &Tag) -> Self {
        Self(Reference::Tag(tag.clone()), Error::ManifestUnknown)
    }
}

/// Why a repository has no upstream to ask.
enum Unproxied {
    Hosted,
    Refused(Error),
}

impl Unproxied {
    fn or_blob_unknown(self) -> Error {
        match self {
            Self::Hosted => Error::BlobUnknown,
            Self::Refused(error) => error,
        }
    }

    fn or_manifest_unknown(self) -> Error {
        match self {
            Self::Hosted => Error::ManifestUnknown,
            Self::Refused(error) => error,
        }
    }
}
