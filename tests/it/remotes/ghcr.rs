//! `ghcr`: package versions, which are manifests with all of their tags.

use http::Method;
use larder::clock::Timestamp;
use larder::config::retention::Adapter;
use larder::oci::Digest;
use larder::retention::remote::Doomed;
use larder::retention::remote::Fault;
use larder::retention::remote::Outcome;
use larder::retention::remote::Why;
use serde_json::json;

use super::PASSWORD;
use super::model::Held;
use super::model::Model;
use super::model::Repository;
use super::server::Reply;
use super::server::Seen;
use super::server::Server;
use super::time;
use super::v2;

/// GitHub's API and the registry, as they are documented.
pub fn front(model: &mut Model, seen: &Seen, base: &str) -> Option<Reply> {
    if seen.path.starts_with("/v2/") || seen.path == "/token" {
        return if seen.method == Method::DELETE { None } else { v2::front(model, seen, base) };
    }
    if seen.header("authorization") != format!("Bearer {PASSWORD}") {
        return Some(Reply::json(401, &json!({"message": "Bad credentials"})));
    }
    assert_eq!(seen.header("x-github-api-version"), "2022-11-28");
    let parts = seen.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (seen.method.as_str(), &parts[..]) {
        ("GET", ["users", owner]) => Some(Reply::json(200, &json!({"login": owner, "type": kind(owner)}))),
        ("GET", [of, owner, "packages"]) if *of == paths(owner) => {
            assert_eq!(seen.parameter("package_type").as_deref(), Some("container"));
            let names: Vec<_> = model.repositories.keys().filter_map(|name| name.split_once('/')).collect();
            let all: Vec<_> =
                names.iter().filter(|(of, _)| of == owner).map(|(_, name)| json!({"name": name})).collect();
            Some(page(model, seen, all))
        }
        (method, [of, owner, "packages", "container", package, "versions", rest @ ..]) if *of == paths(owner) => {
            versions(model, seen, method, &format!("{owner}/{package}"), rest)
        }
        _ => None,
    }
}

fn kind(owner: &str) -> &'static str {
    if owner == "somebody" { "User" } else { "Organization" }
}

fn paths(owner: &str) -> &'static str {
    if owner == "somebody" { "users" } else { "orgs" }
}

fn page(model: &Model, seen: &Seen, all: Vec<serde_json::Value>) -> Reply {
    assert_eq!(seen.parameter("per_page").as_deref(), Some("100"));
    let number: usize = seen.parameter("page").unwrap().parse().unwrap();
    let rows: Vec<_> = all.into_iter().skip((number - 1) * model.page()).take(model.page()).collect();
    Reply::json(200, &json!(rows))
}

fn version(held: &Repository, digest: &Digest, manifest: &Held) -> serde_json::Value {
    json!({
        "id": manifest.id, "name": digest.to_string(),
        "created_at": time(manifest.pushed), "updated_at": time(manifest.pushed),
        "metadata": {"package_type": "container", "container": {"tags": held.tags_of(digest)}},
    })
}

fn versions(model: &mut Model, seen: &Seen, method: &str, name: &str, rest: &[&str]) -> Option<Reply> {
    let missing = || Reply::json(404, &json!({"message": "Not Found"}));
    let Some(held) = model.repositories.get_mut(name) else { return Some(missing()) };
    let by_id = |held: &Repository, id: &str| held.by_id(id.parse().unwrap());
    match (method, rest) {
        ("GET", []) => {
            let mut all: Vec<_> = held.manifests.iter().collect();
            all.sort_by_key(|(_, manifest)| std::cmp::Reverse(manifest.id));
            let all = all.into_iter().map(|(digest, manifest)| version(held, digest, manifest)).collect();
            Some(page(model, seen, all))
        }
        ("GET", [id]) => Some(match by_id(held, id) {
            Some(digest) => Reply::json(200, &version(held, &digest, &held.manifests[&digest])),
            None => missing(),
        }),
        ("DELETE", [id]) => Some(match by_id(held, id) {
            Some(digest) if held.delete_manifest(&digest) => Reply::empty(204),
            _ => missing(),
        }),
        _ => None,
    }
}

fn tagged(tag: &str, digest: Digest) -> Doomed {
    Doomed::Tag { tag: tag.parse().unwrap(), digest }
}

/// An index of two images and its signature, an image with two tags, and an image without any.
struct Scene {
    server: Server,
    index: Digest,
    child: Digest,
    signature: Digest,
    twice: Digest,
    orphan: Digest,
}

