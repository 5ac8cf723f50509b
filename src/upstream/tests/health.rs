use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::server::Reply;
use super::server::Server;
use super::server::ask;
use super::server::config;
use super::server::deps;
use super::server::nobody;
use super::server::open;
use super::server::reply;
use super::server::silence;
use crate::events::Event;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::upstream::Ask;
use crate::upstream::Fault;
use crate::upstream::Health;
use crate::upstream::NoConnection;
use crate::upstream::Priority;
use crate::upstream::Remote;
use crate::upstream::Upstream;
use crate::upstream::Wanted;

const CIRCUIT_OPEN: Fault = Fault::NoConnection(NoConnection::CircuitOpen);

fn tag() -> Reference {
    "1".parse().unwrap()
}

fn manifest() -> Reply {
    reply(200).header("content-type", MediaType::OCI_MANIFEST).body("{}")
}

/// What asks while a copy is held.
fn held() -> Ask {
    Ask { priority: Priority::Revalidate, within: Some(Duration::from_secs(2)), ..ask("a") }
}

async fn fault(upstream: &Arc<dyn Upstream>, ask: &Ask) -> Fault {
    upstream.manifest(ask, &tag()).await.unwrap_err().fault()
}

#[tokio::test]
async fn faults_are_told_apart() {
    type Case = (u16, Fault);
    let cases: [Case; 5] = [
        (500, Fault::Status(500)),
        (503, Fault::Status(503)),
        (429, Fault::RateLimited),
        (403, Fault::Denied),
        (418, Fault::Status(418)),
    ];
    for (status, want) in cases {
        let server = Server::start(move |_| reply(status).header("retry-after", "5")).await;
        let error = open(&server.config()).manifest(&ask("a"), &tag()).await.unwrap_err();
        assert_eq!(error.fault(), want);
        let wait = error.retry_after();
        assert!(wait.is_none() || wait == Some(Duration::from_secs(5)), "{status}: {wait:?}");
    }
    assert_eq!(fault(&open(&config(&[&nobody().await])), &ask("a")).await, Fault::NoConnection(NoConnection::Connect));
    let nowhere = config(&["http://nowhere.invalid"]);
    assert_eq!(fault(&open(&nowhere), &ask("a")).await, Fault::NoConnection(NoConnection::Dns));
}

#[tokio::test]
async fn an_open_circuit_answers_at_once_and_closes_by_itself() {
    let is_down = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&is_down);
    let server = Server::start(move |_| if seen.load(Ordering::SeqCst) { reply(500) } else { manifest() }).await;
    let upstream = open(&server.config());
    assert_eq!(fault(&upstream, &ask("a")).await, Fault::Status(500));
    assert_eq!(server.asked().len(), 2, "two tries");
    let state = upstream.state();
    assert!(matches!(state.endpoints[0].registry, Health::Down { .. }));
    let error = upstream.manifest(&held(), &tag()).await.unwrap_err();
    assert_eq!(error.fault(), CIRCUIT_OPEN);
    assert!(error.retry_after().is_some() && error.is_unavailable());
    assert_eq!(fault(&upstream, &ask("a")).await, CIRCUIT_OPEN, "a second has not passed");
    assert_eq!(server.asked().len(), 2, "nobody was asked again");
    is_down.store(false, Ordering::SeqCst);
    // Whoever has nothing to serve instead is the probe as soon as a second has passed.
    loop {
        match upstream.manifest(&ask("a"), &tag()).await {
            Ok(found) => break assert!(found.is_some()),
            Err(error) => assert_eq!(error.fault(), CIRCUIT_OPEN),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(upstream.state().endpoints[0].registry, Health::Up);
    assert!(upstream.manifest(&held(), &tag()).await.unwrap().is_some());
}

#[tokio::test]
async fn the_background_probe_closes_a_circuit_that_nobody_uses() {
    let is_down = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&is_down);
    let server = Server::start(move |_| if seen.load(Ordering::SeqCst) { reply(500) } else { reply(200) }).await;
    let upstream = open(&server.config());
    assert_eq!(fault(&upstream, &ask("a")).await, Fault::Status(500));
    is_down.store(false, Ordering::SeqCst);
    while upstream.state().endpoints[0].registry != Health::Up {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.count("/v2/"), 1);
}

#[tokio::test]
async fn a_silent_upstream_keeps_only_those_away_who_hold_a_copy() {
    let is_silent = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&is_silent);
    let server = Server::start(move |_| if seen.load(Ordering::SeqCst) { silence() } else { manifest() }).await;
    let upstream = open(&server.config());
    let hurried = Ask { within: Some(Duration::from_millis(100)), ..held() };
    assert_eq!(fault(&upstream, &hurried).await, Fault::TimedOut);
    assert_eq!(fault(&upstream, &hurried).await, CIRCUIT_OPEN);
    is_silent.store(false, Ordering::SeqCst);
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some(), "others may have more patience");
    assert!(upstream.manifest(&hurried, &tag()).await.unwrap().is_some());
}

