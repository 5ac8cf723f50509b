//! `harbor`: artifacts with their tags, and what its API says no to.

use http::Method;
use larder::clock::Timestamp;
use larder::config::retention::Adapter;
use larder::oci::Digest;
use larder::retention::records::Pulled;
use larder::retention::remote::Doomed;
use larder::retention::remote::Outcome;
use larder::retention::remote::Why;
use serde_json::Value;
use serde_json::json;

use super::model::Model;
use super::model::Repository;
use super::server::Reply;
use super::server::Seen;
use super::server::Server;
use super::server::percent;
use super::time;
use super::v2;

/// Harbor's API and its registry, as they are documented.
pub fn front(model: &mut Model, seen: &Seen, base: &str) -> Option<Reply> {
    if !seen.path.starts_with("/api/v2.0/") {
        return if seen.method == Method::DELETE { None } else { v2::front(model, seen, base) };
    }
    if seen.header("authorization") != v2::basic() {
        return Some(refused(401, "UNAUTHORIZED", "unauthorized"));
    }
    let parts = seen.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (seen.method.as_str(), &parts[2..]) {
        ("GET", ["repositories"]) => Some(repositories(model, seen, "")),
        ("GET", ["projects", project, "repositories"]) => Some(repositories(model, seen, &format!("{project}/"))),
        // A repository's name is encoded twice, so that it is one part.
        (method, ["projects", project, "repositories", name, "artifacts", rest @ ..]) => {
            let size = model.page();
            let Some(held) = model.repositories.get_mut(&format!("{project}/{}", percent(name))) else {
                return Some(refused(404, "NOT_FOUND", "repository not found"));
            };
            artifacts(held, size, seen, method, rest)
        }
        _ => None,
    }
}

fn refused(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"errors": [{"code": code, "message": message}]}))
}

fn page(size: usize, seen: &Seen, rows: &[Value]) -> Reply {
    assert_eq!(seen.parameter("page_size").as_deref(), Some("100"));
    let number: usize = seen.parameter("page").unwrap().parse().unwrap();
    let page: Vec<_> = rows.iter().skip((number - 1) * size).take(size).collect();
    Reply::json(200, &json!(page)).with("x-total-count", rows.len().to_string())
}

fn repositories(model: &Model, seen: &Seen, of: &str) -> Reply {
    let rows: Vec<_> =
        model.repositories.keys().filter(|name| name.starts_with(of)).map(|name| json!({"name": name})).collect();
    page(model.page(), seen, &rows)
}

fn artifact(held: &Repository, digest: &Digest) -> Value {
    let of = &held.manifests[digest];
    let never = "0001-01-01T00:00:00.000Z";
    let tag =
        |name: &String| json!({"name": name, "push_time": time(of.pushed + 5), "pull_time": never, "immutable": false});
    let tags = held.tags_of(digest);
    json!({
        "digest": digest.to_string(), "size": 1000, "manifest_media_type": of.media_type, "push_time": time(of.pushed),
        "pull_time": never, "tags": if tags.is_empty() { Value::Null } else { json!(tags.iter().map(tag).collect::<Vec<_>>()) },
    })
}

fn artifacts(held: &mut Repository, size: usize, seen: &Seen, method: &str, rest: &[&str]) -> Option<Reply> {
    let missing = || refused(404, "NOT_FOUND", "artifact not found");
    let resolve = |held: &Repository, reference: &str| {
        let digest = held.tags.get(reference).copied().or_else(|| reference.parse::<Digest>().ok())?;
        held.manifests.contains_key(&digest).then_some(digest)
    };
    match (method, rest) {
        ("GET", []) => {
            assert_eq!(seen.parameter("with_tag").as_deref(), Some("true"));
            // What an index names, and what is attached to something, is in no list unless it has a tag.
            let is_child = |digest: &Digest| held.manifests.values().any(|of| of.children.contains(digest));
            let is_listed = |digest: &&Digest| {
                let is_attached = held.manifests[*digest].subject.is_some();
                !held.tags_of(digest).is_empty() || (!is_child(digest) && !is_attached)
            };
            let rows: Vec<_> = held.manifests.keys().filter(is_listed).map(|digest| artifact(held, digest)).collect();
            Some(page(size, seen, &rows))
        }
        ("GET", [reference]) => Some(match resolve(held, reference) {
            Some(digest) => Reply::json(200, &artifact(held, &digest)),
            None => missing(),
        }),
        ("DELETE", [reference, "tags", tag]) => Some(match resolve(held, reference) {
            Some(digest) if held.tags.get(*tag) == Some(&digest) => {
                held.delete_tag(tag);
                Reply::empty(200)
            }
            _ => missing(),
        }),
        ("DELETE", [reference]) => Some(match resolve(held, reference) {
            Some(digest) if held.manifests.values().any(|of| of.children.contains(&digest)) => {
                refused(412, "PRECONDITION", "the artifact is referenced by others")
            }
            Some(digest) => {
                held.delete_manifest(&digest);
                Reply::empty(200)
            }
            None => missing(),
        }),
        _ => None,
    }
}

