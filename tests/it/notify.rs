//! Whoever runs the server is told what happened: once, and after a try that failed again.

use std::sync::Arc;
use std::time::Duration;

use larder::clock::Clock;
use larder::clock::Timestamp;
use larder::config::EventName;
use larder::config::Notify;
use larder::config::Secret;
use larder::events::Event;
use larder::events::Events;
use larder::net::Trust;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;
use larder::webhook::Deps;
use larder::webhook::Webhooks;

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::chat::Chat;
use crate::support::images::image;
use crate::support::larder::eventually;

/// Webhooks by themselves.
struct Told {
    webhooks: Webhooks,
    events: Events,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

fn settings(url: &str) -> Notify {
    Notify {
        file: "/run/secrets/chat".into(),
        url: Secret::new(url),
        events: EventName::ALL.to_vec(),
        again: Duration::from_hours(1),
        tries: 3,
        queue: 2,
        timeout: Duration::from_secs(30),
        ca_file: None,
        proxy: None,
    }
}

impl Told {
    fn at(notify: Notify) -> Self {
        let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
        let (clock, trust) = (Clock::manual(Timestamp(1_790_000_000_000)), Trust::nobody());
        let deps = Deps { clock, tasks: tasks.clone(), metrics: Arc::clone(&metrics), trust };
        let webhooks = Webhooks::new(&[notify], deps).unwrap();
        let events = Events::new(100, Arc::new(|_| ()));
        tasks.spawn("webhooks", webhooks.clone().run(events.subscribe(), tasks.stopping()));
        Self { webhooks, events, metrics, tasks }
    }

    fn count(&self, event: &str, outcome: &str) -> u64 {
        let line = format!("larder_notifications_total{{event=\"{event}\",outcome=\"{outcome}\"}} ");
        self.metrics.encode().lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    /// Until so many of an event ended so.
    async fn until(&self, event: &str, outcome: &str, count: u64) {
        eventually(outcome, async || self.count(event, outcome) >= count).await;
        assert_eq!(self.count(event, outcome), count);
    }
}

fn rejected(upstream: &str) -> Event {
    Event::CredentialRejected { upstream: upstream.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_an_upstream_are_told_once() {
    let (chat, upstream) = (Chat::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat");
    std::fs::write(&file, format!("{}\n", chat.url("hooks/secret"))).unwrap();
    let notify = serde_json::json!([{ "url_file": file, "events": ["digest_mismatch", "store_full"] }]);
    let larder = Larder::configured(&upstream, &format!(r#", "notify": {notify}"#), "").await;
    let image = image(31, &[500, 700]);
    upstream.add("library/app", "1", &image);
    upstream.script(|seen| seen.path.contains("/blobs/").then_some(Fault::Flip(7)));
    let digest = image.blob(1).0;
    assert_eq!(larder.blob("library/app", &digest).await.status, 502);
    assert_eq!(larder.blob("library/app", &image.blob(2).0).await.status, 502);
    let metrics = async || String::from_utf8_lossy(&larder.get("/metrics").await.body).into_owned();
    let repeated = "larder_notifications_total{event=\"digest_mismatch\",outcome=\"repeated\"} 1\n";
    eventually("the second is the same cause", async || metrics().await.contains(repeated)).await;
    eventually("it was told", async || metrics().await.contains("outcome=\"sent\"} 1\n")).await;
    let taken = chat.taken();
    let [(path, document)] = &*taken else { panic!("told more than once: {taken:?}") };
    assert_eq!(path, "/hooks/secret");
    assert_eq!(document["event"], "digest_mismatch");
    assert_eq!(document["repository"], "docker.io/library/app");
    assert_eq!(document["digest"], digest.to_string());
    assert!(document["text"].as_str().unwrap().starts_with("larder: The upstream of docker.io/library/app sent"));
    assert_eq!(document["at"], Timestamp(1_790_000_000_000).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_and_given_up_after_the_last_try() {
    let chat = Chat::start().await;
    let told = Told::at(settings(&chat.url("a")));
    chat.answers(&[503, 429]);
    told.events.emit(rejected("ghcr.io"));
    told.until("credential_rejected", "sent", 1).await;
    assert_eq!((chat.taken().len(), told.count("credential_rejected", "again")), (3, 2));
    chat.answers(&[500, 500, 500]);
    told.events.emit(rejected("quay.io"));
    told.until("credential_rejected", "failed", 1).await;
    assert_eq!(chat.taken().len(), 6, "three tries");
    chat.answers(&[404]);
    told.events.emit(Event::StoreFull);
    told.until("store_full", "failed", 1).await;
    assert_eq!(chat.taken().len(), 7, "what is refused for good is not tried again");
    told.events.emit(Event::StoreFull);
    told.until("store_full", "sent", 1).await;
    told.events.emit(Event::StoreFull);
    told.until("store_full", "repeated", 1).await;
    assert_eq!(chat.taken().len(), 8, "what nobody heard of is told again, what was told is not");
    told.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_url_takes_what_waits() {
    let (old, new) = (Chat::start().await, Chat::start().await);
    let told = Told::at(Notify { events: vec![EventName::CredentialRejected], ..settings(&old.url("old")) });
    let gate = old.gated();
    for upstream in ["a.test", "b.test", "c.test"] {
        told.events.emit(rejected(upstream));
        // One is on its way, the others wait.
        eventually("it is under way", async || !old.taken().is_empty()).await;
    }
    told.events.emit(Event::StoreFull);
    told.events.emit(rejected("d.test"));
    told.until("credential_rejected", "dropped", 1).await;
    told.webhooks.reload(&[settings(&new.url("new"))]).unwrap();
    old.answers(&[500]);
    gate.add_permits(1);
    told.until("credential_rejected", "sent", 3).await;
    assert_eq!(old.taken().len(), 1);
    let upstreams: Vec<String> =
        new.taken().iter().map(|(_, document)| document["upstream"].as_str().unwrap().to_owned()).collect();
    assert_eq!(upstreams, ["a.test", "b.test", "c.test"]);
    assert_eq!(told.count("store_full", "sent"), 0, "nobody wanted to hear of it");
    assert!(!format!("{:?}", told.webhooks).contains("/new"), "the URL is a secret");
    told.webhooks.reload(&[]).unwrap();
    told.events.emit(rejected("e.test"));
    told.tasks.stop().await;
    assert_eq!(new.taken().len(), 3);
}
