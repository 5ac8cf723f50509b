use url::Url;

use super::*;

fn origin(text: &str) -> Origin {
    Origin::of(&Url::parse(text).unwrap()).unwrap()
}

fn failure(fault: Fault, is_soft: bool) -> Failure {
    let cause =
        Error::new(fault, "asking a.test").after((fault == Fault::RateLimited).then_some(Duration::from_secs(30)));
    Failure { cause, origin: None, is_soft, at: Timestamp(7) }
}

fn is_free(circuit: &Circuit, is_cold: bool, now: Instant) -> bool {
    matches!(circuit.admit(&origin("http://a.test"), is_cold, now), Admission::Free)
}

#[test]
fn an_open_circuit_answers_with_the_cause_and_a_time() {
    let (circuit, now) = (Circuit::default(), Instant::now());
    assert!(is_free(&circuit, false, now));
    assert!(circuit.fail(failure(Fault::TimedOut, false), now));
    assert!(!circuit.fail(failure(Fault::TimedOut, false), now), "it was open");
    let Admission::Refused(error) = circuit.admit(&origin("http://a.test"), true, now) else { panic!("it is open") };
    assert_eq!(error.fault(), Fault::NoConnection(NoConnection::CircuitOpen));
    assert_eq!(error.retry_after(), Some(PROBE_EVERY));
    assert!(format!("{error:?}").contains("asking a.test"));
    assert!(circuit.succeed(&origin("http://a.test")) && is_free(&circuit, false, now));
}

#[test]
fn a_request_is_the_probe_once_a_second_and_one_at_a_time() {
    let (circuit, now) = (Circuit::default(), Instant::now());
    circuit.fail(failure(Fault::Status(500), false), now);
    assert!(circuit.probe(now + Duration::from_millis(999)).is_none());
    let probe = circuit.probe(now + Duration::from_secs(1)).unwrap();
    assert!(circuit.probe(now + Duration::from_secs(9)).is_none(), "one at a time");
    drop(probe);
    assert!(circuit.probe(now + Duration::from_millis(1500)).is_none(), "too soon after the last");
    assert!(circuit.probe(now + Duration::from_secs(2)).is_some());
}

#[test]
fn the_background_probes_every_five_seconds_until_it_is_closed() {
    let (circuit, now) = (Circuit::default(), Instant::now());
    assert!(circuit.background_probe(now).unwrap().is_none());
    circuit.fail(failure(Fault::Status(500), false), now);
    assert_eq!(circuit.background_probe(now).unwrap_err(), PROBE_EVERY);
    assert!(circuit.background_probe(now + PROBE_EVERY).unwrap().is_some());
    circuit.succeed(&origin("http://a.test"));
    assert!(circuit.background_probe(now).unwrap().is_none());
}

#[test]
fn a_429_is_not_probed_before_its_time() {
    let (circuit, now) = (Circuit::default(), Instant::now());
    circuit.fail(failure(Fault::RateLimited, false), now);
    let Admission::Refused(error) = circuit.admit(&origin("http://a.test"), true, now) else { panic!("it is open") };
    assert_eq!((error.fault(), error.retry_after()), (Fault::RateLimited, Some(Duration::from_secs(30))));
    assert!(circuit.probe(now + Duration::from_secs(29)).is_none());
    assert!(circuit.probe(now + Duration::from_secs(30)).is_some());
}

#[test]
fn a_caller_in_a_hurry_keeps_only_others_in_a_hurry_away() {
    let (circuit, now) = (Circuit::default(), Instant::now());
    circuit.fail(failure(Fault::TimedOut, true), now);
    assert!(!is_free(&circuit, false, now) && is_free(&circuit, true, now));
    circuit.fail(failure(Fault::TimedOut, false), now);
    assert!(!is_free(&circuit, true, now));
}

#[test]
fn one_host_of_a_cdn_says_nothing_of_another() {
    let (circuit, now) = (Circuit::default(), Instant::now());
    let failed = Some(origin("https://cdn-1.test"));
    circuit.fail(Failure { origin: failed, ..failure(Fault::TimedOut, false) }, now);
    assert!(matches!(circuit.admit(&origin("https://cdn-2.test"), true, now), Admission::Free));
    assert!(!circuit.succeed(&origin("https://cdn-2.test")), "another host's answer closes nothing");
    assert!(matches!(circuit.admit(&origin("https://cdn-1.test"), true, now), Admission::Refused(_)));
}
