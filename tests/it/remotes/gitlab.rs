//! `gitlab`: its registry's own list, and the two ways in which it deletes a tag.

use http::Method;
use larder::clock::Timestamp;
use larder::config::retention::Adapter;
use larder::oci::Digest;
use larder::retention::remote::Doomed;
use larder::retention::remote::Outcome;
use serde_json::json;

use super::PASSWORD;
use super::model::Model;
use super::server::Reply;
use super::server::Seen;
use super::server::Server;
use super::time;
use super::v2;

/// The registry with its own API beside the specification's, and GitLab itself.
pub fn front(model: &mut Model, seen: &Seen, base: &str) -> Option<Reply> {
    if let Some(path) = seen.path.strip_prefix("/gitlab/v1/repositories/") {
        let name = path.strip_suffix("/tags/list/").filter(|_| seen.method == "GET")?;
        let scope = format!("repository:{name}:pull");
        if !v2::authorized(seen, &scope) {
            return Some(v2::challenge(base, &scope));
        }
        return Some(tags(model, seen, name));
    }
    if seen.path.starts_with("/api/v4/") {
        return gitlab(model, seen);
    }
    // By digest the registry would delete too; nobody asks it to.
    let by_digest = seen.method == Method::DELETE && seen.path.contains("sha256:");
    if by_digest { None } else { v2::front(model, seen, base) }
}

fn tags(model: &mut Model, seen: &Seen, name: &str) -> Reply {
    let size = model.page();
    let Some(held) = model.repositories.get(name) else { return Reply::error(404, "NAME_UNKNOWN") };
    assert_eq!(seen.parameter("n").as_deref(), Some("100"));
    let last = seen.parameter("last").unwrap_or_default();
    let rest: Vec<(&String, &Digest)> = held.tags.iter().filter(|(tag, _)| **tag > last).collect();
    let page = &rest[..size.min(rest.len())];
    let rows: Vec<_> = page
        .iter()
        .map(|(tag, digest)| {
            let of = &held.manifests[digest];
            json!({
                "name": tag, "digest": digest.to_string(), "media_type": of.media_type, "size_bytes": 1000,
                "created_at": "2020-01-01T00:00:00.000+00:00", "published_at": time(of.pushed),
            })
        })
        .collect();
    let reply = Reply::json(200, &json!(rows));
    match page.last() {
        Some((last, _)) if page.len() < rest.len() => {
            reply.with("link", format!("<{}?n=100&last={last}>; rel=\"next\"", seen.path))
        }
        _ => reply,
    }
}

fn gitlab(model: &Model, seen: &Seen) -> Option<Reply> {
    if seen.header("private-token") != PASSWORD {
        return Some(Reply::json(401, &json!({"message": "401 Unauthorized"})));
    }
    let parts = seen.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let ["api", "v4", kind, owner, "registry", "repositories"] = parts[..] else { return None };
    let is_group = owner == "acme/team";
    if (kind == "groups") != is_group {
        return Some(Reply::json(404, &json!({"message": "404 Not found"})));
    }
    assert_eq!(seen.parameter("per_page").as_deref(), Some("100"));
    let number: usize = seen.parameter("page").unwrap().parse().unwrap();
    let all: Vec<_> = model.repositories.keys().filter(|name| name.starts_with(&format!("{owner}/"))).collect();
    let rows: Vec<_> =
        all.iter().skip((number - 1) * model.page()).take(model.page()).map(|path| json!({"path": path})).collect();
    let more = number * model.page() < all.len();
    let next = if more { (number + 1).to_string() } else { String::new() };
    Some(Reply::json(200, &json!(rows)).with("x-next-page", next))
}

async fn scene() -> (Server, Digest) {
    let server = Server::start(front).await;
    let digest = server.model(|model| {
        let digest = model.image("acme/team/app", "a", &[1], None);
        for tag in ["main", "pr-1", "pr-2"] {
            model.tag("acme/team/app", tag, digest);
        }
        model.page = 2;
        digest
    });
    (server, digest)
}

fn tagged(tag: &str, digest: Digest) -> Doomed {
    Doomed::Tag { tag: tag.parse().unwrap(), digest }
}

#[tokio::test]
async fn the_time_is_that_of_the_publication_not_of_the_image() {
    let (server, digest) = scene().await;
    let name = "acme/team/app".parse().unwrap();
    let holding = server.open(Adapter::Gitlab).list(&name).await.unwrap();
    let pushed = server.model(|model| model.repository("acme/team/app").manifests[&digest].pushed);
    assert!(holding.tags.len() == 3 && holding.tags.iter().all(|tag| tag.pushed_at == Some(Timestamp(pushed * 1000))));
    // A registry from before has no such list: its tags have no times, so what asks for an age keeps them.
    server.script(|seen| seen.path.starts_with("/gitlab/").then(|| Reply::error(404, "NOT_FOUND")));
    let holding = server.open(Adapter::Gitlab).list(&name).await.unwrap();
    assert!(holding.tags.len() == 3 && holding.tags.iter().all(|tag| tag.pushed_at.is_none()));
}

#[tokio::test]
async fn the_older_way_is_taken_where_the_newer_is_not_known_and_never_a_digest() {
    let (server, digest) = scene().await;
    server.script(|seen| {
        let is_new = seen.method == Method::DELETE && seen.path.contains("/manifests/");
        let tag = seen.path.strip_prefix("/v2/acme/team/app/tags/reference/");
        let old = tag.filter(|_| v2::authorized(seen, "repository:acme/team/app:delete"));
        if is_new && v2::authorized(seen, "repository:acme/team/app:delete") {
            return Some(Reply::error(404, "MANIFEST_UNKNOWN"));
        }
        old.map(|_| Reply::empty(202))
    });
    let remote = server.open(Adapter::Gitlab);
    let name = "acme/team/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, _) = remote.calls(&holding, &[tagged("pr-1", digest), tagged("pr-2", digest)]);
    for call in &calls {
        assert_eq!(remote.carry_out(&name, call).await.unwrap(), Outcome::Deleted);
    }
    let newer = server.deletes().iter().filter(|line| line.contains("/manifests/pr-2")).count();
    assert_eq!(newer, 0, "what is not known is asked for once");
    server.script(|seen| {
        let is_authorized = v2::authorized(seen, "repository:acme/team/app:delete");
        (seen.method == Method::DELETE && is_authorized).then(|| Reply::error(405, "UNSUPPORTED"))
    });
    let outcome = server.open(Adapter::Gitlab).carry_out(&name, &calls[0]).await.unwrap();
    assert!(matches!(&outcome, Outcome::Unsupported(why) if why.contains("405 and 405")), "{outcome:?}");
}

#[tokio::test]
async fn repositories_are_those_of_groups_and_projects() {
    let (server, _) = scene().await;
    server.model(|model| {
        for name in ["acme/team/b", "acme/team/c", "acme/one/d", "other/e"] {
            model.image(name, name, &[1], None);
        }
    });
    let mut config = server.config(Adapter::Gitlab);
    assert_eq!(super::server::open(super::HOST, &config).repositories().await.unwrap(), None);
    config.owners = vec!["acme/team".to_owned(), "acme/one".to_owned()];
    let names = super::server::open(super::HOST, &config).repositories().await.unwrap().unwrap();
    let names: Vec<_> = names.iter().map(larder::oci::RepositoryName::as_str).collect();
    assert_eq!(names, ["acme/one/d", "acme/team/app", "acme/team/b", "acme/team/c"]);
}
