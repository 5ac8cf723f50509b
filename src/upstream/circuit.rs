//! One circuit an endpoint and part: what failed a moment ago is not asked again and again.
//!
//! Pure but for its lock: the time comes in, and whoever opens one starts the background probe.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::net::address::Origin;

use super::Error;
use super::Fault;
use super::Health;
use super::NoConnection;

/// Between two background probes.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Between two requests that are probes themselves.
const PROBE_BY_REQUEST: Duration = Duration::from_secs(1);

/// A part of an endpoint, which can fail alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Registry,
    Token,
    Cdn,
}

impl Part {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Token => "token",
            Self::Cdn => "cdn",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Circuit(Mutex<Inner>);

#[derive(Debug, Default)]
enum Inner {
    #[default]
    Unknown,
    Closed,
    Open(Open),
}

#[derive(Debug)]
struct Open {
    since: Timestamp,
    cause: Error,
    /// Who failed: a CDN's circuit says nothing of other hosts.
    origin: Option<Origin>,
    /// Opened because a caller had less time than the upstream may take: only those who hold a copy keep away from it.
    is_soft: bool,
    probed: Instant,
    is_probing: bool,
    until: Option<Instant>,
}

/// Whether a request may go on.
#[derive(Debug)]
pub(super) enum Admission {
    Free,
    Refused(Error),
}

/// The right to be the one probe; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Probe<'a>(&'a Circuit);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Inner::Open(open) = &mut *self.0.lock() {
            open.is_probing = false;
        }
    }
}

impl Circuit {
    /// Whether `origin` may be asked; `is_cold`: nothing is held that could be served instead.
    pub(super) fn admit(&self, origin: &Origin, is_cold: bool, now: Instant) -> Admission {
        match &*self.lock() {
            Inner::Open(open) if open.concerns(origin) && !(open.is_soft && is_cold) => {
                Admission::Refused(open.refusal(now))
            }
            _ => Admission::Free,
        }
    }

    /// The right to ask in spite of the open circuit, where the last one who had it is long enough ago.
    pub(super) fn probe(&self, now: Instant) -> Option<Probe<'_>> {
        let Inner::Open(open) = &mut *self.lock() else { return None };
        open.may_probe(now, PROBE_BY_REQUEST).then(|| Probe(self))
    }

    /// The right of the background probe; `Err`: wait so long. `Ok(None)`: the circuit is closed.
    pub(super) fn background_probe(&self, now: Instant) -> Result<Option<Probe<'_>>, Duration> {
        let Inner::Open(open) = &mut *self.lock() else { return Ok(None) };
        if open.may_probe(now, PROBE_EVERY) { Ok(Some(Probe(self))) } else { Err(open.wait(now)) }
    }

    /// Who failed, while it is open.
    pub(super) fn origin(&self) -> Option<Origin> {
        match &*self.lock() {
            Inner::Open(open) => open.origin.clone(),
            _ => None,
        }
    }

    /// It answered. Says whether the circuit was open.
    pub(super) fn succeed(&self, origin: &Origin) -> bool {
        let mut inner = self.lock();
        if matches!(&*inner, Inner::Open(open) if !open.concerns(origin)) {
            return false;
        }
        matches!(std::mem::replace(&mut *inner, Inner::Closed), Inner::Open(_))
    }

    /// A request's tries are used up. Says whether the circuit was closed before.
    pub(super) fn fail(&self, failure: Failure, now: Instant) -> bool {
        let Failure { cause, origin, is_soft, at } = failure;
        let until = cause.retry_after().filter(|_| cause.fault() == Fault::RateLimited).map(|after| now + after);
        let mut inner = self.lock();
        let (since, is_soft, was_open, is_probing) = match &*inner {
            Inner::Open(open) => (open.since, is_soft && open.is_soft, true, open.is_probing),
            _ => (at, is_soft, false, false),
        };
        *inner = Inner::Open(Open { since, cause, origin, is_soft, probed: now, is_probing, until });
        !was_open
    }

    pub(super) fn health(&self) -> Health {
        match &*self.lock() {
            Inner::Unknown => Health::Unknown,
            Inner::Closed => Health::Up,
            Inner::Open(open) => Health::Down { since: open.since, cause: crate::telemetry::chain(&open.cause) },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What opens a circuit.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) cause: Error,
    pub(super) origin: Option<Origin>,
    pub(super) is_soft: bool,
    pub(super) at: Timestamp,
}

impl Open {
    fn concerns(&self, origin: &Origin) -> bool {
        self.origin.as_ref().is_none_or(|failed| failed == origin)
    }

    fn may_probe(&mut self, now: Instant, every: Duration) -> bool {
        let due = !self.is_probing && now.duration_since(self.probed) >= every && self.until.is_none_or(|u| u <= now);
        if due {
            self.is_probing = true;
            self.probed = now;
        }
        due
    }

    /// How long until the next background probe.
    fn wait(&self, now: Instant) -> Duration {
        let next = self.probed + PROBE_EVERY;
        let next = self.until.map_or(next, |until| until.max(next));
        next.saturating_duration_since(now).max(Duration::from_millis(100))
    }

    fn refusal(&self, now: Instant) -> Error {
        let fault = match self.until {
            Some(until) if until > now => Fault::RateLimited,
            _ => Fault::NoConnection(NoConnection::CircuitOpen),
        };
        let wait = self.wait(now).max(Duration::from_secs(1));
        Error::new(fault, "not asking again what failed a moment ago")
            .caused_by(self.cause.clone())
            .after(Some(wait))
            .unasked()
    }
}

#[cfg(test)]
mod tests;
