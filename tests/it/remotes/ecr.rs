//! `ecr`: the API's actions, signed; the last tag takes its image along.

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
use super::model::Held;
use super::model::Model;
use super::model::Repository;
use super::server::Reply;
use super::server::Seen;
use super::server::Server;

/// The registry as it is called in image names.
pub const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// The API of the registry, as it is documented.
pub fn front(model: &mut Model, seen: &Seen, _: &str) -> Option<Reply> {
    let action = seen.header("x-amz-target").strip_prefix("AmazonEC2ContainerRegistry_V20150921.")?.to_owned();
    if seen.method != "POST" || seen.path != "/" {
        return None;
    }
    assert_eq!(seen.header("content-type"), "application/x-amz-json-1.1");
    if seen.header("authorization") != signature(seen) {
        return Some(exception("InvalidSignatureException", "The request signature we calculated does not match"));
    }
    let body = seen.json();
    assert_eq!(body["registryId"], "123456789012");
    if action == "DescribeRepositories" {
        let names: Vec<_> = model.repositories.keys().map(|name| json!({"repositoryName": name})).collect();
        return Some(page(model, &body, &names, "repositories"));
    }
    let page_size = model.page();
    let Some(held) = model.repositories.get_mut(body["repositoryName"].as_str()?) else {
        return Some(exception("RepositoryNotFoundException", "The repository does not exist"));
    };
    match action.as_str() {
        "DescribeImages" if body["imageIds"].is_array() => Some(by_ids(held, &body)),
        "DescribeImages" => {
            let rows: Vec<_> = held.manifests.iter().map(|(digest, of)| details(held, digest, of)).collect();
            Some(page_of(page_size, &body, &rows, "imageDetails"))
        }
        "BatchGetImage" => Some(get(held, &body)),
        "BatchDeleteImage" => Some(delete(held, &body)),
        _ => None,
    }
}

/// What the request must be signed with, worked out from what came.
fn signature(seen: &Seen) -> String {
    let date = seen.header("x-amz-date");
    let names = ["content-type", "host", "x-amz-date", "x-amz-target"];
    let headers: Vec<String> = names.iter().map(|name| format!("{name}:{}\n", seen.header(name))).collect();
    let sha = |bytes: &[u8]| hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes));
    let request = format!("POST\n/\n\n{}\n{}\n{}", headers.concat(), names.join(";"), sha(&seen.body));
    let scope = format!("{}/eu-west-1/ecr/aws4_request", date.split('T').next().unwrap());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha(request.as_bytes()));
    let key = scope.split('/').fold(format!("AWS4{PASSWORD}").into_bytes(), |key, part| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        ring::hmac::sign(&key, part.as_bytes()).as_ref().to_vec()
    });
    let signature = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key), text.as_bytes());
    let signature = hex::encode(signature);
    format!("AWS4-HMAC-SHA256 Credential={USER}/{scope}, SignedHeaders={}, Signature={signature}", names.join(";"))
}

fn exception(kind: &str, message: &str) -> Reply {
    let kind = format!("com.amazonaws.ecr#{kind}");
    Reply::json(400, &json!({"__type": kind, "message": message}))
}

fn page(model: &Model, body: &Value, rows: &[Value], key: &str) -> Reply {
    page_of(model.page(), body, rows, key)
}

fn page_of(size: usize, body: &Value, rows: &[Value], key: &str) -> Reply {
    assert_eq!(body["maxResults"], 1000);
    let start: usize = body["nextToken"].as_str().map_or(0, |text| text.strip_prefix("at-").unwrap().parse().unwrap());
    let end = (start + size).min(rows.len());
    let mut answer = json!({key: rows[start..end]});
    if end < rows.len() {
        answer["nextToken"] = format!("at-{end}").into();
    }
    Reply::json(200, &answer)
}

#[expect(clippy::cast_precision_loss, reason = "the API writes moments as numbers with a fraction")]
fn details(held: &Repository, digest: &Digest, of: &Held) -> Value {
    let mut details = json!({
        "registryId": "123456789012", "imageDigest": digest.to_string(),
        "imageSizeInBytes": 1000, "imagePushedAt": of.pushed as f64 + 0.25, "imageManifestMediaType": of.media_type,
    });
    let tags = held.tags_of(digest);
    if !tags.is_empty() {
        details["imageTags"] = json!(tags);
    }
    details
}

fn digest_of(held: &Repository, id: &Value) -> Option<Digest> {
    let digest = match id["imageDigest"].as_str() {
        Some(text) => text.parse().unwrap(),
        None => *held.tags.get(id["imageTag"].as_str().unwrap())?,
    };
    held.manifests.contains_key(&digest).then_some(digest)
}

