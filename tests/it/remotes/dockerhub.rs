//! `dockerhub`: its own API, with a token for it.

use http::Method;
use larder::clock::Timestamp;
use larder::config::retention::Adapter;
use larder::oci::Digest;
use larder::retention::records::Pulled;
use larder::retention::remote::Doomed;
use larder::retention::remote::Fault;
use larder::retention::remote::Outcome;
use larder::retention::remote::Why;
use serde_json::Value;
use serde_json::json;

use super::PASSWORD;
use super::USER;
use super::model::Model;
use super::model::Repository;
use super::server::Reply;
use super::server::Seen;
use super::server::Server;
use super::time;
use super::v2;

/// Docker Hub's API, as it is documented.
pub fn front(model: &mut Model, seen: &Seen, base: &str) -> Option<Reply> {
    if seen.path == "/token" {
        return v2::front(model, seen, base);
    }
    let parts = seen.path.strip_prefix("/v2/")?.split('/').map(str::to_owned).collect::<Vec<_>>();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if let (["auth", "token"], "POST") = (&parts[..], seen.method.as_str()) {
        let is_right = seen.json() == json!({"identifier": USER, "secret": PASSWORD});
        let token = json!({"access_token": "hub-token"});
        return Some(if is_right { Reply::json(200, &token) } else { refused(401, "incorrect authentication") });
    }
    let ["repositories", rest @ ..] = &parts[..] else {
        // The registry itself is asked what a tag is, nothing else.
        return if seen.method == Method::HEAD { v2::front(model, seen, base) } else { None };
    };
    if seen.header("authorization") != "Bearer hub-token" {
        return Some(refused(401, "token is expired"));
    }
    let page_size = model.page();
    match (seen.method.as_str(), rest) {
        ("GET", [owner, ""]) => {
            let names = model.repositories.keys().filter_map(|name| name.strip_prefix(&format!("{owner}/")));
            let rows: Vec<_> = names.map(|name| json!({"name": name})).collect();
            Some(page(page_size, seen, base, &rows))
        }
        ("GET", [owner, name, "tags", ""]) => {
            let Some(held) = model.repositories.get(&format!("{owner}/{name}")) else {
                return Some(refused(404, "object not found"));
            };
            let rows: Vec<_> = held.tags.keys().map(|tag| row(held, tag)).collect();
            Some(page(page_size, seen, base, &rows))
        }
        (method, [owner, name, "tags", tag, ""]) => {
            let held = model.repositories.get_mut(&format!("{owner}/{name}"));
            let Some(held) = held.filter(|held| held.tags.contains_key(*tag)) else {
                return Some(refused(404, "tag not found"));
            };
            match method {
                "GET" => Some(Reply::json(200, &row(held, tag))),
                "DELETE" => {
                    held.delete_tag(tag);
                    Some(Reply::empty(204))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn refused(status: u16, detail: &str) -> Reply {
    Reply::json(status, &json!({"detail": detail}))
}

fn row(held: &Repository, tag: &str) -> Value {
    let digest = held.tags[tag];
    let of = &held.manifests[&digest];
    let image = |digest: &Digest| json!({"architecture": "amd64", "digest": digest.to_string(), "size": 1000});
    let there: Vec<_> = of.children.iter().filter(|child| held.manifests.contains_key(child)).collect();
    let images: Vec<_> =
        if of.children.is_empty() { vec![image(&digest)] } else { there.into_iter().map(image).collect() };
    json!({
        "name": tag, "digest": digest.to_string(), "images": images, "last_updated": time(of.pushed),
        "tag_last_pushed": time(of.pushed), "tag_last_pulled": null,
    })
}

fn page(size: usize, seen: &Seen, base: &str, rows: &[Value]) -> Reply {
    assert_eq!(seen.parameter("page_size").as_deref(), Some("100"));
    let number: usize = seen.parameter("page").map_or(1, |text| text.parse().unwrap());
    let start = (number - 1) * size;
    let end = (start + size).min(rows.len());
    let next = format!("{base}{}?page={}&page_size=100", seen.path, number + 1);
    let next = if end < rows.len() { json!(next) } else { Value::Null };
    Reply::json(200, &json!({"count": rows.len(), "next": next, "previous": null, "results": rows[start..end]}))
}

fn tagged(tag: &str, digest: Digest) -> Doomed {
    Doomed::Tag { tag: tag.parse().unwrap(), digest }
}

async fn scene() -> (Server, Digest, Digest) {
    let server = Server::start(front).await;
    let (one, index) = server.model(|model| {
        let (one, two) = (model.image("acme/app", "a", &[1], None), model.image("acme/app", "b", &[2], None));
        let index = model.index("acme/app", "i", &[one, two]);
        for (tag, digest) in [("v1", index), ("main", one), ("pr-1", one)] {
            model.tag("acme/app", tag, digest);
        }
        model.page = 2;
        (one, index)
    });
    (server, one, index)
}

#[tokio::test]
async fn tags_come_with_their_times_and_images_and_cost_no_pull() {
    let (server, _, index) = scene().await;
    let holding = server.open(Adapter::DockerHub).list(&"acme/app".parse().unwrap()).await.unwrap();
    assert_eq!((holding.tags.len(), holding.manifests.len()), (3, 3));
    let held = server.model(|model| model.repository("acme/app").manifests[&index].pushed);
    assert_eq!(holding.tags[2].pushed_at, Some(Timestamp(held * 1000)));
    assert_eq!(holding.tags[2].pulled, Pulled::Unknown, "never pulled and not on record are the same");
    assert!(server.seen().iter().all(|seen| !seen.path.contains("/manifests/")));
}

#[tokio::test]
async fn a_tag_goes_by_its_name_if_it_still_means_that() {
    let (server, one, index) = scene().await;
    let remote = server.open(Adapter::DockerHub);
    let name = "acme/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let doomed = [tagged("pr-1", one), tagged("main", one), tagged("v1", index), Doomed::Untagged { digest: one }];
    let (calls, refused) = remote.calls(&holding, &doomed);
    assert_eq!((refused.len(), &refused[0].why), (1, &Why::ByTagOnly));
    assert_eq!(calls[0].request, format!("DELETE {}/v2/repositories/acme/app/tags/pr-1/", server.url()));
    server.model(|model| {
        model.tag("acme/app", "main", index);
        model.repository("acme/app").tags.remove("v1");
    });
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Deleted);
    assert_eq!(remote.carry_out(&name, &calls[1]).await.unwrap(), Outcome::Moved);
    assert_eq!(remote.carry_out(&name, &calls[2]).await.unwrap(), Outcome::AlreadyGone);
    assert_eq!(server.deletes(), ["DELETE /v2/repositories/acme/app/tags/pr-1/"]);
}

#[tokio::test]
async fn a_row_without_a_digest_is_looked_up_for_nothing() {
    let (server, one, _) = scene().await;
    server.script(|seen| {
        let row = json!({"name": "main", "images": [], "last_updated": "2026-01-01T00:00:00.5Z"});
        let page = json!({"count": 1, "next": null, "results": [row]});
        seen.path.ends_with("/tags/").then(|| Reply::json(200, &page))
    });
    let holding = server.open(Adapter::DockerHub).list(&"acme/app".parse().unwrap()).await.unwrap();
    assert_eq!(holding.tags[0].digest, one);
}

#[tokio::test]
async fn a_list_that_is_not_whole_is_an_error() {
    let (server, ..) = scene().await;
    let name = "acme/app".parse().unwrap();
    let answer = |next: Value, count: u64| {
        move |seen: &Seen| {
            let page = json!({"count": count, "next": next, "results": []});
            seen.query.contains("page=2").then(|| Reply::json(200, &page))
        }
    };
    server.script(answer(Value::Null, 3));
    let error = server.open(Adapter::DockerHub).list(&name).await.unwrap_err();
    assert_eq!(error.to_string(), "reg.test: its list of tags is shorter than it says");
    server.script(answer(json!("https://elsewhere.test/v2/"), 3));
    let error = server.open(Adapter::DockerHub).list(&name).await.unwrap_err();
    assert_eq!(error.to_string(), "reg.test: its next page lies at another host");
    server.script(|seen| seen.query.contains("page=2").then(|| refused(500, "oops")));
    assert_eq!(server.open(Adapter::DockerHub).list(&name).await.unwrap_err().fault(), Fault::Status(500));
}

#[tokio::test]
async fn a_token_that_ran_out_is_got_anew_and_a_wrong_password_is_told() {
    let (server, ..) = scene().await;
    let name = "acme/app".parse().unwrap();
    let left = std::sync::Mutex::new(true);
    server.script(move |seen| {
        let is_first = seen.path.ends_with("/tags/") && std::mem::replace(&mut *left.lock().unwrap(), false);
        is_first.then(|| refused(401, "token is expired"))
    });
    assert!(server.open(Adapter::DockerHub).list(&name).await.is_ok());
    assert_eq!(server.seen().iter().filter(|seen| seen.path == "/v2/auth/token").count(), 2);
    server.script(|seen| (seen.path == "/v2/auth/token").then(|| refused(401, "incorrect authentication credentials")));
    let error = server.open(Adapter::DockerHub).list(&name).await.unwrap_err();
    assert_eq!(error.fault(), Fault::CredentialRefused);
    assert!(error.to_string().contains("incorrect authentication") && !error.to_string().contains(PASSWORD), "{error}");
}

#[tokio::test]
async fn an_immutable_tag_stays() {
    let (server, one, _) = scene().await;
    let remote = server.open(Adapter::DockerHub);
    let name = "acme/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, _) = remote.calls(&holding, &[tagged("pr-1", one)]);
    server.script(|seen| (seen.method == Method::DELETE).then(|| refused(403, "tag is immutable")));
    let outcome = remote.carry_out(&name, &calls[0]).await.unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.ends_with("tag is immutable")), "{outcome:?}");
}

#[tokio::test]
async fn repositories_are_the_accounts_own_or_those_of_the_owners() {
    let (server, ..) = scene().await;
    server.model(|model| {
        for name in ["cleaner/a", "cleaner/b", "cleaner/c"] {
            model.image(name, name, &[1], None);
        }
    });
    let mut config = server.config(Adapter::DockerHub);
    let names = async |config: larder::config::retention::Remote| {
        super::server::open(super::HOST, &config).repositories().await.unwrap().unwrap()
    };
    assert_eq!(names(config.clone()).await.len(), 3);
    config.owners = vec!["acme".to_owned()];
    assert_eq!(names(config).await.iter().map(larder::oci::RepositoryName::as_str).collect::<Vec<_>>(), ["acme/app"]);
}
