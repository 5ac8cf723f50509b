//! `gar`: tags and versions of a package, never by force.

use http::Method;
use larder::config::retention::Adapter;
use larder::oci::Digest;
use larder::retention::remote::Doomed;
use larder::retention::remote::Outcome;
use serde_json::Value;
use serde_json::json;

use super::PASSWORD;
use super::model::Model;
use super::model::Repository;
use super::server::Reply;
use super::server::Seen;
use super::server::Server;
use super::time;
use super::v2;

/// The registry as it is called in image names.
pub const HOST: &str = "europe-west1-docker.pkg.dev";

/// Artifact Registry's API and the registry, as they are documented.
pub fn front(model: &mut Model, seen: &Seen, base: &str) -> Option<Reply> {
    if !seen.path.starts_with("/v1/") {
        return if seen.method == Method::DELETE { None } else { v2::front(model, seen, base) };
    }
    if seen.header("authorization") != format!("Bearer {PASSWORD}") {
        return Some(refused(401, "Request had invalid authentication credentials."));
    }
    let parts = seen.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let ["v1", "projects", project, "locations", "europe-west1", "repositories", of, "packages", rest @ ..] =
        &parts[..]
    else {
        return None;
    };
    let size = model.page();
    let [package, rest @ ..] = rest else {
        let start = format!("{project}/{of}/");
        let names = model.repositories.keys().filter_map(|name| name.strip_prefix(&start));
        let rows: Vec<_> =
            names.map(|name| json!({"name": format!("x/packages/{}", name.replace('/', "%2F"))})).collect();
        return Some(page(size, seen, &rows, "packages"));
    };
    let name = format!("{project}/{of}/{package}");
    let Some(held) = model.repositories.get_mut(&name) else {
        return Some(refused(404, "Package not found."));
    };
    match (seen.method.as_str(), rest) {
        ("GET", ["tags"]) => {
            let rows: Vec<_> = held.tags.keys().map(|tag| tag_row(held, tag)).collect();
            Some(page(size, seen, &rows, "tags"))
        }
        ("GET", ["versions"]) => {
            assert_eq!(seen.parameter("view").as_deref(), Some("FULL"));
            let rows: Vec<_> = held.manifests.keys().map(|digest| version(held, digest)).collect();
            Some(page(size, seen, &rows, "versions"))
        }
        ("GET", ["tags", tag]) if held.tags.contains_key(*tag) => Some(Reply::json(200, &tag_row(held, tag))),
        ("DELETE", ["tags", tag]) if held.delete_tag(tag).is_some() => Some(Reply::json(200, &json!({}))),
        (method, ["versions", digest]) => {
            let digest = digest.parse().unwrap();
            if !held.manifests.contains_key(&digest) {
                return Some(refused(404, "Version not found."));
            }
            match method {
                "GET" => Some(Reply::json(200, &version(held, &digest))),
                "DELETE" if seen.query.is_empty() => Some(delete(held, &digest)),
                _ => None,
            }
        }
        (_, ["tags", _]) => Some(refused(404, "Tag not found.")),
        _ => None,
    }
}

fn refused(code: u16, message: &str) -> Reply {
    Reply::json(code, &json!({"error": {"code": code, "message": message}}))
}

fn page(size: usize, seen: &Seen, rows: &[Value], key: &str) -> Reply {
    assert_eq!(seen.parameter("pageSize").as_deref(), Some("1000"));
    let start: usize =
        seen.parameter("pageToken").map_or(0, |text| text.strip_prefix("after-").unwrap().parse().unwrap());
    let end = (start + size).min(rows.len());
    // What is empty is left out.
    let mut answer = if start < end { json!({key: rows[start..end]}) } else { json!({}) };
    if end < rows.len() {
        answer["nextPageToken"] = format!("after-{end}").into();
    }
    Reply::json(200, &answer)
}

fn tag_row(held: &Repository, tag: &str) -> Value {
    json!({"name": format!("x/packages/p/tags/{tag}"), "version": format!("x/packages/p/versions/{}", held.tags[tag])})
}

fn version(held: &Repository, digest: &Digest) -> Value {
    let tags: Vec<_> = held.tags_of(digest).iter().map(|tag| tag_row(held, tag)).collect();
    let pushed = time(held.manifests[digest].pushed);
    json!({"name": format!("x/packages/p/versions/{digest}"), "createTime": pushed, "updateTime": pushed, "relatedTags": tags})
}

