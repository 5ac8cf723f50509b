use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::upstream::Ask;
use crate::upstream::Incoming;
use crate::upstream::RawManifest;
use crate::upstream::Resolved;
use crate::upstream::Result as Answer;
use crate::upstream::State;
use crate::upstream::TagPage;
use crate::upstream::Wanted;

/// An upstream that nobody may ask: what is decided here is decided without it.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Upstream for Silent {
    async fn resolve(&self, _: &Ask, _: &Reference) -> Answer<Option<Resolved>> {
        unreachable!("nothing is asked here")
    }
    async fn manifest(&self, _: &Ask, _: &Reference) -> Answer<Option<RawManifest>> {
        unreachable!("nothing is asked here")
    }
    async fn blob(&self, _: &Ask, _: &Digest, _: &Wanted) -> Answer<Option<Incoming>> {
        unreachable!("nothing is asked here")
    }
    async fn blob_size(&self, _: &Ask, _: &Digest) -> Answer<Option<u64>> {
        unreachable!("nothing is asked here")
    }
    async fn tags(&self, _: &Ask, _: Option<&Tag>, _: usize) -> Answer<Option<TagPage>> {
        unreachable!("nothing is asked here")
    }
    async fn referrers(&self, _: &Ask, _: &Digest, _: Option<&str>) -> Answer<Option<Vec<Descriptor>>> {
        unreachable!("nothing is asked here")
    }
    fn state(&self) -> State {
        unreachable!("nothing is asked here")
    }
}

fn settings() -> Settings {
    let defaults = config::Config::default();
    Settings {
        default_upstream: defaults.default_upstream,
        upstreams: defaults.upstreams,
        hosted: defaults.hosted,
        freshness: defaults.freshness,
        own: OwnNames::default(),
    }
}

/// Repositories, and how many clients were made for them.
fn repositories(settings: &Settings) -> (Repositories, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let build: Build = Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Silent))
    });
    (Repositories::new(settings, build).unwrap(), made)
}

fn change(settings: &mut Settings, host: &str, change: impl FnOnce(&mut config::Upstream)) {
    let mut upstream =
        settings.upstreams.get(host).map_or_else(|| config::Upstream::of(host).unwrap(), |u| (**u).clone());
    change(&mut upstream);
    settings.upstreams.insert(host.to_owned(), Arc::new(upstream));
}

fn key(path: &str) -> RepositoryKey {
    RepositoryKey::from_path(path).unwrap()
}

fn credential() -> config::upstream::Credential {
    config::upstream::Credential::Basic { username: "ci".into(), password: config::Secret::new("secret") }
}

#[test]
fn the_built_in_registries_are_known_and_no_other() {
    let (repositories, _) = repositories(&settings());
    assert_eq!(repositories.upstreams().len(), 7);
    assert!(matches!(repositories.resolve(&key("docker.io/library/alpine")), Ok(Repository::Proxied(_))));
    assert!(matches!(repositories.resolve(&key("_hosted/cache/app")), Ok(Repository::Hosted(_))));
    assert_eq!(repositories.resolve(&key("evil.example/x")).unwrap_err(), Refused::Unknown);
    let found = repositories.find(&Spelling { path: "alpine".into(), ..Spelling::default() }).unwrap();
    assert_eq!(found, key("docker.io/library/alpine"));
}

#[test]
fn patterns_leave_repositories_out() {
    let mut settings = settings();
    change(&mut settings, "docker.io", |upstream| {
        upstream.allow = vec!["library/**".parse().unwrap(), "acme/**".parse().unwrap()];
        upstream.deny = vec!["acme/secret-*".parse().unwrap()];
    });
    change(&mut settings, "ghcr.io", |upstream| upstream.deny = vec!["evil/**".parse().unwrap()]);
    let (repositories, _) = repositories(&settings);
    for (path, allowed) in [
        ("docker.io/library/alpine", true),
        ("docker.io/acme/app", true),
        ("docker.io/acme/secret-app", false),
        ("docker.io/other/app", false),
        ("ghcr.io/other/app", true),
        ("ghcr.io/evil/app", false),
        ("quay.io/evil/app", true),
    ] {
        let refused = repositories.resolve(&key(path)).err();
        assert_eq!(refused, (!allowed).then_some(Refused::Denied), "{path}");
    }
}

#[test]
fn an_upstream_that_did_not_change_keeps_its_client() {
    let mut settings = settings();
    let (repositories, built) = repositories(&settings);
    let client = |path: &str| match repositories.resolve(&key(path)) {
        Ok(Repository::Proxied(proxied)) => Arc::as_ptr(&proxied.settings),
        other => panic!("{other:?}"),
    };
    let before = (client("docker.io/library/a"), client("ghcr.io/a/b"));
    assert_eq!(built.load(Ordering::SeqCst), 7);
    // Read anew, so that nothing is shared with what stood there before.
    change(&mut settings, "docker.io", |_| {});
    change(&mut settings, "ghcr.io", |upstream| upstream.limits.retries = 9);
    change(&mut settings, "registry.example.com:5000", |_| {});
    settings.upstreams.remove("quay.io");
    repositories.reload(&settings).unwrap();
    assert_eq!(built.load(Ordering::SeqCst), 9);
    assert_eq!(client("docker.io/library/a"), before.0);
    assert_ne!(client("ghcr.io/a/b"), before.1);
    assert_eq!(repositories.resolve(&key("quay.io/a/b")).unwrap_err(), Refused::Unknown);
    assert!(repositories.resolve(&key("registry.example.com:5000/a")).is_ok());
}

#[test]
fn a_configuration_that_cannot_be_leaves_everything_as_it_was() {
    let mut settings = settings();
    let (repositories, _) = repositories(&settings);
    settings.default_upstream = "registry.example.com".to_owned();
    assert!(matches!(repositories.reload(&settings), Err(Error::Default(_))));
    assert_eq!(repositories.default_registry().as_str(), "docker.io");
    assert_eq!(repositories.upstreams().len(), 7);
}

#[test]
fn freshness_is_by_rule_then_by_upstream() {
    let mut settings = settings();
    change(&mut settings, "ghcr.io", |upstream| upstream.credential = Some(credential()));
    let rule = config::repository::FreshnessRule {
        pattern: "docker.io/library/**:*".parse().unwrap(),
        immutable: false,
        fresh_for: Some(Duration::from_hours(1)),
        stale_while_revalidate: None,
        stale_if_error: None,
    };
    settings.freshness.rules.insert(0, rule);
    let (repositories, _) = repositories(&settings);
    let minutes = |m: u64| Duration::from_mins(m);
    for (path, tag, fresh_for, stale_while_revalidate, immutable) in [
        ("docker.io/library/alpine", "3", minutes(60), minutes(10), false),
        ("docker.io/library/alpine", "sha-0123", minutes(60), minutes(10), false),
        ("docker.io/acme/app", "3", minutes(1), minutes(10), false),
        ("docker.io/acme/app", "sha-0123", minutes(1), minutes(10), true),
        ("ghcr.io/acme/app", "main", Duration::ZERO, Duration::ZERO, false),
        ("_hosted/cache/app", "main", minutes(1), minutes(10), true),
    ] {
        let got = repositories.freshness(&key(path), &tag.parse().unwrap());
        let want =
            Freshness { immutable, fresh_for, stale_while_revalidate, stale_if_error: Duration::from_hours(720) };
        assert_eq!(got, want, "{path}:{tag}");
    }
}
