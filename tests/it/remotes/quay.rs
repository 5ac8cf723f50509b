//! `quay`: its API's list of active tags, and the deletion of one.

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
use super::v2;

/// Quay's API and its registry, as they are documented.
pub fn front(model: &mut Model, seen: &Seen, base: &str) -> Option<Reply> {
    let Some(path) = seen.path.strip_prefix("/api/v1/repository") else {
        return if seen.method == Method::DELETE { None } else { v2::front(model, seen, base) };
    };
    if seen.header("authorization") != format!("Bearer {PASSWORD}") {
        return Some(Reply::json(401, &json!({"error_message": "Unauthorized"})));
    }
    let size = model.page();
    if path.is_empty() {
        return Some(repositories(model, seen));
    }
    let (name, tag) = path.trim_start_matches('/').split_once("/tag/")?;
    let Some(held) = model.repositories.get_mut(name) else {
        return Some(Reply::json(404, &json!({"error_message": "Not Found"})));
    };
    match (seen.method.as_str(), tag) {
        ("GET", "") => {
            assert_eq!(seen.parameter("onlyActiveTags").as_deref(), Some("true"));
            let wanted = seen.parameter("specificTag");
            let all: Vec<_> = held.tags.iter().filter(|(tag, _)| wanted.as_ref().is_none_or(|w| w == *tag)).collect();
            let number: usize = seen.parameter("page").map_or(1, |text| text.parse().unwrap());
            let rows: Vec<_> = all
                .iter()
                .skip((number - 1) * size)
                .take(size)
                .map(|(tag, digest)| {
                    let start = held.manifests[digest].pushed;
                    json!({"name": tag, "manifest_digest": digest.to_string(), "start_ts": start, "reversion": false})
                })
                .collect();
            let more = number * size < all.len();
            Some(Reply::json(200, &json!({"tags": rows, "page": number, "has_additional": more})))
        }
        ("DELETE", tag) => Some(match held.delete_tag(tag) {
            Some(_) => Reply::empty(204),
            None => Reply::json(404, &json!({"error_message": "Not Found"})),
        }),
        _ => None,
    }
}

fn repositories(model: &Model, seen: &Seen) -> Reply {
    let owner = seen.parameter("namespace").unwrap();
    let all: Vec<_> = model.repositories.keys().filter_map(|name| name.split_once('/')).collect();
    let all: Vec<_> = all.into_iter().filter(|(of, _)| *of == owner).collect();
    let start: usize = seen.parameter("next_page").map_or(0, |text| text.strip_prefix("p").unwrap().parse().unwrap());
    let end = (start + model.page()).min(all.len());
    let rows: Vec<_> = all[start..end].iter().map(|(of, name)| json!({"namespace": of, "name": name})).collect();
    let mut answer = json!({"repositories": rows});
    if end < all.len() {
        answer["next_page"] = format!("p{end}").into();
    }
    Reply::json(200, &answer)
}

async fn scene() -> (Server, Digest) {
    let server = Server::start(front).await;
    let digest = server.model(|model| {
        let digest = model.image("acme/app", "a", &[1], None);
        for tag in ["main", "pr-1", "pr-2"] {
            model.tag("acme/app", tag, digest);
        }
        model.page = 2;
        digest
    });
    (server, digest)
}

#[tokio::test]
async fn a_tag_has_the_moment_at_which_it_began_and_goes_alone() {
    let (server, digest) = scene().await;
    let remote = server.open(Adapter::Quay);
    let name = "acme/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let pushed = server.model(|model| model.repository("acme/app").manifests[&digest].pushed);
    assert!(holding.tags.len() == 3 && holding.tags.iter().all(|tag| tag.pushed_at == Some(Timestamp(pushed * 1000))));
    let doomed = ["pr-1", "pr-2"].map(|tag| Doomed::Tag { tag: tag.parse().unwrap(), digest });
    let (calls, _) = remote.calls(&holding, &doomed);
    assert_eq!(calls[0].request, format!("DELETE {}/api/v1/repository/acme/app/tag/pr-1", server.url()));
    let other = server.model(|model| model.image("acme/app", "b", &[2], None));
    server.model(|model| model.tag("acme/app", "pr-2", other));
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Deleted);
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::AlreadyGone);
    assert_eq!(remote.carry_out(&name, &calls[1]).await.unwrap(), Outcome::Moved);
    assert_eq!(server.deletes(), ["DELETE /api/v1/repository/acme/app/tag/pr-1"]);
}

#[tokio::test]
async fn a_list_that_does_not_end_is_an_error() {
    let (server, _) = scene().await;
    server.script(|seen| {
        let page = json!({"tags": [], "page": 2, "has_additional": true});
        (seen.parameter("page").as_deref() == Some("2")).then(|| Reply::json(200, &page))
    });
    let error = server.open(Adapter::Quay).list(&"acme/app".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "reg.test: its list of tags does not end");
}

#[tokio::test]
async fn repositories_are_those_of_the_namespaces() {
    let (server, _) = scene().await;
    server.model(|model| {
        for name in ["acme/b", "acme/c", "other/d"] {
            model.image(name, name, &[1], None);
        }
    });
    let mut config = server.config(Adapter::Quay);
    config.owners = vec!["acme".to_owned()];
    let names = super::server::open(super::HOST, &config).repositories().await.unwrap().unwrap();
    assert_eq!(
        names.iter().map(larder::oci::RepositoryName::as_str).collect::<Vec<_>>(),
        ["acme/app", "acme/b", "acme/c"]
    );
}