async fn scene() -> Scene {
    let server = Server::start(front).await;
    let [index, child, signature, twice, orphan] = server.model(|model| {
        let name = "acme/app/web";
        let (child, other) = (model.image(name, "a", &[1], None), model.image(name, "b", &[2], None));
        let index = model.index(name, "i", &[child, other]);
        let signature = model.image(name, "s", &[9], Some(index));
        let (twice, orphan) = (model.image(name, "t", &[3], None), model.image(name, "o", &[4], None));
        model.tag(name, "v1", index);
        model.tag(name, "pr-1", twice);
        model.tag(name, "main", twice);
        model.page = 4;
        [index, child, signature, twice, orphan]
    });
    Scene { server, index, child, signature, twice, orphan }
}

#[tokio::test]
async fn a_repository_is_its_versions_with_their_numbers_and_times() {
    let Scene { server, index, child, .. } = scene().await;
    let holding = server.open(Adapter::Ghcr).list(&"acme/app/web".parse().unwrap()).await.unwrap();
    assert_eq!((holding.tags.len(), holding.manifests.len()), (3, 6));
    let fact = holding.manifests.iter().find(|fact| fact.digest == index).unwrap();
    let held = server.model(|model| model.repository("acme/app/web").manifests[&index].clone());
    assert_eq!(fact.id, Some(held.id.to_string()));
    assert_eq!(holding.tags[2].pushed_at, Some(Timestamp(held.pushed * 1000)));
    assert!(fact.children.contains(&child));
    let path = &server.seen().iter().find(|seen| seen.path.contains("/packages/")).unwrap().path.clone();
    assert_eq!(path, "/orgs/acme/packages/container/app%2Fweb/versions");
}

#[tokio::test]
async fn a_version_stays_while_a_tag_of_it_is_kept_and_the_refusal_names_the_tag() {
    let Scene { server, twice, .. } = scene().await;
    let remote = server.open(Adapter::Ghcr);
    let name = "acme/app/web".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, refused) = remote.calls(&holding, &[tagged("pr-1", twice)]);
    assert_eq!((calls.len(), refused.len()), (0, 1));
    assert_eq!(refused[0].why, Why::Shared { kept: vec!["main".parse().unwrap()] });
    assert_eq!(
        refused[0].why.to_string(),
        "the kept tag main means the same manifest, and this registry deletes it with all of its tags"
    );
    let (calls, refused) = remote.calls(&holding, &[tagged("pr-1", twice), tagged("main", twice)]);
    assert_eq!((calls.len(), refused.len()), (1, 0), "both tags go by one call");
    assert_eq!(calls[0].target.tags().len(), 2);
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Deleted);
    assert_eq!(server.deletes().len(), 1);
}

#[tokio::test]
async fn what_a_kept_tag_needs_is_refused_with_its_name() {
    let Scene { server, index, child, signature, orphan, .. } = scene().await;
    let remote = server.open(Adapter::Ghcr);
    let holding = remote.list(&"acme/app/web".parse().unwrap()).await.unwrap();
    let untagged = [child, signature, orphan].map(|digest| Doomed::Untagged { digest });
    let (calls, refused) = remote.calls(&holding, &untagged);
    assert_eq!(calls.iter().map(|call| *call.target.digest()).collect::<Vec<_>>(), [orphan]);
    for refused in &refused {
        assert_eq!(refused.why, Why::Needed { kept: vec!["v1".parse().unwrap()], by: vec![index] });
    }
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].why.to_string(), "its manifest would go too, and the kept tag v1 needs it");
}

#[tokio::test]
async fn an_index_goes_before_its_children_and_a_child_waits_for_it() {
    let Scene { server, index, child, signature, .. } = scene().await;
    let remote = server.open(Adapter::Ghcr);
    let name = "acme/app/web".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let doomed = [Doomed::Untagged { digest: child }, Doomed::Untagged { digest: signature }, tagged("v1", index)];
    let (calls, refused) = remote.calls(&holding, &doomed);
    assert_eq!(refused, []);
    assert_eq!(*calls[0].target.digest(), index);
    // The index was kept after all: whoever carries the plan out left its call out.
    for call in &calls[1..] {
        let outcome = remote.carry_out(&name, call).await.unwrap();
        assert_eq!(outcome, Outcome::Refused(format!("{index} is still there and names it")));
    }
    for call in &calls {
        assert_eq!(remote.carry_out(&name, call).await.unwrap(), Outcome::Deleted);
    }
    assert_eq!(server.deletes().len(), 3);
}

