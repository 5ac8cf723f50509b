//! The gate that everybody passes who changes the tree, and that a rebuild of the index closes while it looks.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::sync::RwLock;
use tokio::sync::RwLockReadGuard;
use tokio::sync::RwLockWriteGuard;

/// Open to any number of changes, or closed to all of them.
#[derive(Debug, Default)]
pub(super) struct Gate {
    lock: RwLock<()>,
    passed: AtomicU64,
}

impl Gate {
    /// Waits until it is open, and keeps it so.
    pub(super) async fn pass(&self) -> Passing<'_> {
        Passing { passed: &self.passed, _open: self.lock.read().await }
    }

    /// Waits until nobody is inside, and closes it.
    pub(super) async fn close(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write().await
    }

    /// How many changes there were. The same before something was read and after the gate was closed: what was read is what
    /// is there, as who was inside in between has left by then.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }
}

/// A change of the tree that is being made.
#[derive(Debug)]
pub(super) struct Passing<'a> {
    passed: &'a AtomicU64,
    /// Let go after the count: fields are dropped last.
    _open: RwLockReadGuard<'a, ()>,
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_that_was_under_way_is_counted_when_the_gate_is_closed() {
        let gate = Gate::default();
        let inside = gate.pass().await;
        let before = gate.passed();
        let (closed, ()) = tokio::join!(gate.close(), async { drop(inside) });
        assert_ne!(gate.passed(), before);
        drop(closed);
        let before = gate.passed();
        let _closed = gate.close().await;
        assert_eq!(gate.passed(), before);
    }
}