fn by_ids(held: &Repository, body: &Value) -> Reply {
    let ids = body["imageIds"].as_array().unwrap();
    let rows: Option<Vec<_>> = ids
        .iter()
        .map(|id| digest_of(held, id).map(|digest| details(held, &digest, &held.manifests[&digest])))
        .collect();
    match rows {
        Some(rows) => Reply::json(200, &json!({"imageDetails": rows})),
        None => exception("ImageNotFoundException", "The image with imageId does not exist"),
    }
}

fn get(held: &Repository, body: &Value) -> Reply {
    let ids = body["imageIds"].as_array().unwrap();
    assert!(ids.len() <= 100);
    let images: Vec<_> = ids
        .iter()
        .filter_map(|id| digest_of(held, id))
        .map(|digest| {
            let of = &held.manifests[&digest];
            json!({
                "imageId": {"imageDigest": digest.to_string()}, "imageManifestMediaType": of.media_type,
                "imageManifest": String::from_utf8(of.bytes.clone()).unwrap(),
            })
        })
        .collect();
    Reply::json(200, &json!({"images": images, "failures": []}))
}

fn delete(held: &mut Repository, body: &Value) -> Reply {
    let ids = body["imageIds"].as_array().unwrap();
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for id in ids {
        let failed = |code: &str| json!({"imageId": id, "failureCode": code, "failureReason": code});
        let Some(digest) = digest_of(held, id) else {
            failures.push(failed("ImageNotFound"));
            continue;
        };
        let tag = id["imageTag"].as_str();
        let takes_image = tag.is_none() || held.tags_of(&digest).len() == 1;
        let is_named = held.manifests.values().any(|of| of.children.contains(&digest));
        if takes_image && is_named {
            failures.push(failed("ImageReferencedByManifestList"));
        } else if takes_image {
            held.delete_manifest(&digest);
            done.push(id.clone());
        } else {
            held.delete_tag(tag.unwrap());
            done.push(id.clone());
        }
    }
    Reply::json(200, &json!({"imageIds": done, "failures": failures}))
}

fn tagged(tag: &str, digest: Digest) -> Doomed {
    Doomed::Tag { tag: tag.parse().unwrap(), digest }
}

/// A tagged index of a tagged and an untagged image, and an image with two tags.
async fn scene() -> (Server, [Digest; 4]) {
    let server = Server::start(front).await;
    let all = server.model(|model| {
        let name = "team/app";
        let (child, bare) = (model.image(name, "a", &[1], None), model.image(name, "b", &[2], None));
        let index = model.index(name, "i", &[child, bare]);
        let twice = model.image(name, "t", &[3], None);
        for (tag, digest) in [("v1", index), ("v1-amd64", child), ("pr-1", twice), ("main", twice)] {
            model.tag(name, tag, digest);
        }
        model.page = 2;
        [index, child, bare, twice]
    });
    (server, all)
}

#[tokio::test]
async fn a_repository_is_its_images_and_a_time_is_only_that_of_the_one_tag() {
    let (server, [index, child, bare, twice]) = scene().await;
    let holding = server.open(Adapter::Ecr).list(&"team/app".parse().unwrap()).await.unwrap();
    assert_eq!((holding.tags.len(), holding.manifests.len()), (4, 4));
    let pushed = |tag: &str| holding.tags.iter().find(|fact| fact.tag.as_str() == tag).unwrap().pushed_at;
    let held = server.model(|model| model.repository("team/app").manifests[&index].pushed);
    assert_eq!(pushed("v1"), Some(Timestamp(held * 1000 + 250)));
    // One of the two may have been put on it today: the time of the image says nothing of it.
    assert_eq!((pushed("main"), pushed("pr-1")), (None, None));
    assert!(holding.tags.iter().all(|fact| fact.pulled == Pulled::Unknown), "no pull on record is no knowledge");
    let fact = holding.manifests.iter().find(|fact| fact.digest == index).unwrap();
    assert!(fact.children.contains(&child) && fact.children.contains(&bare) && fact.digest != twice);
}

#[tokio::test]
async fn one_of_two_tags_goes_alone_and_the_last_takes_the_image() {
    let (server, [.., twice]) = scene().await;
    let remote = server.open(Adapter::Ecr);
    let name = "team/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, refused) = remote.calls(&holding, &[tagged("pr-1", twice)]);
    assert_eq!(refused, []);
    assert_eq!(calls[0].request, format!("POST {}/ BatchDeleteImage team/app imageTag=pr-1", server.url()));
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Deleted);
    assert!(server.model(|model| model.repository("team/app").manifests.contains_key(&twice)));
    let holding = remote.list(&name).await.unwrap();
    let (calls, _) = remote.calls(&holding, &[tagged("main", twice)]);
    assert_eq!(remote.carry_out(&name, &calls[0]).await.unwrap(), Outcome::Deleted);
    assert!(!server.model(|model| model.repository("team/app").manifests.contains_key(&twice)));
}

