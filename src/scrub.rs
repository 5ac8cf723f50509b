//! Hashing again what is stored: at a pace that pulls don't notice, and from where it was when larder was stopped.
//!
//! What turns out damaged is taken out of use ([`Store::quarantine`]): what came from an upstream is forgotten, so that the
//! next pull fetches it anew; what was pushed is an error until it is pushed again. A scrub is no use of anything.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::body::FileRange;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::Hasher;
use crate::store;
use crate::store::Blob;
use crate::store::BlobKey;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry;

/// Bytes that are read and hashed in one go on the blocking pool.
const STEP_BYTES: usize = 1 << 20;
/// Blobs that are listed at a time; after as many it is written down how far the pass has come.
const PAGE: usize = 100;
/// Damaged blobs that a pass names; beyond it they are only counted.
const FAILURES_MAX: usize = 1000;
/// Between two looks at whether a pass is due.
const LOOK_EVERY: Duration = Duration::from_mins(10);

/// How far a pass has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Blobs that were hashed.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that are stored.
    pub total: u64,
    /// What was found damaged; at most a thousand are named.
    pub failures: Vec<Digest>,
    /// Whether the pass ended; none while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
}

/// What is written down: where the pass is, or when the last one ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    after: Option<(Digest, u32)>,
    ended: Option<Timestamp>,
}

/// Hashes what is stored again, one pass at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scrub {
    store: Store,
    clock: Clock,
    tasks: Tasks,
    /// Bytes a second.
    rate: u64,
    running: watch::Sender<Option<Progress>>,
}

impl Scrub {
    /// A scrub of `store` at `rate` bytes a second. Nothing runs yet.
    pub fn new(store: Store, clock: Clock, tasks: Tasks, rate: u64) -> Self {
        Self { store, clock, tasks, rate: rate.max(1), running: watch::Sender::new(None) }
    }

    /// Begins a pass, or joins the one that runs. The last progress has `done`; a receiver that ends without it tells of a
    /// pass that was broken off by the end of larder, and that the next one takes up.
    pub fn start(&self) -> watch::Receiver<Option<Progress>> {
        let told = self.running.subscribe();
        let begins = self.running.send_if_modified(|now| {
            let begins = now.as_ref().is_none_or(|progress| progress.done.is_some());
            if begins {
                *now = Some(Progress::default());
            }
            begins
        });
        if begins {
            let scrub = self.clone();
            self.tasks.spawn("scrub", async move {
                let whole = scrub.pass().await;
                if let Err(error) = &whole {
                    tracing::warn!(error = %telemetry::chain(error), "the scrub broke off; what it checked is remembered");
                }
                scrub.tell(|progress| progress.done = Some(matches!(whole, Ok(true))));
            });
        }
        told
    }

    /// Begins a pass whenever the last one is `every` old, until larder stops. A pass that was broken off goes on at once.
    pub async fn keep(self, every: Duration) {
        let stopping = self.tasks.stopping();
        while !every.is_zero() {
            let mark = self.mark().await;
            let due = mark.ended.is_none_or(|ended| self.clock.now().since(ended) >= every);
            if due || mark.after.is_some() {
                let mut told = self.start();
                tokio::select! {
                    () = stopping.cancelled() => return,
                    _ = told.wait_for(|now| now.as_ref().is_some_and(|progress| progress.done.is_some())) => {}
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Progress)) {
        self.running.send_modify(|now| change(now.get_or_insert_default()));
    }

    async fn mark(&self) -> Mark {
        // A mark that can't be read costs one pass from the start.
        self.store.state("scrub", "mark").await.ok().flatten().unwrap_or_default()
    }

    async fn write(&self, mark: Mark) -> Result<(), store::Error> {
        match self.store.put_state("scrub", "mark", &mark).await {
            Err(store::Error::Full(_) | store::Error::ReadOnly(_)) => Ok(()),
            other => other,
        }
    }

    /// One pass, from where the last was broken off. False where larder stops.
    async fn pass(&self) -> Result<bool, store::Error> {
        let stopping = self.tasks.stopping();
        let mark = self.mark().await;
        let mut after = mark.after.map(|(digest, generation)| BlobKey { digest, generation });
        let mut pace = Pace::new(self.rate);
        loop {
            let stored = self.store.stored();
            self.tell(|progress| progress.total = stored.hosted + stored.proxied);
            let page = self.store.blobs(after.as_ref(), PAGE).await?;
            for blob in &page.rows {
                if !self.check(blob, &mut pace, &stopping).await? {
                    return Ok(false);
                }
                after = Some(blob.key);
            }
            if !page.more {
                self.write(Mark { after: None, ended: Some(self.clock.now()) }).await?;
                return Ok(true);
            }
            self.write(Mark { after: after.map(|key| (key.digest, key.generation)), ..mark }).await?;
        }
    }

    /// Hashes one blob. False where larder stops.
    async fn check(&self, blob: &Blob, pace: &mut Pace, stopping: &CancellationToken) -> Result<bool, store::Error> {
        let sound = match self.store.open_blob(&blob.key).await? {
            Some(range) if range.length == blob.size => match hash(range, blob.key.digest, pace, stopping).await {
                Some(digest) => digest.is_some_and(|digest| digest == blob.key.digest),
                None => return Ok(false),
            },
            Some(_) => false,
            // It was removed since it was listed; if not, it is missing.
            None => self.store.present(&blob.key.digest).await?.is_none(),
        };
        if !sound {
            self.store.quarantine(&blob.key).await?;
        }
        self.tell(|progress| {
            progress.checked += 1;
            progress.bytes += blob.size;
            if !sound && progress.failures.len() < FAILURES_MAX {
                progress.failures.push(blob.key.digest);
            }
        });
        Ok(true)
    }
}

/// Hashes a file at a pace: the digest, or none where it can't be read; nothing at all where larder stops.
async fn hash(
    range: FileRange,
    digest: Digest,
    pace: &mut Pace,
    stopping: &CancellationToken,
) -> Option<Option<Digest>> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut offset = 0;
    while offset < range.length {
        let part = range.slice(offset, STEP_BYTES as u64);
        let step = part.length;
        let read = move || {
            let read = part.each(|bytes| hasher.update(bytes));
            (read, hasher)
        };
        let Ok((read, back)) = tokio::task::spawn_blocking(read).await else { return None };
        if let Err(error) = read {
            tracing::error!(%digest, %error, "stored bytes can't be read");
            return Some(None);
        }
        (hasher, offset) = (back, offset + step);
        tokio::select! {
            () = stopping.cancelled() => return None,
            () = pace.spend(step) => {}
        }
    }
    Some(Some(hasher.finish()))
}

/// So many bytes a second, without catching up for what was not used.
#[derive(Debug)]
struct Pace {
    rate: u64,
    next: Instant,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate, next: Instant::now() }
    }

    async fn spend(&mut self, bytes: u64) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.next = self.next.max(Instant::now()) + cost;
        // From now to then, less what reading took already.
        tokio::time::sleep_until(self.next).await;
    }
}

#[cfg(test)]
mod tests;
