//! The orderly end: once asked, nothing new is taken; asked twice, everything stops at once.

use std::io;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// Says when to stop. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    at_once: CancellationToken,
}

impl Shutdown {
    /// Not yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end: what is under way may finish. Asked again, it is cut.
    pub fn ask(&self) {
        if self.draining.is_cancelled() {
            self.at_once.cancel();
        }
        self.draining.cancel();
    }

    /// Cuts what is under way.
    pub fn cut(&self) {
        self.draining.cancel();
        self.at_once.cancel();
    }

    /// Whether the end was asked for.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Comes when the end is asked for.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Comes when nothing may go on.
    pub async fn at_once(&self) {
        self.at_once.cancelled().await;
    }

    /// Takes SIGTERM and SIGINT as asking.
    ///
    /// # Errors
    ///
    /// The signals can't be listened for.
    pub fn on_signals(&self, tasks: &Tasks) -> io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (shutdown, stopping) = (self.clone(), tasks.stopping());
        tasks.spawn("signals", async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(again = shutdown.is_draining(), "asked to stop");
                shutdown.ask();
            }
        });
        Ok(())
    }
}
