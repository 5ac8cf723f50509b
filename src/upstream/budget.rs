//! The quota of one credential at one endpoint, as the upstream's own headers tell it.
//!
//! Docker Hub counts GETs of manifests; HEADs are free. A 429 with those headers closes what they count; one without
//! them closes everything.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::net::fetch::retry_after;

use super::Error;
use super::Fault;
use super::Priority;

/// How long a 429 that does not say so closes the upstream, the first time and at most.
const CLOSED_FIRST: Duration = Duration::from_mins(1);
const CLOSED_MAX: Duration = Duration::from_mins(15);

/// The longest that an upstream's own word is taken for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Shares of the limit, in percent, that are kept for those who are more important.
const KEPT_FROM_WARM: u64 = 20;
const KEPT_FROM_REVALIDATION: u64 = 5;

#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    limit: Option<u64>,
    remaining: Option<u64>,
    forgotten_at: Option<Instant>,
    all: Closed,
    pulls: Closed,
}

#[derive(Debug, Default)]
struct Closed {
    until: Option<Instant>,
    last: Option<Duration>,
}

impl Closed {
    fn close(&mut self, asked: Option<Duration>, now: Instant) -> Duration {
        let next = self.last.map_or(CLOSED_FIRST, |last| (last * 2).clamp(CLOSED_FIRST, CLOSED_MAX));
        let wait = asked.map_or(next, |asked| asked.clamp(Duration::from_secs(1), RETRY_AFTER_MAX));
        if asked.is_none() {
            self.last = Some(wait);
        }
        self.until = Some(now + wait);
        wait
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

impl Budget {
    /// Whether a request of that priority may be made; `is_pull`: one that the quota counts.
    pub(super) fn admit(&self, priority: Priority, is_pull: bool, now: Instant) -> Result<(), Error> {
        let inner = self.lock();
        let closed = inner.all.left(now).or_else(|| inner.pulls.left(now).filter(|_| is_pull));
        if let Some(left) = closed {
            return Err(Error::new(Fault::RateLimited, "the upstream said 429: too many requests")
                .after(Some(left))
                .unasked());
        }
        let known = inner.forgotten_at.is_some_and(|at| now < at);
        let (Some(limit), Some(remaining), true, true) = (inner.limit, inner.remaining, known, is_pull) else {
            return Ok(());
        };
        let kept = match priority {
            Priority::Client => return Ok(()),
            Priority::Revalidate => limit.saturating_mul(KEPT_FROM_REVALIDATION) / 100,
            Priority::Warm => limit.saturating_mul(KEPT_FROM_WARM) / 100,
        };
        if remaining > kept {
            return Ok(());
        }
        let wait = inner.forgotten_at.map(|at| at.saturating_duration_since(now));
        Err(Error::new(Fault::RateLimited, "what is left of the upstream's quota is kept for clients")
            .after(wait)
            .unasked())
    }

    /// Takes in what an answer says. Says what is left and the limit, where the answer did.
    pub(super) fn note(&self, headers: &HeaderMap, now: Instant) -> Option<(u64, Option<u64>)> {
        let (remaining, window) = quota(headers, "ratelimit-remaining")?;
        let limit = quota(headers, "ratelimit-limit").map(|(limit, _)| limit);
        let mut inner = self.lock();
        inner.limit = limit.or(inner.limit);
        inner.remaining = Some(remaining);
        inner.forgotten_at = Some(now + window.unwrap_or(RETRY_AFTER_MAX).min(Duration::from_hours(24)));
        Some((remaining, limit))
    }

    /// Whether so little is left that nothing is fetched ahead any more.
    pub(super) fn is_low(&self) -> bool {
        let inner = self.lock();
        let kept = inner.limit.map(|limit| limit.saturating_mul(KEPT_FROM_WARM) / 100);
        kept.zip(inner.remaining).is_some_and(|(kept, remaining)| remaining <= kept)
    }

    /// It said 429. Returns how long it is closed.
    pub(super) fn close(&self, headers: &HeaderMap, now: Instant, wall: Timestamp) -> Duration {
        let asked = retry_after(headers, wall);
        let counts_pulls = quota(headers, "ratelimit-limit").is_some();
        let mut inner = self.lock();
        if counts_pulls { inner.pulls.close(asked, now) } else { inner.all.close(asked, now) }
    }

    /// It answered again; the next 429 is a first one.
    pub(super) fn reopen(&self, is_pull: bool) {
        let mut inner = self.lock();
        inner.all = Closed::default();
        if is_pull {
            inner.pulls = Closed::default();
        }
    }

    /// For people.
    pub(super) fn state(&self, now: Instant, wall: Timestamp) -> Option<super::Budget> {
        let inner = self.lock();
        let left = inner.all.left(now).into_iter().chain(inner.pulls.left(now)).max();
        if inner.remaining.is_none() && left.is_none() {
            return None;
        }
        let closed_until = left.map(|left| wall.after(left));
        Some(super::Budget { limit: inner.limit, remaining: inner.remaining, closed_until })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `76;w=21600`: a count, and the seconds of its window.
fn quota(headers: &HeaderMap, name: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = headers.get(name)?.to_str().ok()?.split(';');
    let count = parts.next()?.trim().parse().ok()?;
    let window = parts.find_map(|part| part.trim().strip_prefix("w=")?.parse().ok()).map(Duration::from_secs);
    Some((count, window))
}

#[cfg(test)]
mod tests;