/// Without force a version that has tags stays.
fn delete(held: &mut Repository, digest: &Digest) -> Reply {
    if !held.tags_of(digest).is_empty() {
        return refused(400, "failed precondition: the version has tags");
    }
    held.delete_manifest(digest);
    Reply::json(200, &json!({"name": "operations/1", "done": true}))
}

async fn scene() -> (Server, [Digest; 3]) {
    let server = Server::start(front).await;
    let all = server.model(|model| {
        let name = "acme/docker/team/app";
        let child = model.image(name, "a", &[1], None);
        let index = model.index(name, "i", &[child]);
        let orphan = model.image(name, "o", &[2], None);
        model.tag(name, "v1", index);
        model.tag(name, "main", child);
        model.tag(name, "pr-1", child);
        model.page = 2;
        [child, index, orphan]
    });
    (server, all)
}

#[tokio::test]
async fn tags_and_versions_go_without_force() {
    let (server, [child, index, orphan]) = scene().await;
    let remote = server.open(Adapter::Gar);
    let name = "acme/docker/team/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let known: Vec<_> = holding.tags.iter().map(|fact| (fact.tag.as_str(), fact.pushed_at.is_some())).collect();
    assert_eq!(known, [("main", false), ("pr-1", false), ("v1", true)]);
    let doomed = [Doomed::Tag { tag: "pr-1".parse().unwrap(), digest: child }, Doomed::Untagged { digest: orphan }];
    let (calls, refused) = remote.calls(&holding, &doomed);
    assert_eq!(refused, []);
    let base =
        format!("{}/v1/projects/acme/locations/europe-west1/repositories/docker/packages/team%2Fapp", server.url());
    assert_eq!(calls[0].request, format!("DELETE {base}/tags/pr-1"));
    assert_eq!(calls[1].request, format!("DELETE {base}/versions/{orphan}"));
    for call in &calls {
        assert_eq!(remote.carry_out(&name, call).await.unwrap(), Outcome::Deleted);
    }
    let left = server.model(|model| model.repository("acme/docker/team/app").clone());
    assert!(left.tags.len() == 2 && left.manifests.contains_key(&index) && left.manifests.contains_key(&child));
}

#[tokio::test]
async fn what_was_tagged_moved_or_named_since_stays() {
    let (server, [child, index, orphan]) = scene().await;
    let remote = server.open(Adapter::Gar);
    let name = "acme/docker/team/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let doomed = [Doomed::Tag { tag: "pr-1".parse().unwrap(), digest: child }, Doomed::Untagged { digest: orphan }];
    let (calls, _) = remote.calls(&holding, &doomed);
    server.model(|model| {
        model.tag("acme/docker/team/app", "pr-1", index);
        let new = model.index("acme/docker/team/app", "new", &[orphan]);
        model.tag("acme/docker/team/app", "v2", new);
    });
    let other = server.open(Adapter::Gar);
    assert_eq!(other.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Moved);
    let outcome = other.carry_out(&name, &calls[1]).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.ends_with("is there by now and names it")), "{outcome:?}");
    server.model(|model| model.tag("acme/docker/team/app", "found", orphan));
    assert_eq!(other.carry_out(&name, &calls[1]).await.unwrap(), Outcome::Moved);
    assert_eq!(server.deletes(), Vec::<String>::new());
}

#[tokio::test]
async fn packages_are_those_of_the_repositories_that_are_named() {
    let (server, _) = scene().await;
    server.model(|model| model.image("acme/other/x", "x", &[1], None));
    let mut config = server.config(Adapter::Gar);
    assert_eq!(super::server::open(HOST, &config).repositories().await.unwrap(), None);
    config.owners = vec!["acme/docker".to_owned()];
    let names = super::server::open(HOST, &config).repositories().await.unwrap().unwrap();
    assert_eq!(names.iter().map(larder::oci::RepositoryName::as_str).collect::<Vec<_>>(), ["acme/docker/team/app"]);
    config.owners = vec!["acme".to_owned()];
    assert!(super::server::open(HOST, &config).repositories().await.is_err());
}
