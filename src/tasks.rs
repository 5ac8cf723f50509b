//! Background work: named, counted, and joined at shutdown.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Starts and joins background work. Cheap to clone; clones share the work.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    threads: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
}

impl Tasks {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` on the runtime under `name`. It is not stopped with the caller: a fill outlives its clients.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn<F>(&self, name: &'static str, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(work.instrument(tracing::debug_span!("task", name))))
    }

    /// Runs `work` on a thread of its own under `name`.
    pub fn thread<F: FnOnce() + Send + 'static>(&self, name: &str, work: F) -> std::io::Result<()> {
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(handle);
        Ok(())
    }

    /// Ends when the work is asked to stop; loops wait for it beside their timers.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Asks all work to stop and waits until the tasks ended.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Waits for the threads; what feeds them must be gone, else this never ends.
    pub fn join_threads(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so already.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_waits_for_the_work() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping();
        let (done, seen) = tokio::sync::oneshot::channel();
        tasks.spawn("test", async move {
            stopping.cancelled().await;
            done.send(()).unwrap();
        });
        tasks.stop().await;
        assert_eq!(tasks.running(), 0);
        seen.await.unwrap();
    }
}
