//! Tells where what an upstream sent is not what was asked for.

use std::sync::Arc;

use crate::events::Event;
use crate::events::Events;
use crate::oci::RepositoryKey;
use crate::telemetry::Metrics;

use super::error::Error;

/// Counts wrong bytes and tells of them. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Alarm {
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Events,
}

impl Alarm {
    /// Takes note of how a transfer failed, and passes the error on.
    pub(super) fn heard(&self, repository: &RepositoryKey, error: Error) -> Error {
        match &error {
            Error::WrongBytes { wanted } => {
                self.metrics.verify_failure();
                tracing::warn!(%repository, digest = %wanted, "the upstream sent bytes that are not those of the digest");
                let (repository, digest) = (repository.to_string(), wanted.to_string());
                self.events.emit(Event::DigestMismatch { repository, digest });
            }
            Error::WrongSize { .. } => self.metrics.verify_failure(),
            _ => {}
        }
        error
    }
}
