//! The adapter of the distribution API in front of real registries: one that can't delete tags, and one that can.

use std::collections::BTreeSet;
use std::sync::Arc;

use larder::clock::Clock;
use larder::config::retention::Adapter;
use larder::config::retention::Remote as Config;
use larder::events::Events;
use larder::net::Trust;
use larder::oci::RepositoryName;
use larder::retention::remote;
use larder::retention::remote::Call;
use larder::retention::remote::Doomed;
use larder::retention::remote::Outcome;
use larder::retention::remote::Remote;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;
use larder::upstream::Deps;
use serde_json::json;

use crate::support::content;
use crate::support::images;
use crate::support::larder::Larder;
use crate::support::larder::is_peer;
use crate::support::parts;
use crate::support::parts::BUSYBOX;
use crate::support::parts::REGISTRY;
use crate::support::parts::Scratch;
use crate::support::registry::Registry;

/// The adapter `oci` of the registry at this URL, as the program opens it.
fn open(url: &str) -> Arc<dyn Remote> {
    let (metrics, events) = (Arc::new(Metrics::new()), Events::new(16, Arc::new(|_| ())));
    let deps = Deps { clock: Clock::system(), metrics, tasks: Tasks::new(), events, trust: Trust::nobody() };
    let mut config = Config::of(Adapter::Oci);
    config.endpoint = Some(url.parse().expect("a URL"));
    remote::open("reg.test", &config, None, &deps).expect("the adapter")
}

/// Plans that these tags go, of all that the repository has.
async fn plan(remote: &dyn Remote, name: &RepositoryName, tags: &[&str]) -> (BTreeSet<String>, Vec<Call>) {
    let holding = remote.list(name).await.expect("a listing");
    let listed = holding.tags.iter().map(|fact| fact.tag.to_string()).collect();
    let doomed = holding.tags.iter().filter(|fact| tags.contains(&fact.tag.as_str()));
    let doomed: Vec<_> = doomed.map(|fact| Doomed::Tag { tag: fact.tag.clone(), digest: fact.digest }).collect();
    let (calls, refused) = remote.calls(&holding, &doomed);
    assert_eq!((calls.len(), refused.len()), (tags.len(), 0), "{refused:?}");
    (listed, calls)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Three tags of which two mean one image, and an index.
fn push_all(url: &str, repository: &str) {
    let (one, two) = (images::busybox("one"), images::busybox("two"));
    for (tag, image) in [("main", &one), ("pr-1", &one), ("pr-2", &two), ("v1", &images::index("three"))] {
        content::push(url, repository, tag, image);
    }
}

#[test]
fn docker_registry_can_not_delete_tags_and_is_sent_no_delete_by_digest() {
    if !parts::are_here(&[REGISTRY, BUSYBOX]) || is_peer() {
        return;
    }
    // One says 405 to every delete, one that may delete says 400 to a tag.
    for (can_delete, status) in [(false, "405"), (true, "400")] {
        let scratch = Scratch::new();
        let registry = if can_delete { Registry::deleting(&scratch) } else { Registry::start(&scratch) };
        push_all(registry.url(), "team/app");
        let name = "team/app".parse().expect("a name");
        runtime().block_on(async {
            let remote = open(registry.url());
            assert_eq!(remote.repositories().await.expect("a catalog"), Some(vec![RepositoryName::clone(&name)]));
            let (listed, calls) = plan(&*remote, &name, &["pr-1", "pr-2"]).await;
            assert_eq!(listed.iter().map(String::as_str).collect::<Vec<_>>(), ["main", "pr-1", "pr-2", "v1"]);
            for call in &calls {
                let outcome = remote.carry_out(&name, call).await.expect("an answer");
                assert!(matches!(&outcome, Outcome::Unsupported(why) if why.contains(status)), "{outcome:?}");
            }
        });
        assert_eq!(registry.asked("DELETE", "/v2/team/app/manifests/"), 1, "one try, of the first tag");
        assert_eq!(registry.asked("DELETE", "/v2/team/app/manifests/sha256:"), 0);
        for tag in ["main", "pr-1", "pr-2", "v1"] {
            content::assert_whole(registry.url(), "team/app", tag);
        }
    }
}

#[test]
fn larder_deletes_tags_by_their_names_and_what_is_kept_stays_whole() {
    if !parts::are_here(&[BUSYBOX]) || is_peer() {
        return;
    }
    let scratch = Scratch::new();
    let larder = Larder::hosting(&scratch, &json!({ "gc": { "every": "1s", "lease": "0s" } }));
    push_all(&larder.url(), "cache/app");
    let name = "cache/app".parse().expect("a name");
    runtime().block_on(async {
        let remote = open(&larder.url());
        let (_, calls) = plan(&*remote, &name, &["pr-1", "pr-2"]).await;
        for call in &calls {
            assert_eq!(remote.carry_out(&name, call).await.expect("an answer"), Outcome::Deleted);
        }
        for call in &calls {
            assert_eq!(remote.carry_out(&name, call).await.expect("an answer"), Outcome::AlreadyGone);
        }
        let (listed, _) = plan(&*remote, &name, &[]).await;
        assert_eq!(listed.iter().map(String::as_str).collect::<Vec<_>>(), ["main", "v1"]);
    });
    larder.asked(&["gc"]);
    for tag in ["main", "v1"] {
        content::assert_whole(&larder.url(), "cache/app", tag);
    }
}
