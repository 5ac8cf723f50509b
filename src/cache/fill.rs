//! A fill: the one transfer of a blob from its upstream. It appends to a spool that every client follows, the first
//! included; it is a task of its own, so no client's leaving ends it.
//!
//! The front of the blob is fetched in order. A client that asks for a part far ahead has that extent fetched into the
//! same spool (`parts`); each request of it is a `transfer`. A broken or stalled transfer goes on at its offset.

mod parts;
mod transfer;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::range::Extent;
use crate::repository::Proxied;
use crate::store;
use crate::store::PressureState;
use crate::store::Store;
use crate::store::spool::SealError;
use crate::store::spool::Spooled;
use crate::store::spool::Verified;
use crate::upstream::Ask;

use super::claims::Claimed;
use super::claims::Claims;
use super::error::Error;

use parts::AHEAD_FETCHES;

/// The waits between tries in a row that bring no new byte.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// How far a fill has come.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// The upstream has not answered yet.
    Asking,
    /// Bytes come in; the spool may be followed.
    Filling(Arc<Spooled>),
    /// There is no room to store it: every client gets a transfer of its own.
    NoRoom,
    /// It is committed: the store has it.
    Stored,
    /// It failed.
    Failed(Error),
}

/// What a fill needs to know to begin.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The repository whose upstream is asked.
    pub(super) repository: RepositoryKey,
    /// That upstream.
    pub(super) proxied: Proxied,
    /// How it is asked.
    pub(super) ask: Ask,
    /// The blob.
    pub(super) digest: Digest,
    /// Its size, where a manifest of the repository names it.
    pub(super) size: Option<u64>,
}

/// One transfer under way.
#[derive(Debug)]
pub(super) struct Fill {
    order: Order,
    stage: watch::Sender<Stage>,
    /// The spool, from the first answer on; it stays when the fill fails.
    spool: OnceLock<Arc<Spooled>>,
    claims: Mutex<Claims>,
    released: Notify,
    ahead: Arc<Semaphore>,
    /// The repositories whose upstream confirmed that they have the blob: they get a link each.
    confirmed: Mutex<HashSet<RepositoryKey>>,
    /// The spool of an earlier fill that broke. Nobody follows it before this fill's upstream has answered: the other
    /// repository's permission is not this one's.
    resumed: Mutex<Option<Arc<Spooled>>>,
    /// The validator of the first answer, for `If-Range`.
    validator: Mutex<Option<String>>,
    asked_for: AtomicBool,
}

impl Fill {
    /// A fill that has not begun; `resumed` is the spool of an earlier one that broke.
    pub(super) fn new(order: Order, resumed: Option<Arc<Spooled>>) -> Self {
        Self {
            order,
            stage: watch::Sender::new(Stage::Asking),
            spool: OnceLock::new(),
            resumed: Mutex::new(resumed),
            claims: Mutex::default(),
            released: Notify::new(),
            ahead: Arc::new(Semaphore::new(AHEAD_FETCHES)),
            confirmed: Mutex::default(),
            validator: Mutex::default(),
            asked_for: AtomicBool::new(false),
        }
    }

    /// The repository that it was begun for.
    pub(super) fn repository(&self) -> &RepositoryKey {
        &self.order.repository
    }