#[tokio::test]
async fn the_last_tag_of_what_an_index_needs_is_refused_with_the_tag_that_is_kept() {
    let (server, [index, child, ..]) = scene().await;
    let remote = server.open(Adapter::Ecr);
    let name = "team/app".parse().unwrap();
    let holding = remote.list(&name).await.unwrap();
    let (calls, refused) = remote.calls(&holding, &[tagged("v1-amd64", child)]);
    assert_eq!(calls, []);
    assert_eq!(refused[0].why, Why::Needed { kept: vec!["v1".parse().unwrap()], by: vec![index] });
    // With the index in the plan it goes after it, and only after it.
    let (calls, refused) = remote.calls(&holding, &[tagged("v1-amd64", child), tagged("v1", index)]);
    assert_eq!(refused, []);
    assert_eq!(*calls[0].target.digest(), index);
    assert!(matches!(remote.carry_out(&name, &calls[1]).await.unwrap(), Outcome::Refused(_)));
    for call in &calls {
        assert_eq!(remote.carry_out(&name, call).await.unwrap(), Outcome::Deleted);
    }
    assert_eq!(server.deletes().len(), 2);
}

#[tokio::test]
async fn what_moved_went_or_is_named_by_now_stays() {
    let (server, [_, _, bare, twice]) = scene().await;
    let remote = server.open(Adapter::Ecr);
    let name = "team/app".parse().unwrap();
    let orphan = server.model(|model| model.image("team/app", "o", &[7], None));
    let holding = remote.list(&name).await.unwrap();
    let (calls, refused) = remote.calls(
        &holding,
        &[Doomed::Untagged { digest: orphan }, Doomed::Untagged { digest: bare }, tagged("pr-1", twice)],
    );
    assert_eq!((calls.len(), refused.len()), (2, 1));
    let (tag, manifest): (Vec<_>, Vec<_>) = calls.iter().partition(|call| !call.target.tags().is_empty());
    server.model(|model| {
        model.index("team/app", "new", &[orphan]);
        model.tag("team/app", "pr-1", bare);
    });
    assert_eq!(remote.carry_out(&name, tag[0]).await.unwrap(), Outcome::Moved);
    let outcome = remote.carry_out(&name, manifest[0]).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Refused(why) if why.starts_with("ImageReferencedByManifestList")),
        "{outcome:?}"
    );
    server.model(|model| model.tag("team/app", "found", orphan));
    assert_eq!(remote.carry_out(&name, manifest[0]).await.unwrap(), Outcome::Moved);
    server.model(|model| model.repository("team/app").tags.remove("pr-1"));
    assert_eq!(remote.carry_out(&name, tag[0]).await.unwrap(), Outcome::AlreadyGone);
}

#[tokio::test]
async fn amazons_no_is_told_apart() {
    let (server, _) = scene().await;
    let name = "team/app".parse().unwrap();
    for (kind, fault) in [
        ("AccessDeniedException", Fault::Denied),
        ("ExpiredTokenException", Fault::CredentialRefused),
        ("RepositoryNotFoundException", Fault::Status(404)),
        ("SomethingElse", Fault::Status(400)),
    ] {
        server.script(move |_| Some(exception(kind, "not like that")));
        let error = server.open(Adapter::Ecr).list(&name).await.unwrap_err();
        assert_eq!(error.fault(), fault, "{kind}");
        assert!(error.to_string().contains("not like that"), "{error}");
    }
    // Throttled once, then answered.
    let left = std::sync::Mutex::new(true);
    server.script(move |_| {
        let first = std::mem::replace(&mut *left.lock().unwrap(), false);
        first.then(|| exception("ThrottlingException", "Rate exceeded").with("retry-after", "0"))
    });
    assert!(server.open(Adapter::Ecr).list(&name).await.is_ok());
    let mut config = server.config(Adapter::Ecr);
    config.credential = Some(larder::config::upstream::Credential::Basic {
        username: USER.to_owned(),
        password: larder::config::Secret::new("wrong"),
    });
    let error = super::server::open(HOST, &config).list(&name).await.unwrap_err();
    assert_eq!(error.fault(), Fault::CredentialRefused);
}

#[tokio::test]
async fn repositories_come_over_pages() {
    let (server, _) = scene().await;
    server.model(|model| {
        for name in ["team/b", "team/c"] {
            model.image(name, name, &[1], None);
        }
    });
    let names = server.open(Adapter::Ecr).repositories().await.unwrap().unwrap();
    assert_eq!(
        names.iter().map(larder::oci::RepositoryName::as_str).collect::<Vec<_>>(),
        ["team/app", "team/b", "team/c"]
    );
}
