//! A fill: the one transfer of a blob from its upstream. It appends to a spool that every client follows, the first
//! included; it is a task of its own, so no client's leaving ends it.
//!
//! The front of the blob is fetched in order. A client that asks for a part far ahead has that extent fetched into the
//! same spool (`claims`). A broken or stalled transfer goes on at its offset.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
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
use crate::store::spool::Area;
use crate::store::spool::SealError;
use crate::store::spool::Spooled;
use crate::store::spool::Verified;
use crate::upstream;
use crate::upstream::Ask;
use crate::upstream::Wanted;

use super::claims::Claimed;
use super::claims::Claims;
use super::error::Error;

/// A part that begins further ahead of the front than this is fetched on its own: waiting for the front would be long.
const AHEAD_BYTES: u64 = 4 << 20;

/// How long bytes that make no whole batch wait for more.
const BATCH_WAIT: Duration = Duration::from_millis(10);

/// How many parts ahead of the front one fill fetches at a time.
const AHEAD_FETCHES: usize = 4;

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

    /// Has `extent` fetched on its own when the front would take long to reach it. Returns at once.
    pub(super) fn reach(self: &Arc<Self>, store: &Store, extent: Extent, tasks: &crate::tasks::Tasks) {
        let Some(spooled) = self.spooled() else { return };
        let Some(size) = spooled.size() else { return };
        if extent.start <= spooled.cursor().saturating_add(AHEAD_BYTES) {
            return;
        }
        let Some(hole) = spooled.missing(extent.start) else { return };
        if hole.start >= extent.end {
            return;
        }
        let Ok(permit) = Arc::clone(&self.ahead).try_acquire_owned() else { return };
        let end = extent.end.min(hole.end).min(size);
        let claimed = self.claims().claim(hole.start, Some(end), AHEAD_BYTES);
        let Some(claimed) = claimed else { return };
        let (fill, store, stopping) = (Arc::clone(self), store.clone(), tasks.stopping());
        tasks.spawn("fill ahead", async move {
            let fetched = tokio::select! {
                fetched = fill.fetch(&store, claimed) => fetched,
                () = stopping.cancelled() => Ok(()),
            };
            if let Err(error) = fetched {
                // The front fetches what this one could not; its error is the one that clients see.
                tracing::debug!(digest = %fill.order.digest, %error, "a part ahead of the front could not be fetched");
            }
            fill.release(claimed);
            drop(permit);
        });
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, claimed: Claimed) {
        self.claims().release(claimed.id);
        self.released.notify_waiters();
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

    /// Writes what makes no whole batch. Whoever asked for a part waits for all of it, and the front, which would write
    /// it by and by, may be waiting for its own next byte: so the part never came.
    async fn write_out(&self) -> Result<(), Error> {
        match self.spooled() {
            Some(spooled) => spooled.flush().await.map_err(|e| store::Error::from(e).into()),
            None => Ok(()),
        }
    }

    /// Whether the transfer may be taken up after this error: not when the bytes themselves are wrong.
    fn goes_on_after(error: &Error) -> bool {
        matches!(error, Error::Upstream(_) | Error::BrokenOff(_))
    }

    /// One request: from `at` to the claim's end, or until it breaks.
    async fn transfer(&self, store: &Store, claimed: Claimed, at: &mut u64) -> Result<(), Error> {
        let end = self.claims().advance(claimed.id, *at);
        if end.is_some_and(|end| *at >= end) {
            return Ok(());
        }
        let same_as = self.validator.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted = Wanted { start: *at, end: claimed.end, same_as };
        let incoming = self.order.proxied.upstream.blob(&self.order.ask, &self.order.digest, &wanted).await?;
        let incoming = incoming.ok_or(Error::BlobUnknown)?;
        let spooled = self.begin(store, incoming.total, incoming.validator).await?;
        if incoming.start > *at {
            return Err(Error::WrongSize { wanted: *at, got: incoming.start });
        }
        // An upstream that ignores the range sends all of it again: what is here already is passed over.
        let mut skip = *at - incoming.start;
        let mut body = incoming.body;
        while let Some(chunk) = Self::next(&spooled, &mut body).await? {
            let mut chunk: Bytes = chunk?;
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            drop(chunk.split_to(usize::try_from(passed).unwrap_or(usize::MAX)));
            if self.take(&spooled, claimed, at, chunk).await? {
                return Ok(());
            }
        }
        Self::ended(&spooled, *at)
    }

    /// The next bytes of the body. What came and makes no whole batch is written when nothing more comes for a moment.
    async fn next(
        spooled: &Spooled,
        body: &mut BoxStream<'static, upstream::Result<Bytes>>,
    ) -> Result<Option<upstream::Result<Bytes>>, Error> {
        if spooled.is_pending() {
            match tokio::time::timeout(BATCH_WAIT, body.next()).await {
                Ok(next) => return Ok(next),
                Err(_) => spooled.flush().await.map_err(store::Error::from)?,
            }
        }
        Ok(body.next().await)
    }

    /// Writes one chunk; returns whether the claim is done.
    async fn take(
        &self,
        spooled: &Arc<Spooled>,
        claimed: Claimed,
        at: &mut u64,
        mut chunk: Bytes,
    ) -> Result<bool, Error> {
        if let Some(size) = spooled.size()
            && *at + chunk.len() as u64 > size
        {
            return Err(Error::WrongSize { wanted: size, got: *at + chunk.len() as u64 });
        }
        if *at + chunk.len() as u64 > self.order.proxied.blob_bytes() {
            return Err(Error::TooLarge { size: *at + chunk.len() as u64, limit: self.order.proxied.blob_bytes() });
        }
        if let Some(end) = self.claims().advance(claimed.id, *at) {
            chunk.truncate(usize::try_from(end.saturating_sub(*at)).unwrap_or(usize::MAX));
        }
        let length = chunk.len() as u64;
        if length > 0 {
            spooled.write(*at, chunk).await.map_err(|e| Error::from(store::Error::from(e)))?;
            *at += length;
        }
        Ok(self.claims().advance(claimed.id, *at).is_some_and(|end| *at >= end) || spooled.size() == Some(*at))
    }

    /// The body ended: cleanly when all is here, or when the upstream never said how much there is.
    fn ended(spooled: &Arc<Spooled>, at: u64) -> Result<(), Error> {
        match spooled.size() {
            None => {
                spooled.set_size(at);
                Ok(())
            }
            Some(size) if at == size => Ok(()),
            Some(_) => Err(Error::BrokenOff(None)),
        }
    }

    /// At the first answer: checks the size, makes the spool, lets the clients in.
    async fn begin(&self, store: &Store, total: Option<u64>, validator: Option<String>) -> Result<Arc<Spooled>, Error> {
        if let Some(spooled) = self.spooled() {
            if let (Some(size), Some(total)) = (spooled.size(), total)
                && size != total
            {
                return Err(Error::WrongSize { wanted: size, got: total });
            }
            self.confirm(&self.order.repository);
            return Ok(spooled);
        }
        let size = match (self.order.size, total) {
            (Some(wanted), Some(got)) if wanted != got => return Err(Error::WrongSize { wanted, got }),
            (wanted, got) => wanted.or(got),
        };
        if let Some(size) = size.filter(|s| *s > self.order.proxied.blob_bytes()) {
            return Err(Error::TooLarge { size, limit: self.order.proxied.blob_bytes() });
        }
        *self.validator.lock().unwrap_or_else(PoisonError::into_inner) = validator;
        let resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let made = match resumed {
            Some(resumed) => match (resumed.size(), size) {
                (Some(wanted), Some(got)) if wanted != got => return Err(Error::WrongSize { wanted, got }),
                _ => Ok(resumed),
            },
            None if !has_room(store, size) => Err(store::Error::Full(None)),
            None => store.spool().create(Area::Fills, size, self.order.digest.algorithm()).await.map_err(Into::into),
        };
        match made {
            Ok(spooled) => {
                self.confirm(&self.order.repository);
                // Only the front's first answer comes here: nobody else has set it.
                let spooled = Arc::clone(self.spool.get_or_init(|| spooled));
                self.stage.send_replace(Stage::Filling(Arc::clone(&spooled)));
                Ok(spooled)
            }
            Err(error) => {
                self.stage.send_replace(Stage::NoRoom);
                Err(error.into())
            }
        }
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