    /// Whether this repository's upstream confirmed the blob.
    pub(super) fn is_confirmed(&self, repository: &RepositoryKey) -> bool {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).contains(repository)
    }

    /// Notes that this repository's upstream confirmed the blob.
    pub(super) fn confirm(&self, repository: &RepositoryKey) {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.clone());
    }

    /// Whether a client waits or waited for it: then its failure is in that client's line of the access log.
    pub(super) fn is_asked_for(&self) -> bool {
        self.asked_for.load(Ordering::Relaxed)
    }

    /// Waits until the upstream has answered: for clients.
    pub(super) async fn answered(&self) -> Stage {
        self.asked_for.store(true, Ordering::Relaxed);
        let mut stage = self.stage.subscribe();
        match stage.wait_for(|s| !matches!(s, Stage::Asking)).await {
            Ok(stage) => stage.clone(),
            Err(_) => Stage::Failed(Error::BrokenOff(None)),
        }
    }

    /// Waits until it is over, well or not.
    pub(super) async fn over(&self) {
        let mut stage = self.stage.subscribe();
        // The sender lives as long as the fill: there is no error to see.
        drop(stage.wait_for(|s| !matches!(s, Stage::Asking | Stage::Filling(_))).await);
    }

    /// Fetches all of it into a spool and checks it. Whatever it returns, the followers know it already.
    pub(super) async fn run(&self, store: &Store) -> Result<Verified, Error> {
        let outcome = match self.fetch_all(store).await {
            Ok(spooled) => self.seal(&spooled).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            if let Some(spooled) = self.spooled() {
                spooled.fail(&crate::telemetry::chain(error));
            }
            if !matches!(*self.stage.borrow(), Stage::NoRoom) {
                self.stage.send_replace(Stage::Failed(error.clone()));
            }
        }
        outcome
    }

    /// Ends it where it is, for whoever waits for it.
    pub(super) fn give_up(&self) {
        let error = Error::BrokenOff(None);
        if let Some(spooled) = self.spooled() {
            spooled.fail(&error.to_string());
        }
        self.stage.send_replace(Stage::Failed(error));
    }

    /// Notes that the commit is over; whoever asks now finds the blob in the store.
    pub(super) fn stored(&self) {
        self.stage.send_replace(Stage::Stored);
    }

    /// The repositories that get a link.
    pub(super) fn linked(&self) -> Vec<RepositoryKey> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The spool, where there is one: a later fill may go on from it.
    pub(super) fn spooled(&self) -> Option<Arc<Spooled>> {
        self.spool.get().cloned()
    }

    /// Fetches the front, and then whatever holes are left.
    async fn fetch_all(&self, store: &Store) -> Result<Arc<Spooled>, Error> {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let hole = match self.spooled() {
                None => self.first_hole(),
                Some(spooled) => match spooled.missing(0) {
                    None => return Ok(spooled),
                    Some(hole) => hole,
                },
            };
            let end = (hole.end != u64::MAX).then_some(hole.end);
            let claimed = self.claims().claim(hole.start, end, 0);
            let Some(claimed) = claimed else {
                // Another fetch is about to bring these bytes.
                released.await;
                continue;
            };
            let outcome = self.fetch(store, claimed).await;
            self.release(claimed);
            outcome?;
        }
    }

    /// Where to begin: at the first byte that an earlier fill did not bring.
    fn first_hole(&self) -> Extent {
        let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        let hole = resumed.as_ref().and_then(|spooled| spooled.missing(0));
        if hole.is_none() {
            *resumed = None;
        }
        hole.unwrap_or(Extent { start: 0, end: u64::MAX })
    }

    /// Fetches one claim, taking it up again where it breaks.
    async fn fetch(&self, store: &Store, claimed: Claimed) -> Result<(), Error> {
        let mut at = claimed.start;
        let mut fruitless = 0;
        loop {
            let before = at;
            let error = match self.transfer(store, claimed, &mut at).await {
                Ok(()) => return self.write_out().await,
                Err(error) => error,
            };
            // Before there are bytes the client is told at once: it may have another mirror.
            if self.spooled().is_none() || !Self::goes_on_after(&error) {
                return Err(error);
            }
            fruitless = if at > before { 0 } else { fruitless + 1 };
            if fruitless > self.order.proxied.retries() as usize {
                return Err(match error {
                    Error::Upstream(error) => Error::BrokenOff(Some(error)),
                    error => error,
                });
            }
            tracing::debug!(digest = %self.order.digest, repository = %self.order.repository, at, error = %crate::telemetry::chain(&error), "the transfer broke and is taken up again");
            let pause = PAUSES.get(fruitless).or(PAUSES.last()).copied().unwrap_or_default();
            tokio::time::sleep(pause.mul_f32(0.75 + fastrand::f32() / 2.0)).await;
        }
    }

    /// Whether the transfer may be taken up after this error: not when the bytes themselves are wrong.
    fn goes_on_after(error: &Error) -> bool {
        matches!(error, Error::Upstream(_) | Error::BrokenOff(_))
    }

    async fn seal(&self, spooled: &Arc<Spooled>) -> Result<Verified, Error> {
        spooled.seal(self.order.digest).await.map_err(|error| match error {
            SealError::Mismatch { .. } => Error::WrongBytes { wanted: self.order.digest },
            SealError::Short { .. } => Error::BrokenOff(None),
            SealError::Spool(error) => store::Error::from(error).into(),
        })
    }
}

/// Whether a blob of this size may be taken; one of unknown size where there is any room.
pub(super) fn has_room(store: &Store, size: Option<u64>) -> bool {
    let pressure = *store.pressure().borrow();
    pressure.state == PressureState::Ok && pressure.free >= size.unwrap_or(0)
}
