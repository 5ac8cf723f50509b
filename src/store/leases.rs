//! What keeps bytes although no record names them yet: pins of commits that run, and leases of answers that let a
//! client skip an upload.
//!
//! Leases run on the process's monotonic clock, which no change of the wall clock touches; they are gone with the
//! process, which is why hosted bytes that nothing names stay for one lease time after each start.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::oci::Digest;

/// The most leases that are kept one by one. Beyond it nothing is condemned until the newest of all ran out:
/// forgetting a lease would lose bytes, not condemning only costs space.
const LEASES_MAX: usize = 1 << 20;

/// Leases and pins by digest.
#[derive(Debug)]
pub(super) struct Leases {
    time: Duration,
    state: Mutex<State>,
    free: Notify,
}

#[derive(Debug, Default)]
struct State {
    pins: HashMap<Digest, u32>,
    until: HashMap<Digest, Instant>,
    claimed: HashSet<Digest>,
    all_until: Option<Instant>,
    /// The start, or the last rebuild.
    started: Option<Instant>,
}

/// Keeps digests from being condemned, until it is dropped.
#[derive(Debug)]
pub(super) struct Pins {
    leases: Arc<Leases>,
    digests: Vec<Digest>,
}

/// The right to condemn one digest: whoever would pin it waits until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    leases: Arc<Leases>,
    digest: Digest,
}

/// Which bytes are to be condemned, as far as the time since the start matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refetch {
    /// They can be fetched again: proxied, and never linked in a hosted repository.
    Possible,
    /// They can't, or it is not known: they stay for one lease time after the start.
    Impossible,
}

impl Leases {
    pub(super) fn new(time: Duration) -> Arc<Self> {
        let state = State { started: Some(Instant::now()), ..State::default() };
        Arc::new(Self { time, state: Mutex::new(state), free: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins `digests`. Waits while one of them is being condemned.
    pub(super) async fn pin(self: &Arc<Self>, digests: Vec<Digest>) -> Pins {
        loop {
            let freed = self.free.notified();
            tokio::pin!(freed);
            // Registered before the look, so that a claim that ends in between is not missed.
            freed.as_mut().enable();
            {
                let mut state = self.state();
                if !digests.iter().any(|digest| state.claimed.contains(digest)) {
                    for digest in &digests {
                        *state.pins.entry(*digest).or_default() += 1;
                    }
                    return Pins { leases: Arc::clone(self), digests };
                }
            }
            freed.await;
        }
    }

    /// Leases `digest` for the lease time from now on. False while it is being condemned: then it is as good as gone.
    pub(super) fn lease(&self, digest: Digest) -> bool {
        let until = Instant::now() + self.time;
        let mut state = self.state();
        if state.claimed.contains(&digest) {
            return false;
        }
        if state.until.len() >= LEASES_MAX && !state.until.contains_key(&digest) {
            let now = Instant::now();
            state.until.retain(|_, until| *until > now);
            if state.until.len() >= LEASES_MAX {
                state.all_until = Some(until);
                return true;
            }
        }
        state.until.insert(digest, until);
        true
    }

    /// A rebuild ended: what kept its bytes before may not be known any more.
    pub(super) fn restart(&self) {
        self.state().started = Some(Instant::now());
    }

    /// Claims `digest` for condemnation, unless a pin, a lease or the time since the start keeps it.
    pub(super) fn claim(self: &Arc<Self>, digest: Digest, refetch: Refetch) -> Option<Claim> {
        let now = Instant::now();
        let mut state = self.state();
        let leased = state.until.get(&digest).is_some_and(|until| *until > now)
            || state.all_until.is_some_and(|until| until > now);
        let early = refetch == Refetch::Impossible && state.started.is_some_and(|started| now < started + self.time);
        if early || leased || state.pins.contains_key(&digest) || !state.claimed.insert(digest) {
            return None;
        }
        state.until.remove(&digest);
        Some(Claim { leases: Arc::clone(self), digest })
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.leases.state();
        for digest in &self.digests {
            if let Some(count) = state.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(digest);
                }
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leases.state().claimed.remove(&self.digest);
        self.leases.free.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_lease_keeps_until_it_ran_out() {
        let leases = Leases::new(HOUR);
        let digest = Digest::of(b"a");
        assert!(leases.lease(digest));
        tokio::time::advance(Duration::from_mins(59)).await;
        assert!(leases.claim(digest, Refetch::Possible).is_none());
        tokio::time::advance(Duration::from_mins(2)).await;
        assert!(leases.claim(digest, Refetch::Possible).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_fetched_again_stays_for_one_lease_time_after_the_start() {
        let leases = Leases::new(HOUR);
        let digest = Digest::of(b"a");
        assert!(leases.claim(digest, Refetch::Impossible).is_none());
        assert!(leases.claim(digest, Refetch::Possible).is_some());
        tokio::time::advance(HOUR).await;
        assert!(leases.claim(digest, Refetch::Impossible).is_some());
    }

    #[tokio::test]
    async fn a_pin_waits_for_a_claim_and_a_claim_is_refused_by_a_pin() {
        let leases = Leases::new(HOUR);
        let digest = Digest::of(b"a");
        let claim = leases.claim(digest, Refetch::Possible).unwrap();
        assert!(!leases.lease(digest));
        let pinning = leases.pin(vec![digest, digest]);
        tokio::pin!(pinning);
        assert!(pinning.as_mut().now_or_never().is_none());
        drop(claim);
        let pins = pinning.await;
        assert!(leases.claim(digest, Refetch::Possible).is_none());
        drop(pins);
        assert!(leases.claim(digest, Refetch::Possible).is_some());
    }
}
