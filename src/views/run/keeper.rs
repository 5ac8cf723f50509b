//! What is written of runs, and when: at once what a tag means, now and then the last use; what is over is removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::store;
use crate::store::PressureState;

use super::Error;
use super::Inner;
use super::KIND;
use super::Record;
use super::Run;
use super::name;
use super::signed;

/// How often runs are looked after.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Reads what is written down, and looks after it until the process stops.
pub(super) async fn keep(inner: &Arc<Inner>) {
    let stopping = inner.tasks.stopping();
    loop {
        if let Err(error) = inner.load_all().await {
            tracing::warn!(error = %crate::telemetry::chain(&error), "not every run could be read");
        }
        inner.look_after().await;
        tokio::select! {
            () = stopping.cancelled() => break,
            () = inner.woken.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    // What a clean end knows need not be lost.
    for run in inner.all() {
        let lags = run.state().unwritten(Duration::ZERO);
        if let Some(change) = lags {
            Arc::clone(inner).write(run, change, Settled::Again).await;
        }
    }
}

/// Whether a record that is settled is written all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Enough,
    Again,
}

impl Inner {
    fn all(&self) -> Vec<Arc<Run>> {
        self.map().values().cloned().collect()
    }

    /// Reads every record, once.
    pub(super) async fn load_all(&self) -> Result<(), Error> {
        let loaded = self.loaded.get_or_try_init(|| self.read_all()).await;
        self.tried.store(true, Ordering::Release);
        loaded.map_err(Error::Store)?;
        Ok(())
    }

    async fn read_all(&self) -> store::Result<()> {
        let mut names = self.store.states(KIND);
        while let Some(found) = names.next().await {
            let found = found?;
            match self.read(&found).await {
                // None: it was ended meanwhile.
                Ok(_) => {}
                Err(error) if error.is_damaged_record() => {
                    tracing::warn!(record = found, error = %crate::telemetry::chain(&error), "a run's record can't be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what is over, and writes what could not be written before.
    async fn look_after(self: &Arc<Self>) {
        let (now, keep) = (self.clock.now(), self.settings.load().keep);
        for run in self.all() {
            let (over, lags) = {
                let state = run.state();
                (state.is_over(now, keep), state.unwritten(keep))
            };
            if over {
                let ended = self.end_if(&run, |state| state.is_over(now, keep)).await;
                if let Err(error) = ended {
                    self.say(&error);
                }
            } else if let Some(change) = lags {
                Arc::clone(self).write(run, change, Settled::Again).await;
            }
        }
    }

    /// Waits until the run's record is written as far as `change`, or it is known that it can't be.
    pub(super) async fn settle(self: &Arc<Self>, run: &Arc<Run>, change: u64) {
        if run.state().is_settled(change) {
            return;
        }
        let work = Arc::clone(self).write(Arc::clone(run), change, Settled::Enough);
        // Work of its own: a caller that goes away must not leave a write behind that overtakes the next one.
        drop(self.tasks.spawn("record of a run", work).await);
    }

    /// Writes the run's record; one write takes all that came until then with it.
    async fn write(self: Arc<Self>, run: Arc<Run>, change: u64, settled: Settled) {
        let _writing = run.writing.lock().await;
        let (record, upto) = {
            let state = run.state();
            if state.ended || (settled == Settled::Enough && state.is_settled(change)) {
                return;
            }
            state.record(&run.id)
        };
        match self.put(&record).await {
            Ok(()) => {
                self.failing.store(false, Ordering::Relaxed);
                run.state().was_written(upto, record.used);
            }
            Err(error) => {
                self.say(&error);
                run.state().was_given_up(upto);
            }
        }
    }

    async fn put(&self, record: &Record) -> store::Result<()> {
        // What is left of the disk is for the index and for deletes.
        let room = self.store.pressure().borrow().state;
        match room {
            PressureState::Ok => self.store.put_state(KIND, &name(&record.id), record).await,
            PressureState::Full => Err(store::Error::Full(None)),
            PressureState::ReadOnly => Err(store::Error::ReadOnly(None)),
        }
    }

    /// Says once that records can't be written, until one is.
    fn say(&self, error: &store::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            let error = crate::telemetry::chain(error);
            tracing::warn!(error, "what runs saw is kept in memory alone, until the store takes writes again");
        }
    }

    /// Removes a run and its record.
    pub(super) async fn end(&self, run: &Arc<Run>) -> store::Result<()> {
        self.end_if(run, |_| true).await
    }

    async fn end_if(&self, run: &Arc<Run>, still: impl Fn(&super::one::State) -> bool + Send) -> store::Result<()> {
        let _writing = run.writing.lock().await;
        {
            let mut state = run.state();
            if state.ended || !still(&state) {
                return Ok(());
            }
            // From now on nobody notes anything in it; who would waits until it is gone.
            state.ended = true;
        }
        let _removing = self.reading.write().await;
        let dropped = self.store.drop_state(KIND, &name(&run.id)).await;
        if dropped.is_err() {
            run.state().ended = false;
            return dropped;
        }
        let gone = run.state().tags();
        self.map().remove(&run.id);
        self.metrics.runs(-1);
        self.count_pins(-signed(gone));
        Ok(())
    }
}
