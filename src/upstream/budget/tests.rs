use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = Timestamp(1_764_000_489_000); // 2025-11-24T16:08:09Z
    for (text, want) in [
        ("3", Some(3)),
        (" 120 ", Some(120)),
        ("999999999", Some(3600)),
        ("Mon, 24 Nov 2025 16:08:39 GMT", Some(30)),
        ("Mon, 24 Nov 2025 16:00:00 GMT", Some(0)),
        ("Monday, 24-Nov-25 16:08:39 GMT", Some(30)),
        ("-1", None),
        ("soon", None),
        ("", None),
    ] {
        let found = retry_after(&headers(&[("retry-after", text)]), now);
        assert_eq!(found, want.map(Duration::from_secs), "{text:?}");
    }
}

#[test]
fn warming_stops_first_then_revalidation_never_clients() {
    let now = Instant::now();
    for (remaining, warm, revalidate) in [(21, true, true), (20, false, true), (6, false, true), (5, false, false)] {
        let budget = Budget::default();
        let said = format!("{remaining};w=21600");
        budget.note(&headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", &said)]), now);
        assert_eq!(budget.admit(Priority::Warm, true, now).is_ok(), warm, "{remaining}");
        assert_eq!(budget.is_low(), !warm, "{remaining}");
        assert_eq!(budget.admit(Priority::Revalidate, true, now).is_ok(), revalidate, "{remaining}");
        assert!(budget.admit(Priority::Client, true, now).is_ok());
        assert!(budget.admit(Priority::Warm, false, now).is_ok(), "what is free is not held back");
        let later = now + Duration::from_hours(6);
        assert!(budget.admit(Priority::Warm, true, later).is_ok(), "an old figure is forgotten");
    }
}

#[test]
fn a_429_closes_what_it_counts() {
    let (now, wall) = (Instant::now(), Timestamp(0));
    let bare = Budget::default();
    assert_eq!(bare.close(&headers(&[("retry-after", "3")]), now, wall), Duration::from_secs(3));
    let refused = bare.admit(Priority::Client, false, now).unwrap_err();
    assert_eq!((refused.fault(), refused.retry_after()), (Fault::RateLimited, Some(Duration::from_secs(3))));
    assert!(bare.admit(Priority::Client, false, now + Duration::from_secs(3)).is_ok());

    let quota = Budget::default();
    quota.close(&headers(&[("ratelimit-limit", "100;w=21600")]), now, wall);
    assert!(quota.admit(Priority::Client, false, now).is_ok(), "a HEAD is free");
    assert!(quota.admit(Priority::Client, true, now).is_err());
}

#[test]
fn a_429_without_a_time_closes_for_longer_each_time() {
    let (now, wall) = (Instant::now(), Timestamp(0));
    let budget = Budget::default();
    let waits: Vec<u64> = (0..6).map(|_| budget.close(&HeaderMap::new(), now, wall).as_secs()).collect();
    assert_eq!(waits, [60, 120, 240, 480, 900, 900]);
    budget.reopen(false);
    assert_eq!(budget.close(&HeaderMap::new(), now, wall).as_secs(), 60);
}
