//! What happened that somebody should hear of, and a bounded bus for it.
//!
//! Whoever tells waits for nobody, and nothing durable depends on it: who listens too slowly misses the oldest. Delivery to
//! anywhere is done above.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::broadcast;

use crate::config::EventName;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run of retention deleted nothing.
    PruneRefused {
        /// The policy's name.
        policy: String,
        /// What forbade it, as a sentence.
        why: String,
    },
    /// An upstream refused our own credential.
    CredentialRejected {
        /// Its host.
        upstream: String,
    },
    /// What an upstream still allows comes to its end: nothing is fetched ahead any more.
    BudgetLow {
        /// Its host.
        upstream: String,
        /// Pulls that are left.
        remaining: u64,
    },
    /// The store takes nothing more: its disk is full, or read-only.
    StoreFull,
    /// An upstream sent bytes that are not those of their digest.
    DigestMismatch {
        /// The repository, with its host.
        repository: String,
        /// What was wanted.
        digest: String,
    },
}

impl Event {
    /// Its name, as the configuration has it.
    pub fn name(&self) -> EventName {
        match self {
            Self::PruneRefused { .. } => EventName::PruneRefused,
            Self::CredentialRejected { .. } => EventName::CredentialRejected,
            Self::BudgetLow { .. } => EventName::BudgetLow,
            Self::StoreFull => EventName::StoreFull,
            Self::DigestMismatch { .. } => EventName::DigestMismatch,
        }
    }

    /// What it is about: the same name about the same thing is one cause, which need not be told again and again.
    pub fn about(&self) -> &str {
        match self {
            Self::PruneRefused { policy, .. } => policy,
            Self::CredentialRejected { upstream } | Self::BudgetLow { upstream, .. } => upstream,
            Self::StoreFull => "",
            Self::DigestMismatch { repository, .. } => repository,
        }
    }
}

/// As a sentence for people.
impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PruneRefused { policy, why } => {
                write!(formatter, "The policy {policy} deleted nothing: {why}")
            }
            Self::CredentialRejected { upstream } => {
                write!(formatter, "{upstream} refuses the credential that is configured for it; renew it")
            }
            Self::BudgetLow { upstream, remaining } => {
                write!(
                    formatter,
                    "{upstream} allows {remaining} more pulls; nothing is fetched ahead until it allows more"
                )
            }
            Self::StoreFull => formatter
                .write_str("The store keeps nothing more: its disk is full or read-only. What is held is served"),
            Self::DigestMismatch { repository, digest } => {
                write!(
                    formatter,
                    "The upstream of {repository} sent bytes that are not those of {digest}; they were not kept"
                )
            }
        }
    }
}

/// Counts events that a listener missed.
pub type Lost = Arc<dyn Fn(u64) + Send + Sync>;

/// The bus. Cheap to clone; clones are one bus.
#[derive(Clone)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    lost: Lost,
}

impl Events {
    /// A bus that keeps the last `most` events for each listener; `lost` is called with the count of those that one missed.
    pub fn new(most: u32, lost: Lost) -> Self {
        let most = usize::try_from(most).unwrap_or(1 << 20).clamp(1, 1 << 20);
        Self { sender: broadcast::Sender::new(most), lost }
    }

    /// Tells of an event. It never waits, whoever listens.
    pub fn emit(&self, event: Event) {
        // It fails where nobody listens.
        let _ = self.sender.send(event);
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription { receiver: self.sender.subscribe(), lost: Arc::clone(&self.lost) }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Events({} listeners)", self.sender.receiver_count())
    }
}

/// A listener's side.
pub struct Subscription {
    receiver: broadcast::Receiver<Event>,
    lost: Lost,
}

impl Subscription {
    /// The next event; none when nobody is left who could tell of one. Dropping the call loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(count)) => (self.lost)(count),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Subscription({} waiting)", self.receiver.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use super::*;

    fn low(remaining: u64) -> Event {
        Event::BudgetLow { upstream: "docker.io".to_owned(), remaining }
    }

    #[tokio::test]
    async fn who_listens_too_slowly_misses_the_oldest_and_that_is_counted() {
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let count = move |count| {
            counted.fetch_add(count, Ordering::SeqCst);
        };
        let events = Events::new(2, Arc::new(count));
        events.emit(low(9));
        let mut listener = events.subscribe();
        for remaining in (0..5).rev() {
            events.emit(low(remaining));
        }
        assert_eq!(listener.next().await, Some(low(1)));
        assert_eq!(listener.next().await, Some(low(0)));
        assert_eq!(lost.load(Ordering::SeqCst), 3);
        drop(events);
        assert_eq!(listener.next().await, None);
    }

    #[test]
    fn what_is_delivered_has_the_name_of_the_configuration() {
        let (policy, why) = ("branches".to_owned(), "at_most".to_owned());
        let (upstream, repository, digest) = ("docker.io".to_owned(), "cache/app".to_owned(), "sha256:0".to_owned());
        let all = [
            Event::PruneRefused { policy, why },
            Event::CredentialRejected { upstream },
            low(3),
            Event::StoreFull,
            Event::DigestMismatch { repository, digest },
        ];
        for (event, name) in all.iter().zip(EventName::ALL) {
            assert_eq!(event.name(), name);
            assert_eq!(serde_json::to_value(event).unwrap()["event"], name.word());
        }
    }
}
