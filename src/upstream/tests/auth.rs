use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;

use super::server::Asked;
use super::server::Reply;
use super::server::Server;
use super::server::ask;
use super::server::deps;
use super::server::open;
use super::server::reply;
use crate::config::Secret;
use crate::config::upstream::Credential;
use crate::events::Event;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::upstream::Ask;
use crate::upstream::Fault;
use crate::upstream::Identity;
use crate::upstream::Remote;

pub(super) fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: Secret::new(password) }
}

fn tag() -> Reference {
    "1".parse().unwrap()
}

fn manifest() -> Reply {
    reply(200).header("content-type", MediaType::OCI_MANIFEST).body("{}")
}

fn challenge(asked: &Asked, extra: &str) -> Reply {
    let name = asked.path.trim_start_matches("/v2/").split("/manifests/").next().unwrap_or_default();
    let host = asked.header("host").unwrap();
    let text = format!(r#"Bearer realm="http://{host}/token",service="test",scope="repository:{name}:pull"{extra}"#);
    reply(401).header("www-authenticate", text)
}

fn token(text: &str) -> Reply {
    reply(200).body(format!(r#"{{"token":"{text}","expires_in":300}}"#))
}

fn is_ci(asked: &Asked) -> bool {
    asked.header("authorization") == Some(&format!("Basic {}", STANDARD.encode("ci:hunter2")))
}

/// A registry behind a token service that knows `ci`; what begins with `public/` is anybody's.
fn guarded(asked: &Asked) -> Reply {
    if asked.path == "/token" {
        return match (asked.header("authorization"), is_ci(asked)) {
            (Some(_), false) => reply(401),
            (_, true) => token("for-ci"),
            (None, false) => token("for-anybody"),
        };
    }
    match asked.header("authorization") {
        Some("Bearer for-ci") => manifest(),
        Some("Bearer for-anybody") if asked.path.starts_with("/v2/public/") => manifest(),
        Some(_) => challenge(asked, r#",error="insufficient_scope""#),
        None => challenge(asked, ""),
    }
}

#[tokio::test]
async fn one_token_is_asked_for_however_many_wait() {
    let server = Server::start(guarded).await;
    let mut config = server.config();
    config.credential = Some(basic("ci", "hunter2"));
    let upstream = open(&config);
    let all = join_all((0..40).map(|_| {
        let upstream = Arc::clone(&upstream);
        async move { upstream.manifest(&ask("acme/app"), &tag()).await }
    }));
    assert!(all.await.into_iter().all(|found| found.unwrap().is_some()));
    assert_eq!(server.count("/token"), 1);
    let asked = server.asked();
    let request = asked.iter().find(|asked| asked.path == "/token").unwrap();
    assert_eq!(request.query, "service=test&scope=repository%3Aacme%2Fapp%3Apull");
    let before = server.asked().len();
    assert!(upstream.manifest(&ask("acme/app"), &tag()).await.unwrap().is_some());
    assert_eq!(server.asked().len(), before + 1, "the token is shown at once");
}

#[tokio::test]
async fn tokens_are_not_shared_between_identities() {
    let server = Server::start(guarded).await;
    let mut config = server.config();
    config.credential = Some(basic("ci", "hunter2"));
    let upstream = open(&config);
    let anybody = |name: &str| Ask { identity: Identity::Anonymous, ..ask(name) };
    assert!(upstream.manifest(&ask("acme/app"), &tag()).await.unwrap().is_some());
    let refused = upstream.manifest(&anybody("acme/app"), &tag()).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Denied);
    assert!(upstream.manifest(&anybody("public/app"), &tag()).await.unwrap().is_some());
    let with_password = server.asked().iter().filter(|asked| is_ci(asked)).count();
    assert_eq!(with_password, 1);
}

#[tokio::test]
async fn a_valid_token_that_is_refused_means_denied_after_two_tokens_at_most() {
    let server = Server::start(|asked| match &*asked.path {
        "/token" => token("useless"),
        _ => challenge(asked, ""),
    })
    .await;
    let refused = open(&server.config()).manifest(&ask("a"), &tag()).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Denied);
    assert!(!refused.is_unavailable());
    assert_eq!(server.count("/token"), 2);
    assert_eq!(server.count("/v2/a/manifests/1"), 4, "without, with, the same again, with another");
}

#[tokio::test]
async fn a_new_token_that_is_refused_is_given_a_second() {
    let refusals = AtomicUsize::new(0);
    let server = Server::start(move |asked| match (&*asked.path, asked.header("authorization")) {
        ("/token", _) => token("early"),
        (_, Some(_)) if refusals.fetch_add(1, Ordering::SeqCst) > 0 => manifest(),
        _ => challenge(asked, r#",error="invalid_token""#),
    })
    .await;
    assert!(open(&server.config()).manifest(&ask("a"), &tag()).await.unwrap().is_some());
    assert_eq!(server.count("/token"), 1);
}

#[tokio::test]
async fn a_token_that_ran_out_is_fetched_again() {
    let round = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&round);
    let server = Server::start(move |asked| {
        let round = seen.load(Ordering::SeqCst);
        match (&*asked.path, asked.header("authorization")) {
            ("/token", _) => token(&format!("t{round}")),
            (_, Some(value)) if value == format!("Bearer t{round}") => manifest(),
            _ => challenge(asked, ""),
        }
    })
    .await;
    let upstream = open(&server.config());
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some());
    round.store(1, Ordering::SeqCst);
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some());
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn a_credential_that_is_refused_counts_as_unavailable_and_rests() {
    let server = Server::start(guarded).await;
    let mut config = server.config();
    config.credential = Some(basic("ci", "wrong-password"));
    let deps = deps();
    let mut heard = deps.events.subscribe();
    let upstream = Remote::open("reg.test", &config, &deps).unwrap();
    for _ in 0..6 {
        let refused = upstream.manifest(&ask("acme/app"), &tag()).await.unwrap_err();
        assert_eq!(refused.fault(), Fault::CredentialRefused);
        assert!(refused.is_unavailable() && !format!("{refused:?}").contains("wrong-password"));
    }
    assert_eq!(server.count("/token"), 3, "then it rests");
    let rejected = Event::CredentialRejected { upstream: "reg.test".to_owned() };
    assert_eq!(heard.next().await, Some(rejected), "somebody may hear of it");
    assert!(upstream.state().credential_refused);
}

#[tokio::test]
async fn a_403_of_the_token_service_is_told_apart_by_a_token_for_nothing() {
    for (is_good, want) in [(true, Fault::Denied), (false, Fault::CredentialRefused)] {
        let server = Server::start(move |asked| match (&*asked.path, asked.query.contains("scope")) {
            ("/token", false) if is_good => token("for-nothing"),
            ("/token", _) => reply(403),
            _ => challenge(asked, ""),
        })
        .await;
        let mut config = server.config();
        config.credential = Some(basic("ci", "hunter2"));
        let refused = open(&config).manifest(&ask("a"), &tag()).await.unwrap_err();
        assert_eq!((refused.fault(), server.count("/token")), (want, 2));
    }
}

#[tokio::test]
async fn a_credential_is_not_sent_to_a_strange_realm() {
    let trap = Server::start(|_| token("stolen")).await;
    for scheme in ["http", "https"] {
        let realm = format!("{scheme}://{}/token", trap.address);
        let server = Server::start(move |_| {
            reply(401).header("www-authenticate", format!(r#"Bearer realm="{realm}",service="x""#))
        })
        .await;
        let mut config = server.config();
        config.may_connect_to = vec!["127.0.0.0/8".parse().unwrap()];
        config.credential = Some(basic("ci", "hunter2"));
        let upstream = open(&config);
        assert_eq!(upstream.manifest(&ask("a"), &tag()).await.unwrap_err().fault(), Fault::Unusable);
        let anybody = Ask { identity: Identity::Anonymous, ..ask("a") };
        assert_eq!(upstream.manifest(&anybody, &tag()).await.unwrap_err().fault(), Fault::Unusable);
    }
    assert!(trap.asked().is_empty());

    let realm = format!("{}/token", trap.url());
    let server = Server::start(move |asked| match asked.header("authorization") {
        Some("Bearer stolen") => manifest(),
        _ => reply(401).header("www-authenticate", format!(r#"Bearer realm="{realm}",service="x""#)),
    })
    .await;
    let mut config = server.config();
    config.token_hosts = vec![trap.address.to_string()];
    let refused = open(&config).manifest(&ask("a"), &tag()).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::AddressRefused, "named, but its address is private");
    config.may_connect_to = vec!["127.0.0.0/8".parse().unwrap()];
    assert!(open(&config).manifest(&ask("a"), &tag()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_token_service_that_redirects_gets_nothing_sent_on() {
    let trap = Server::start(|_| token("stolen")).await;
    let target = format!("{}/token", trap.url());
    let server = Server::start(move |asked| match &*asked.path {
        "/token" => reply(307).header("location", &target),
        _ => challenge(asked, ""),
    })
    .await;
    let mut config = server.config();
    config.may_connect_to = vec!["127.0.0.0/8".parse().unwrap()];
    config.credential = Some(basic("ci", "hunter2"));
    assert_eq!(open(&config).manifest(&ask("a"), &tag()).await.unwrap_err().fault(), Fault::Unusable);
    assert!(trap.asked().is_empty());
}

#[tokio::test]
async fn a_registry_may_want_the_password_itself() {
    let server = Server::start(|asked| match asked.header("authorization") {
        Some(_) if is_ci(asked) => manifest(),
        _ => reply(401).header("www-authenticate", "Basic realm=\"Registry\""),
    })
    .await;
    let mut config = server.config();
    assert_eq!(open(&config).manifest(&ask("a"), &tag()).await.unwrap_err().fault(), Fault::Denied);
    config.credential = Some(basic("ci", "hunter2"));
    let upstream = open(&config);
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_some());
    let before = server.asked().len();
    assert!(upstream.manifest(&ask("b"), &tag()).await.unwrap().is_some());
    assert_eq!(server.asked().len(), before + 1, "it is shown at once from then on");
    let anybody = Ask { identity: Identity::Anonymous, ..ask("a") };
    assert_eq!(upstream.manifest(&anybody, &tag()).await.unwrap_err().fault(), Fault::Denied);
    config.credential = Some(basic("ci", "wrong"));
    let refused = open(&config).manifest(&ask("a"), &tag()).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::CredentialRefused);
}

#[tokio::test]
async fn a_token_service_that_fails_is_a_fault_of_its_own_part() {
    type Case = (&'static str, fn() -> Reply, Fault);
    let cases: [Case; 3] = [
        ("503", || reply(503), Fault::Status(503)),
        ("429", || reply(429).header("retry-after", "7"), Fault::RateLimited),
        ("HTML", || reply(200).body("<html>"), Fault::Unusable),
    ];
    for (name, script, want) in cases {
        let server =
            Server::start(move |asked| if asked.path == "/token" { script() } else { challenge(asked, "") }).await;
        let upstream = open(&server.config());
        let failed = upstream.manifest(&ask("a"), &tag()).await.unwrap_err();
        assert_eq!(failed.fault(), want, "{name}");
        let state = upstream.state();
        let [endpoint] = &state.endpoints[..] else { panic!("one endpoint") };
        assert!(matches!(endpoint.token, crate::upstream::Health::Down { .. }), "{name}");
        assert!(!matches!(endpoint.registry, crate::upstream::Health::Down { .. }), "{name}");
        let held = Ask { within: Some(Duration::from_secs(2)), ..ask("a") };
        let tokens = server.count("/token");
        assert!(upstream.manifest(&held, &tag()).await.unwrap_err().retry_after().is_some());
        assert_eq!(server.count("/token"), tokens, "{name}: it is not asked again");
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_everything_in_turns_comes_to_an_end() {
    let turn = AtomicUsize::new(0);
    let server = Server::start(move |asked| match &*asked.path {
        "/token" => token("useless"),
        _ if turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => challenge(asked, ""),
        _ => reply(401).header("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let mut config = server.config();
    config.credential = Some(basic("ci", "hunter2"));
    assert_eq!(open(&config).manifest(&ask("a"), &tag()).await.unwrap_err().fault(), Fault::Denied);
    assert!(server.asked().len() < 12, "{}", server.asked().len());
}

#[tokio::test]
async fn a_docker_config_is_what_an_upstream_is_asked_with() {
    let server = Server::start(guarded).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let write = |text: &str| {
        let auth = STANDARD.encode(text);
        std::fs::write(&path, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.address)).unwrap();
    };
    write("ci:old-password");
    let mut config = server.config();
    config.credential = Some(Credential::DockerConfig(path.clone()));
    let upstream = open(&config);
    assert_eq!(upstream.manifest(&ask("acme/app"), &tag()).await.unwrap_err().fault(), Fault::CredentialRefused);
    write("ci:hunter2");
    assert!(upstream.manifest(&ask("acme/app"), &tag()).await.unwrap().is_some(), "after a refusal it is read anew");
}
