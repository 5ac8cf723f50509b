//! Opening and closing the store.

use std::sync::Arc;

use crate::clock::Clock;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use super::Error;
use super::Inner;
use super::Result;
use super::Store;
use super::StoreOptions;

pub(super) async fn open(
    _options: StoreOptions,
    _clock: Clock,
    _tasks: Tasks,
    _metrics: Arc<Metrics>,
) -> Result<Store> {
    Err(Error::Closed)
}

pub(super) async fn close(store: &Arc<Inner>) -> Result<()> {
    store.uses.flush(&*store.index, true).await;
    Ok(())
}

impl Inner {
    /// Whether writes are taken.
    pub(super) fn room(&self) -> Result<()> {
        match self.space.pressure().borrow().state {
            super::space::PressureState::Ok => Ok(()),
            super::space::PressureState::Full => Err(Error::Full(None)),
            super::space::PressureState::ReadOnly => Err(Error::ReadOnly(None)),
        }
    }
}
