//! The fills under way, one per digest, and the spools of those that broke, which the next request goes on from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::limits::Limits;
use crate::oci::Digest;
use crate::store::Origin;
use crate::store::Put;
use crate::store::Store;
use crate::store::spool::Spooled;
use crate::tasks::Tasks;

use super::Counted;
use super::alarm::Alarm;
use super::error::Error;
use super::fill::Fill;
use super::fill::Order;
use super::sound::Sound;

/// How long the spool of a broken fill is kept for the next request.
const BROKEN_KEPT: Duration = Duration::from_mins(10);

/// How many spools of broken fills are kept.
const BROKEN_MAX: usize = 32;

/// Starts fills and finds those under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Fills {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    under_way: Mutex<HashMap<Digest, Arc<Fill>>>,
    broken: Mutex<HashMap<Digest, (Instant, Arc<Spooled>)>>,
    /// Fills that run and that wait for their turn, together.
    most: usize,
    turns: Semaphore,
    store: Store,
    tasks: Tasks,
    /// Told of bytes that are not what was asked for; counts.
    alarm: Alarm,
    /// Told after each commit, so that the evictor looks at the size.
    grown: Arc<tokio::sync::Notify>,
    /// What was just written needs no second look.
    sound: Arc<Sound>,
}

impl Fills {
    /// None under way.
    pub(super) fn new(
        store: Store,
        tasks: Tasks,
        alarm: Alarm,
        limits: &Limits,
        grown: Arc<tokio::sync::Notify>,
        sound: Arc<Sound>,
    ) -> Self {
        let shared = Shared {
            under_way: Mutex::default(),
            broken: Mutex::default(),
            most: limits.fills.saturating_add(limits.fills_waiting) as usize,
            turns: Semaphore::new(limits.fills as usize),
            store,
            tasks,
            alarm,
            grown,
            sound,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The fill of `digest`, where one is under way.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The fill of the order's blob, begun where there is none. The flag tells whether it was under way already.
    pub(super) fn join(&self, order: &Order) -> Result<(Arc<Fill>, bool), Error> {
        let mut under_way = self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fill) = under_way.get(&order.digest) {
            return Ok((Arc::clone(fill), true));
        }
        if under_way.len() >= self.shared.most {
            return Err(Error::Busy);
        }
        let resumed = self.take_broken(&order.digest);
        let fill = Arc::new(Fill::new(order.clone(), resumed));
        under_way.insert(order.digest, Arc::clone(&fill));
        drop(under_way);
        let over = Over { fills: self.clone(), digest: order.digest };
        let counted = Counted::new(&self.shared.alarm.metrics, "blob");
        let work = Self::run(self.clone(), Arc::clone(&fill), order.digest);
        self.shared.tasks.spawn("fill", async move {
            let _over = over;
            work.await;
            drop(counted);
        });
        Ok((fill, false))
    }

    /// Has a part of a running fill fetched ahead of its front.
    pub(super) fn reach(&self, fill: &Arc<Fill>, extent: crate::oci::range::Extent) {
        fill.reach(&self.shared.store, extent, &self.shared.tasks);
    }

    /// Fills, then commits: the bytes with a link in each repository whose upstream confirmed them.
    async fn run(self, fill: Arc<Fill>, digest: Digest) {
        let shared = &self.shared;
        // The semaphore is never closed.
        let Ok(_turn) = shared.turns.acquire().await else { return };
        let began = Instant::now();
        let stopping = shared.tasks.stopping();
        let outcome = tokio::select! {
            outcome = fill.run(&shared.store) => outcome,
            // Nobody follows it any more, and an upstream may take for ever.
            () = stopping.cancelled() => return fill.give_up(),
        };
        shared.alarm.metrics.fill_seconds(began.elapsed().as_secs_f64());
        let verified = match outcome {
            Ok(verified) => verified,
            Err(error) => {
                let error = shared.alarm.heard(fill.repository(), error);
                if !fill.is_asked_for() && error.was_asked() {
                    let (repository, cause) = (fill.repository(), crate::telemetry::chain(&error));
                    tracing::debug!(%digest, %repository, error = %cause, "a blob could not be fetched ahead");
                }
                self.keep_broken(&fill, digest, &error);
                return;
            }
        };
        let mut puts = vec![Put::Blob(verified)];
        for repository in fill.linked() {
            let committed = shared.store.commit(&repository, Origin::Proxied, std::mem::take(&mut puts)).await;
            if let Err(error) = committed {
                tracing::warn!(%digest, %repository, %error, "a blob came in whole and could not be kept");
                break;
            }
            if let Ok(Some(held)) = shared.store.held(&repository, &digest).await {
                shared.sound.note(&held);
            }
            puts.push(Put::Link { digest });
        }
        fill.stored();
        shared.grown.notify_one();
    }

    /// Keeps the spool of a transfer that broke, not that of wrong bytes.
    fn keep_broken(&self, fill: &Arc<Fill>, digest: Digest, error: &Error) {
        if !matches!(error, Error::BrokenOff(_)) {
            return;
        }
        let Some(spooled) = fill.spooled() else { return };
        let mut broken = self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.retain(|_, (since, _)| since.elapsed() < BROKEN_KEPT);
        if broken.len() < BROKEN_MAX {
            broken.insert(digest, (Instant::now(), spooled));
        }
    }

    fn take_broken(&self, digest: &Digest) -> Option<Arc<Spooled>> {
        let mut broken = self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, spooled) = broken.remove(digest)?;
        (since.elapsed() < BROKEN_KEPT && spooled.revive()).then_some(spooled)
    }
}

/// Takes a fill off the list when it is over, also when it panicked.
struct Over {
    fills: Fills,
    digest: Digest,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.fills.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}