#[tokio::test]
async fn no_headers_in_time_is_a_time_out() {
    let server = Server::start(|_| silence()).await;
    let mut config = server.config();
    config.limits.headers = Duration::from_millis(200);
    let upstream = open(&config);
    assert_eq!(fault(&upstream, &ask("a")).await, Fault::TimedOut);
    assert_eq!(server.asked().len(), 1, "silence is not tried twice");
    assert_eq!(fault(&upstream, &ask("a")).await, CIRCUIT_OPEN);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let good = Server::start(|_| manifest()).await;
    let upstream = open(&config(&[&nobody().await, &good.url()]));
    for _ in 0..5 {
        assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some());
    }
    let state = upstream.state();
    assert!(matches!(state.endpoints[0].registry, Health::Down { .. }));
    assert_eq!(state.endpoints[1].registry, Health::Up);
}

#[tokio::test]
async fn a_404_counts_only_when_every_endpoint_says_it() {
    let absent = Server::start(|_| reply(404)).await;
    let broken = Server::start(|_| reply(500)).await;
    let has_it = Server::start(|_| manifest()).await;
    let both = [absent.url(), broken.url()];
    for order in [[&*both[0], &*both[1]], [&*both[1], &*both[0]]] {
        assert_eq!(fault(&open(&config(&order)), &ask("a")).await, Fault::Status(500));
    }
    assert!(open(&config(&[&absent.url(), &has_it.url()])).manifest(&ask("a"), &tag()).await.unwrap().is_some());
    let nowhere = open(&config(&[&absent.url(), &absent.url()]));
    assert!(nowhere.manifest(&ask("a"), &tag()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_429_is_waited_out() {
    let server = Server::start(|_| reply(429).header("retry-after", "60")).await;
    let upstream = open(&server.config());
    for _ in 0..3 {
        let error = upstream.manifest(&ask("a"), &tag()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::RateLimited);
        assert!(error.retry_after().unwrap() > Duration::from_secs(50));
    }
    assert_eq!(server.asked().len(), 1);
    assert!(upstream.state().budget.unwrap().closed_until.is_some());
}

#[tokio::test]
async fn warming_stops_when_the_quota_runs_low() {
    let server = Server::start(|_| {
        manifest().header("ratelimit-limit", "100;w=21600").header("ratelimit-remaining", "10;w=21600")
    })
    .await;
    let deps = deps();
    let mut heard = deps.events.subscribe();
    let upstream = Remote::open("reg.test", &server.config(), &deps).unwrap();
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some());
    let low = Event::BudgetLow { upstream: "reg.test".to_owned(), remaining: 10 };
    assert_eq!(heard.next().await, Some(low), "somebody may hear of it");
    let warm = Ask { priority: Priority::Warm, ..ask("a") };
    assert_eq!(fault(&upstream, &warm).await, Fault::RateLimited);
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some());
    assert_eq!(upstream.state().budget.unwrap().remaining, Some(10));
}

#[tokio::test]
async fn a_cdn_that_fails_takes_nothing_else_down() {
    let dead = nobody().await;
    let target = format!("{dead}/layer");
    let server =
        Server::start(
            move |asked| {
                if asked.path.contains("/blobs/") { reply(307).header("location", &target) } else { manifest() }
            },
        )
        .await;
    let mut config = server.config();
    config.may_connect_to = vec!["127.0.0.0/8".parse().unwrap()];
    let upstream = open(&config);
    let digest = Digest::of(b"layer");
    let error = upstream.blob(&ask("a"), &digest, &Wanted::default()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::NoConnection(NoConnection::Connect));
    assert!(matches!(upstream.state().endpoints[0].cdn, Health::Down { .. }));
    assert_eq!(upstream.state().endpoints[0].registry, Health::Unknown);
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some());
    let error = upstream.blob(&ask("a"), &digest, &Wanted::default()).await.unwrap_err();
    assert_eq!(error.fault(), CIRCUIT_OPEN);
}

#[tokio::test]
async fn a_cdn_that_lost_the_bytes_does_not_make_them_absent() {
    let cdn = Server::start(|_| reply(404)).await;
    let base = cdn.url();
    let server = Server::start(move |asked| {
        let path = if asked.path.contains("/registry/") { "/v2/other/blobs/x" } else { "/bucket/x" };
        reply(307).header("location", format!("{base}{path}"))
    })
    .await;
    let mut config = server.config();
    config.may_connect_to = vec!["127.0.0.0/8".parse().unwrap()];
    let upstream = open(&config);
    let digest = Digest::of(b"layer");
    let error = upstream.blob(&ask("a"), &digest, &Wanted::default()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Status(404));
    assert!(upstream.blob(&ask("a/registry/b"), &digest, &Wanted::default()).await.unwrap().is_none());
}
