//! Wall time as an argument, so that tests control it. Nothing safe rests on it: it affects freshness and ages only.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde::Serialize;

/// A moment: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero where it lies ahead, as after a clock that was set back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads RFC 3339, as APIs write it: with `T` or a space, any fraction of a second, `Z` or an offset. `None` for what is
    /// no moment since 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let moment: jiff::Timestamp = text.trim().parse().ok()?;
        u64::try_from(moment.as_millisecond()).ok().map(Self)
    }

    /// The moment `later` after this one.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339 in UTC, to the second: `2026-11-24T16:08:09Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        // What lies behind the year 9999 is as good as never.
        moment.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").fmt(f)
    }
}

/// Tells the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    /// With the wall's time and the steady time of its making.
    System(Timestamp, Duration),
    Manual(Arc<Manual>),
}

#[derive(Default)]
struct Manual {
    now: AtomicU64,
    jumped: AtomicU64,
}

/// By so much wall time may differ from what has really passed: summer time that somebody set by hand, and then some.
const DRIFT_MAX: Duration = Duration::from_hours(1);

/// Time that passes evenly, while the machine sleeps too.
fn steady() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System(wall(), steady()))
    }

    /// A clock that stands at `start` until it is moved; clones share it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual { now: AtomicU64::new(start.0), jumped: AtomicU64::new(0) })))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System(..) => wall(),
            Source::Manual(at) => Timestamp(at.now.load(Ordering::SeqCst)),
        }
    }

    /// By how much somebody has set the wall's time since this clock was made, forwards or back, where that is more than an
    /// hour. What deletes by age must not run then: it would take everything for old.
    pub fn jumped(&self) -> Option<Duration> {
        let by = match &self.0 {
            Source::System(wall_then, steady_then) => {
                let passed = steady().saturating_sub(*steady_then);
                let expected = wall_then.after(passed);
                Duration::from_millis(wall().0.abs_diff(expected.0))
            }
            Source::Manual(at) => Duration::from_millis(at.jumped.load(Ordering::SeqCst)),
        };
        (by > DRIFT_MAX).then_some(by)
    }

    /// Moves a manual clock ahead, as time that passes; the machine's stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(at) = &self.0 {
            at.now.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets a manual clock ahead, as somebody does who sets the machine's; that one stays as it is.
    pub fn jump(&self, by: Duration) {
        if let Source::Manual(at) = &self.0 {
            at.jumped.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
        self.advance(by);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_764_000_489, "2025-11-24T16:08:09Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(seconds * 1000).to_string(), want);
        }
    }

    #[test]
    fn moments_are_read_as_apis_write_them() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T00:00:00Z", "2025-11-24T16:08:09Z", "2099-12-31T23:59:59Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        for (text, want) in [
            ("2025-11-24T16:08:09.123456789Z", "2025-11-24T16:08:09Z"),
            ("2025-11-24 17:08:09.5+01:00", "2025-11-24T16:08:09Z"),
            ("2025-11-23T22:38:09-17:30", "2025-11-24T16:08:09Z"),
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), want, "{text}");
        }
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00.25Z"), Some(Timestamp(250)));
        for wrong in [
            "",
            "2025-11-24",
            "2025-11-24T16:08:09",
            "0001-01-01T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00.x1Z",
            "2025-01-01T00:00:00+1:0x",
            "1970-01-01T00:00:00+00:01",
            "+2025-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_clock_that_was_set_is_told_from_time_that_passed() {
        assert_eq!(Clock::system().jumped(), None);
        let clock = Clock::manual(Timestamp(0));
        clock.advance(Duration::from_hours(9000));
        clock.jump(Duration::from_mins(59));
        assert_eq!(clock.jumped(), None);
        clock.jump(Duration::from_mins(2));
        assert_eq!(clock.jumped(), Some(Duration::from_mins(61)));
    }

    #[test]
    fn a_clock_that_was_set_back_gives_no_negative_age() {
        assert_eq!(Timestamp(1).since(Timestamp(5)), Duration::ZERO);
    }
}