async fn scene() -> (Server, [Digest; 3]) {
    let server = Server::start(front).await;
    let all = server.model(|model| {
        let name = "library/team/app";
        let child = model.image(name, "a", &[1], None);
        let index = model.index(name, "i", &[child]);
        let orphan = model.image(name, "o", &[2], None);
        for tag in ["main", "pr-1"] {
            model.tag(name, tag, index);
        }
        model.page = 1;
        [child, index, orphan]
    });
    (server, all)
}

#[tokio::test]
async fn times_are_the_tags_own_and_the_beginning_of_time_is_none() {
    let (server, [child, index, _]) = scene().await;
    let holding = server.open(Adapter::Harbor).list(&"library/team/app".parse().unwrap()).await.unwrap();
    assert_eq!((holding.tags.len(), holding.manifests.len()), (2, 3));
    let pushed = server.model(|model| model.repository("library/team/app").manifests[&index].pushed);
    assert_eq!(holding.tags[0].pushed_at, Some(Timestamp((pushed + 5) * 1000)));
    assert!(holding.tags.iter().all(|tag| tag.pulled == Pulled::Unknown));
    assert!(holding.manifests.iter().any(|fact| fact.digest == child), "the index names it, the list does not");
    let path = &server.seen()[0].path;
    assert_eq!(path, "/api/v2.0/projects/library/repositories/team%252Fapp/artifacts");
}

#[tokio::test]
async fn a_tag_goes_within_its_artifact_and_an_artifact_without_tags_alone() {
    let (server, [child, index, orphan]) = scene().await;
    let remote = server.open(Adapter::Harbor);
    let name = "library/team/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let doomed = [
        Doomed::Tag { tag: "pr-1".parse().unwrap(), digest: index },
        Doomed::Untagged { digest: orphan },
        Doomed::Untagged { digest: child },
    ];
    let (calls, refused) = remote.calls(&holding, &doomed);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].why, Why::Needed { kept: vec!["main".parse().unwrap()], by: vec![index] });
    assert!(calls[0].request.ends_with(&format!("/artifacts/{index}/tags/pr-1")), "{}", calls[0].request);
    for call in &calls {
        assert_eq!(remote.carry_out(&name, call).await.unwrap(), Outcome::Deleted);
    }
    let left = server.model(|model| model.repository("library/team/app").clone());
    assert_eq!((left.tags.len(), left.manifests.len()), (1, 2));
}

#[tokio::test]
async fn an_immutable_tag_and_a_moved_one_stay() {
    let (server, [child, index, _]) = scene().await;
    let remote = server.open(Adapter::Harbor);
    let name = "library/team/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, _) = remote.calls(&holding, &[Doomed::Tag { tag: "pr-1".parse().unwrap(), digest: index }]);
    let immutable = "the tag is matched by an immutable rule";
    server.script(move |seen| (seen.method == Method::DELETE).then(|| refused(412, "PRECONDITION", immutable)));
    let outcome = remote.carry_out(&name, &calls[0]).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.ends_with(immutable)), "{outcome:?}");
    server.unscript();
    server.model(|model| model.tag("library/team/app", "pr-1", child));
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Moved);
}

#[tokio::test]
async fn a_list_that_is_shorter_than_it_says_is_an_error() {
    let (server, _) = scene().await;
    server.script(|seen| {
        let is_second = seen.path.ends_with("/artifacts") && seen.parameter("page").as_deref() == Some("2");
        is_second.then(|| Reply::json(200, &json!([])).with("x-total-count", "2"))
    });
    let error = server.open(Adapter::Harbor).list(&"library/team/app".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "reg.test: its list of artifacts is shorter than it says");
}

#[tokio::test]
async fn repositories_are_all_or_those_of_the_projects() {
    let (server, _) = scene().await;
    server.model(|model| model.image("other/x", "x", &[1], None));
    let mut config = server.config(Adapter::Harbor);
    assert_eq!(super::server::open(super::HOST, &config).repositories().await.unwrap().unwrap().len(), 2);
    config.owners = vec!["library".to_owned()];
    let names = super::server::open(super::HOST, &config).repositories().await.unwrap().unwrap();
    assert_eq!(names.iter().map(larder::oci::RepositoryName::as_str).collect::<Vec<_>>(), ["library/team/app"]);
}
