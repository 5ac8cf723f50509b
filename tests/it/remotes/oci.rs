//! `oci`: tags by their names, and what tells that a registry can't.

use http::Method;
use larder::config::retention::Adapter;
use larder::retention::remote::Doomed;
use larder::retention::remote::Fault;
use larder::retention::remote::Outcome;
use larder::retention::remote::Target;
use larder::retention::remote::Why;

use super::server::Reply;
use super::server::Seen;
use super::server::Server;
use super::v2;

fn doomed(tag: &str, digest: larder::oci::Digest) -> Doomed {
    Doomed::Tag { tag: tag.parse().unwrap(), digest }
}

async fn three_tags() -> (Server, larder::oci::Digest, larder::oci::Digest) {
    let server = Server::start(v2::front).await;
    let (one, two) = server.model(|model| {
        model.page = 2;
        let one = model.image("acme/app", "one", &[1, 2], None);
        let two = model.image("acme/app", "two", &[2, 3], None);
        let index = model.index("acme/app", "both", &[one, two]);
        model.tag("acme/app", "main", one);
        model.tag("acme/app", "pr-1", one);
        model.tag("acme/app", "pr-2", two);
        model.tag("acme/app", "v1", index);
        (one, two)
    });
    (server, one, two)
}

#[tokio::test]
async fn a_repository_is_read_whole_over_its_pages() {
    let (server, one, two) = three_tags().await;
    let remote = server.open(Adapter::Oci);
    let name = "acme/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    assert_eq!(holding.repository.to_string(), "reg.test/acme/app");
    let tags: Vec<&str> = holding.tags.iter().map(|fact| fact.tag.as_str()).collect();
    assert_eq!(tags, ["main", "pr-1", "pr-2", "v1"]);
    assert_eq!(holding.manifests.len(), 3);
    let index = holding.manifests.iter().find(|fact| fact.children.len() == 2).unwrap();
    assert!(index.children.contains(&one) && index.children.contains(&two));
    assert!(holding.tags.iter().all(|fact| fact.pushed_at.is_none()), "what is not told is not known");
    // What a digest names never changes: the next plan asks for no manifest.
    server.forget();
    remote.list(&name).await.unwrap();
    assert!(server.seen().iter().all(|seen| seen.method == Method::HEAD || seen.path.ends_with("/tags/list")));
}

#[tokio::test]
async fn repositories_come_from_the_catalog() {
    let server = Server::start(v2::front).await;
    server.model(|model| {
        model.page = 2;
        for name in ["a/a", "a/b", "b/a", "c", "d"] {
            model.image(name, name, &[1], None);
        }
    });
    let names = server.open(Adapter::Oci).repositories().await.unwrap().unwrap();
    assert_eq!(
        names.iter().map(larder::oci::RepositoryName::as_str).collect::<Vec<_>>(),
        ["a/a", "a/b", "b/a", "c", "d"]
    );
    server.script(|seen| (seen.path == "/v2/_catalog").then(|| Reply::error(404, "UNSUPPORTED")));
    assert_eq!(server.open(Adapter::Oci).repositories().await.unwrap(), None);
}

#[tokio::test]
async fn a_tag_goes_by_its_name_and_its_siblings_stay() {
    let (server, one, two) = three_tags().await;
    let remote = server.open(Adapter::Oci);
    let name = "acme/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, refused) = remote.calls(&holding, &[doomed("pr-1", one), doomed("pr-2", two)]);
    assert_eq!(refused, []);
    assert_eq!(calls[0].request, format!("DELETE {}/v2/acme/app/manifests/pr-1", server.url()));
    for call in &calls {
        assert_eq!(remote.carry_out(&name, call).await.unwrap(), Outcome::Deleted);
    }
    let tags: Vec<String> = server.model(|model| model.repository("acme/app").tags.keys().cloned().collect());
    assert_eq!(tags, ["main", "v1"]);
    assert!(server.deletes().iter().all(|line| !line.contains("sha256:")));
}

