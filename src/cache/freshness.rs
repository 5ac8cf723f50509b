//! Whether a tag's record may be served: RFC 9111's and RFC 5861's words, as a pure rule.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::repository::Windows;

/// What may be done with a tag that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Fresh,
    /// Serve it, and look at the upstream ahead of time: its freshness is nearly over, so somebody would soon wait.
    FreshNearlyOver,
    /// Serve it, and look at the upstream meanwhile (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Look at the upstream first.
    MustValidate,
}

/// Judges a record that was last validated at `validated_at`.
///
/// A clock that was set back makes the record look young, never old: wall time affects nothing but freshness.
pub fn judge(validated_at: Timestamp, now: Timestamp, freshness: &Windows) -> Verdict {
    if freshness.immutable {
        return Verdict::Fresh;
    }
    let age = now.since(validated_at);
    if age < freshness.fresh_for {
        // The last quarter: long enough before the end that the answer is here by then.
        if age > freshness.fresh_for.mul_f32(0.75) { Verdict::FreshNearlyOver } else { Verdict::Fresh }
    } else if age < freshness.fresh_for.saturating_add(freshness.stale_while_revalidate) {
        Verdict::StaleWhileRevalidate
    } else {
        Verdict::MustValidate
    }
}

/// Whether the record may be served while the upstream can't be asked (RFC 5861 §4), counted from the last validation.
pub fn may_serve_stale(validated_at: Timestamp, now: Timestamp, freshness: &Windows) -> bool {
    freshness.immutable || now.since(validated_at) <= freshness.stale_if_error
}

/// The `Age` of an answer.
pub fn age(validated_at: Timestamp, now: Timestamp) -> Duration {
    now.since(validated_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Windows = Windows {
        fresh_for: Duration::from_secs(60),
        stale_while_revalidate: Duration::from_secs(600),
        stale_if_error: Duration::from_secs(3600),
        immutable: false,
    };

    #[test]
    fn the_windows_follow_each_other() {
        let at = |seconds: u64| judge(Timestamp(0), Timestamp(seconds * 1000), &POLICY);
        assert_eq!(at(0), Verdict::Fresh);
        assert_eq!(at(45), Verdict::Fresh);
        assert_eq!(at(46), Verdict::FreshNearlyOver);
        assert_eq!(at(60), Verdict::StaleWhileRevalidate);
        assert_eq!(at(659), Verdict::StaleWhileRevalidate);
        assert_eq!(at(660), Verdict::MustValidate);
    }

    #[test]
    fn an_immutable_tag_is_always_fresh() {
        let policy = Windows { immutable: true, ..POLICY };
        assert_eq!(judge(Timestamp(0), Timestamp(u64::MAX), &policy), Verdict::Fresh);
    }

    #[test]
    fn nothing_is_fresh_for_no_time() {
        let policy = Windows { fresh_for: Duration::ZERO, stale_while_revalidate: Duration::ZERO, ..POLICY };
        assert_eq!(judge(Timestamp(5), Timestamp(5), &policy), Verdict::MustValidate);
    }

    #[test]
    fn staleness_is_bounded_from_the_last_validation() {
        assert!(may_serve_stale(Timestamp(0), Timestamp(3_600_000), &POLICY));
        assert!(!may_serve_stale(Timestamp(0), Timestamp(3_600_001), &POLICY));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_old() {
        assert_eq!(judge(Timestamp(u64::MAX), Timestamp(0), &POLICY), Verdict::Fresh);
    }
}
