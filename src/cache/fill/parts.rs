//! Which parts of a blob are fetched by whom: a client that asks for one far ahead of the front has it fetched into the same
//! spool.

use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::oci::range::Extent;
use crate::store::Store;
use crate::tasks::Tasks;

use super::super::claims::Claimed;
use super::super::claims::Claims;
use super::Fill;

/// A part that begins further ahead of the front than this is fetched on its own: waiting for the front would be long.
const AHEAD_BYTES: u64 = 4 << 20;

/// How many parts ahead of the front one fill fetches at a time.
pub(super) const AHEAD_FETCHES: usize = 4;

impl Fill {
    /// Has `extent` fetched on its own when the front would take long to reach it. Returns at once.
    pub(in crate::cache) fn reach(self: &Arc<Self>, store: &Store, extent: Extent, tasks: &Tasks) {
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

    pub(super) fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn release(&self, claimed: Claimed) {
        self.claims().release(claimed.id);
        self.released.notify_waiters();
    }
}