#[tokio::test]
async fn what_can_not_be_deleted_by_tag_is_refused() {
    let (server, one, two) = three_tags().await;
    let remote = server.open(Adapter::Oci);
    let holding = remote.list(&"acme/app".parse().unwrap()).await.unwrap();
    let wanted = [Doomed::Untagged { digest: two }, doomed("pr-9", one), doomed("pr-1", two)];
    let (calls, refused) = remote.calls(&holding, &wanted);
    assert_eq!(calls, []);
    let why: Vec<&Why> = refused.iter().map(|refused| &refused.why).collect();
    assert_eq!(why, [&Why::ByTagOnly, &Why::Absent, &Why::Moved]);
}

#[tokio::test]
async fn what_moved_or_went_since_is_left_alone() {
    let (server, one, two) = three_tags().await;
    let remote = server.open(Adapter::Oci);
    let name = "acme/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, _) = remote.calls(&holding, &[doomed("pr-1", one), doomed("pr-2", two)]);
    server.model(|model| {
        model.tag("acme/app", "pr-1", two);
        model.repository("acme/app").tags.remove("pr-2");
    });
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Moved);
    assert_eq!(remote.carry_out(&name, &calls[1]).await.unwrap(), Outcome::AlreadyGone);
    assert_eq!(server.deletes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_registry_that_can_not_delete_tags_is_sent_one_delete_and_none_by_digest() {
    for (status, code) in [(400, "DIGEST_INVALID"), (404, "MANIFEST_UNKNOWN"), (405, "UNSUPPORTED")] {
        let (server, one, two) = three_tags().await;
        server.script(move |seen: &Seen| {
            let authorized = v2::authorized(seen, "repository:acme/app:delete");
            (seen.method == Method::DELETE && authorized).then(|| Reply::error(status, code))
        });
        let remote = server.open(Adapter::Oci);
        let name = "acme/app".parse().unwrap();
        let holding = remote.list(&name).await.unwrap();
        let (calls, _) = remote.calls(&holding, &[doomed("pr-1", one), doomed("pr-2", two)]);
        for call in &calls {
            let outcome = remote.carry_out(&name, call).await.unwrap();
            let Outcome::Unsupported(why) = outcome else { panic!("{outcome:?}") };
            assert!(why.contains(&format!("answered {status} to the first")), "{why}");
        }
        let deletes = server.seen().iter().filter(|seen| seen.method == Method::DELETE).count();
        assert_eq!(deletes, 1, "the first tells enough");
        assert_eq!(server.deletes().iter().filter(|line| line.contains("sha256:")).count(), 0);
    }
}

#[tokio::test]
async fn a_later_no_is_one_of_that_tag() {
    let (server, one, two) = three_tags().await;
    let remote = server.open(Adapter::Oci);
    let name = "acme/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, _) = remote.calls(&holding, &[doomed("main", one), doomed("pr-1", one), doomed("pr-2", two)]);
    server.script(|seen| {
        let immutable = seen.method == Method::DELETE && seen.path.ends_with("/pr-1");
        immutable.then(|| Reply::error(405, "UNSUPPORTED"))
    });
    let mut outcomes = Vec::new();
    for call in &calls {
        outcomes.push(remote.carry_out(&name, call).await.unwrap());
    }
    assert!(matches!(&outcomes[..], [Outcome::Deleted, Outcome::Refused(_), Outcome::Deleted]), "{outcomes:?}");
}

#[tokio::test]
async fn a_manifest_is_never_deleted_whatever_the_plan_says() {
    let (server, one, _) = three_tags().await;
    let remote = server.open(Adapter::Oci);
    let target = Target::Manifest { digest: one, tags: Vec::new(), id: None, after: Vec::new() };
    let call = larder::retention::remote::Call { target, request: "DELETE it".to_owned() };
    let outcome = remote.carry_out(&"acme/app".parse().unwrap(), &call).await.unwrap();
    assert!(matches!(outcome, Outcome::Refused(_)));
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_listing_that_is_not_whole_is_an_error() {
    type Broken = (&'static str, fn(&Seen) -> Option<Reply>, Fault);
    let cases: [Broken; 6] = [
        ("page 2 is a 500", |seen| page_2(seen).then(|| Reply::error(500, "UNKNOWN")), Fault::Status(500)),
        ("page 2 is HTML", |seen| page_2(seen).then(|| Reply::empty(200).body("<html>")), Fault::Unusable),
        ("page 2 is gone", |seen| page_2(seen).then(|| Reply::error(404, "NAME_UNKNOWN")), Fault::Status(404)),
        ("page 2 is denied", |seen| page_2(seen).then(|| Reply::error(403, "DENIED")), Fault::Denied),
        (
            "page 2 is page 2 again",
            |seen| {
                let next = r#"</v2/acme/app/tags/list?n=2&last=pr-1>; rel="next""#;
                page_2(seen)
                    .then(|| Reply::json(200, &serde_json::json!({"tags": ["main", "pr-1"]})).with("link", next))
            },
            Fault::Unusable,
        ),
        (
            "a manifest has other bytes",
            |seen| {
                let is_get = seen.method == Method::GET && seen.path.contains("/manifests/sha256:");
                let reply = Reply::empty(200).with("content-type", super::model::IMAGE).body("{}");
                is_get.then_some(reply)
            },
            Fault::Unusable,
        ),
    ];
    for (what, script, fault) in cases {
        let (server, ..) = three_tags().await;
        server.script(script);
        let error = server.open(Adapter::Oci).list(&"acme/app".parse().unwrap()).await.expect_err(what);
        assert_eq!(error.fault(), fault, "{what}: {error:?}");
    }
    let (server, ..) = three_tags().await;
    let error = server.open(Adapter::Oci).list(&"acme/none".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Status(404));
    assert!(error.to_string().contains("reg.test has no repository acme/none"), "{error}");
}

fn page_2(seen: &Seen) -> bool {
    seen.path.ends_with("/tags/list") && seen.query.contains("last=")
}

#[tokio::test]
async fn a_list_that_is_longer_than_allowed_is_an_error() {
    let (server, ..) = three_tags().await;
    let mut config = server.config(Adapter::Oci);
    config.limits.tags = 3;
    let error = super::server::open(super::HOST, &config).list(&"acme/app".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::NotAllowed);
    assert_eq!(error.to_string(), "reg.test has more than 3 tags; raise limits.tags of this remote registry");
}

#[tokio::test]
async fn a_429_is_waited_for_as_long_as_allowed() {
    let (server, ..) = three_tags().await;
    let left = std::sync::Mutex::new(1);
    server.script(move |seen| {
        let mut left = left.lock().unwrap();
        let strikes = page_2(seen) && *left > 0;
        *left -= i32::from(strikes);
        strikes.then(|| Reply::error(429, "TOOMANYREQUESTS").with("retry-after", "1"))
    });
    assert_eq!(server.open(Adapter::Oci).list(&"acme/app".parse().unwrap()).await.unwrap().tags.len(), 4);
    server.script(|seen| page_2(seen).then(|| Reply::error(429, "TOOMANYREQUESTS").with("retry-after", "1")));
    let mut config = server.config(Adapter::Oci);
    config.limits.patience = std::time::Duration::ZERO;
    let error = super::server::open(super::HOST, &config).list(&"acme/app".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::RateLimited);
}

#[tokio::test]
async fn many_lists_at_once_share_the_places_of_their_registry_and_none_fails() {
    let server = Server::start(v2::front).await;
    server.model(|model| {
        for number in 0..40 {
            let name = format!("acme/r{number}");
            for tag in 0..5 {
                let digest = model.image(&name, &format!("{number} {tag}"), &[1], None);
                model.tag(&name, &format!("t{tag}"), digest);
            }
        }
    });
    let mut config = server.config(Adapter::Oci);
    config.limits.requests = 1;
    let remote = super::server::open(super::HOST, &config);
    let lists = (0..40).map(|number| {
        let remote = std::sync::Arc::clone(&remote);
        async move { remote.list(&format!("acme/r{number}").parse().unwrap()).await }
    });
    for holding in futures_util::future::join_all(lists).await {
        assert_eq!(holding.unwrap().tags.len(), 5);
    }
}