#[tokio::test]
async fn what_was_tagged_pushed_or_deleted_since_is_seen() {
    let Scene { server, orphan, twice, .. } = scene().await;
    let remote = server.open(Adapter::Ghcr);
    let name = "acme/app/web".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, _) =
        remote.calls(&holding, &[Doomed::Untagged { digest: orphan }, tagged("pr-1", twice), tagged("main", twice)]);
    // Another program read the plan from a file; it knows nothing of the listing.
    let other = server.open(Adapter::Ghcr);
    server.model(|model| {
        let index = model.index("acme/app/web", "new", &[orphan]);
        model.tag("acme/app/web", "v2", index);
    });
    let outcome = other.carry_out(&name, &calls[0]).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.ends_with("is there by now and names it")), "{outcome:?}");
    server.model(|model| model.tag("acme/app/web", "v3", orphan));
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Moved);
    server.model(|model| model.repository("acme/app/web").delete_manifest(&twice));
    assert_eq!(remote.carry_out(&name, &calls[1]).await.unwrap(), Outcome::AlreadyGone);
    assert_eq!(server.deletes(), Vec::<String>::new());
}

#[tokio::test]
async fn githubs_no_is_told_in_its_words() {
    for (status, message, want) in [
        (400, "Publicly visible package versions with more than 5000 downloads cannot be deleted.", "5000 downloads"),
        (404, "Not Found", "the token may not delete it"),
        (403, "You need at least delete:packages scope", "delete:packages scope"),
    ] {
        let Scene { server, orphan, .. } = scene().await;
        let remote = server.open(Adapter::Ghcr);
        let name = "acme/app/web".parse().unwrap();
        let holding = remote.list(&name).await.unwrap();
        let (calls, _) = remote.calls(&holding, &[Doomed::Untagged { digest: orphan }]);
        server.script(move |seen| {
            (seen.method == Method::DELETE).then(|| Reply::json(status, &json!({"message": message})))
        });
        let outcome = remote.carry_out(&name, &calls[0]).await.unwrap();
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains(want)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_list_that_changes_under_way_is_read_until_it_stands_still() {
    let Scene { server, twice, .. } = scene().await;
    let remote = server.open(Adapter::Ghcr);
    // Somebody deletes a version of page 1 between the pages: what moves to it from page 2 is missed by the first reading.
    let server = std::sync::Arc::new(server);
    let weak = std::sync::Arc::downgrade(&server);
    let left = std::sync::Mutex::new(true);
    server.script(move |seen| {
        if seen.parameter("page").as_deref() == Some("2") && std::mem::replace(&mut *left.lock().unwrap(), false) {
            weak.upgrade().unwrap().model(|model| model.repository("acme/app/web").delete_manifest(&twice));
        }
        None
    });
    let holding = remote.list(&"acme/app/web".parse().unwrap()).await.unwrap();
    assert_eq!((holding.tags.len(), holding.manifests.len()), (1, 5));
}

#[tokio::test]
async fn a_version_whose_manifest_is_not_there_may_have_been_an_index() {
    let Scene { server, index, .. } = scene().await;
    let path = format!("/v2/acme/app/web/manifests/{index}");
    server.script(move |seen| (seen.path == path).then(|| Reply::error(404, "MANIFEST_UNKNOWN")));
    let error = server.open(Adapter::Ghcr).list(&"acme/app/web".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unusable);
    assert!(error.to_string().contains(&format!("it lists {index} of acme/app/web, and has no such manifest")));
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_and_a_longer_one_is_an_error() {
    let Scene { server, .. } = scene().await;
    let left = std::sync::Mutex::new(2);
    server.script(move |seen| {
        let mut left = left.lock().unwrap();
        let strikes = seen.path.ends_with("/versions") && *left > 0;
        *left -= i32::from(strikes);
        let spent = Reply::json(403, &json!({"message": "API rate limit exceeded"})).with("x-ratelimit-remaining", "0");
        strikes.then(|| spent.with("x-ratelimit-reset", "0"))
    });
    assert!(server.open(Adapter::Ghcr).list(&"acme/app/web".parse().unwrap()).await.is_ok());
    server.script(|seen| {
        let limited = Reply::json(429, &json!({"message": "secondary rate limit"})).with("retry-after", "3600");
        seen.path.ends_with("/versions").then_some(limited)
    });
    let error = server.open(Adapter::Ghcr).list(&"acme/app/web".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::RateLimited);
}

#[tokio::test]
async fn repositories_are_those_of_the_owners() {
    let Scene { server, .. } = scene().await;
    server.model(|model| {
        model.page = 1;
        for name in ["acme/b", "somebody/c", "other/d"] {
            model.image(name, name, &[1], None);
        }
    });
    let mut config = server.config(Adapter::Ghcr);
    assert_eq!(super::server::open(super::HOST, &config).repositories().await.unwrap(), None);
    config.owners = vec!["acme".to_owned(), "somebody".to_owned()];
    let names = super::server::open(super::HOST, &config).repositories().await.unwrap().unwrap();
    let names: Vec<_> = names.iter().map(larder::oci::RepositoryName::as_str).collect();
    assert_eq!(names, ["acme/app/web", "acme/b", "somebody/c"]);
}
