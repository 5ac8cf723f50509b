//! How many connections one endpoint gets, and who comes first.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::Error;
use super::Fault;
use super::NoConnection;

/// How long a request waits for a place; containerd gives up after 30 s without a byte.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Places on the connections of one endpoint. Blobs never take all of them: what is small finds one at once.
#[derive(Debug)]
pub(super) struct Gate {
    all: Arc<Semaphore>,
    blobs: Arc<Semaphore>,
    waiting: AtomicU32,
    waiting_max: u32,
}

/// A place, for as long as the connection is used.
#[derive(Debug)]
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    _blob: Option<OwnedSemaphorePermit>,
}

impl Gate {
    pub(super) fn new(connections: u32, waiting_max: u32) -> Self {
        let all = usize::try_from(connections.max(1)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let kept = if all > 1 { (all / 8).max(1) } else { 0 };
        Self {
            all: Arc::new(Semaphore::new(all)),
            blobs: Arc::new(Semaphore::new(all - kept)),
            waiting: AtomicU32::new(0),
            waiting_max,
        }
    }

    pub(super) async fn enter(&self, is_blob: bool, deadline: Instant) -> Result<Place, Error> {
        if let Some(place) = self.enter_now(is_blob) {
            return Ok(place);
        }
        let _counted = Counted::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > self.waiting_max {
            return Err(overloaded());
        }
        let deadline = deadline.min(Instant::now() + WAIT_MAX);
        timeout_at(deadline, self.wait(is_blob)).await.ok().flatten().ok_or_else(overloaded)
    }

    fn enter_now(&self, is_blob: bool) -> Option<Place> {
        let blob = if is_blob { Some(Arc::clone(&self.blobs).try_acquire_owned().ok()?) } else { None };
        Some(Place { _all: Arc::clone(&self.all).try_acquire_owned().ok()?, _blob: blob })
    }

    async fn wait(&self, is_blob: bool) -> Option<Place> {
        let blob = if is_blob { Some(Arc::clone(&self.blobs).acquire_owned().await.ok()?) } else { None };
        Some(Place { _all: Arc::clone(&self.all).acquire_owned().await.ok()?, _blob: blob })
    }
}

fn overloaded() -> Error {
    Error::new(Fault::NoConnection(NoConnection::Overloaded), "waiting for a connection: all are busy")
}

struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blobs_leave_a_place_for_what_is_small() {
        let gate = Gate::new(2, 10);
        let soon = Instant::now();
        let blob = gate.enter(true, soon).await.unwrap();
        assert!(gate.enter(true, soon).await.is_err());
        let manifest = gate.enter(false, soon).await.unwrap();
        let refused = gate.enter(false, soon).await.unwrap_err();
        assert_eq!(refused.fault(), Fault::NoConnection(NoConnection::Overloaded));
        drop((blob, manifest));
        assert!(gate.enter(true, soon).await.is_ok());
    }
}
