//! Says that clients are turned away. Clients of a mirror go to the upstream in silence then: nobody would notice.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// How often it is said.
const EVERY: Duration = Duration::from_mins(1);

/// Counts pulls that were refused as anonymous.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    since_said: u64,
    said_at: Option<Instant>,
}

impl Refusals {
    /// Counts one, and says how many there were when a minute has passed since that was said last.
    pub(super) fn note(&self) {
        if let Some(count) = self.count(Instant::now()) {
            tracing::warn!("{count} pulls refused as anonymous; the clients go to the upstream instead");
        }
    }

    fn count(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.since_said += 1;
        if counted.said_at.is_some_and(|at| now.duration_since(at) < EVERY) {
            return None;
        }
        counted.said_at = Some(now);
        Some(std::mem::take(&mut counted.since_said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_with_the_count() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.count(start), Some(1));
        assert_eq!(refusals.count(start + EVERY / 2), None);
        assert_eq!(refusals.count(start + EVERY), Some(2));
    }
}
