//! Hosted repositories: manifests and what becomes of them. "Pushing Manifests", "Content Discovery" and "Content
//! Management" of the distribution specification, each MUST by its clause, and what larder promises besides.

use larder::oci::Digest;
use larder::oci::MediaType;

use crate::support::Answer;
use crate::support::Larder;
use crate::support::client;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::images::index;
use crate::support::images::referrer;
use crate::support::push;
use crate::support::random::bytes;

const APP: &str = "cache/app";

async fn larder() -> Larder {
    Larder::with(r#"{"hosted": ["cache/**", {"match": "team/**", "immutable_tags": ["v*"]}]}"#).await
}

async fn delete(larder: &Larder, repository: &str, reference: &str) -> u16 {
    larder.ask("DELETE", &format!("/v2/{repository}/manifests/{reference}"), &[]).await.status
}

async fn tags(larder: &Larder, query: &str) -> Answer {
    larder.get(&format!("/v2/{APP}/tags/list{query}")).await
}

/// "Pushing Manifests": a successful push MUST be 201 with a Location that is pulled from; the bytes MUST be served as they
/// were sent, with their type and digest; also by digest, and by sha512.
#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_manifest_is_served_as_it_was_sent() {
    let larder = larder().await;
    let image = image(500, &[1000, 70_000]);
    let pushed = push::image(&larder, APP, "1", &image).await;
    assert_eq!(pushed.status, 201);
    assert_eq!(pushed.header("docker-content-digest"), image.digest.to_string());
    assert_eq!(pushed.header("location"), format!("/v2/{APP}/manifests/{}", image.digest));
    let sha512 = Digest::of_with(larder::oci::Algorithm::Sha512, &image.manifest);
    assert_eq!(push::manifest(&larder, APP, &sha512.to_string(), &image).await.status, 201);
    for reference in ["1", pushed.header("docker-content-digest"), &sha512.to_string()] {
        let pulled = larder.manifest(APP, reference).await;
        assert!(pulled.status == 200 && pulled.body[..] == image.manifest[..], "{reference}");
        assert_eq!(pulled.header("content-type"), image.media_type);
        let head = larder.head(&format!("/v2/{APP}/manifests/{reference}")).await;
        assert_eq!(head.header("content-length"), image.manifest.len().to_string());
        assert_eq!(head.header("docker-content-digest"), pulled.header("docker-content-digest"));
    }
    let docker = Image { media_type: MediaType::DOCKER_MANIFEST.into(), ..docker(&image) };
    assert_eq!(push::image(&larder, APP, "docker", &docker).await.status, 201);
    assert_eq!(larder.manifest(APP, "docker").await.header("content-type"), MediaType::DOCKER_MANIFEST);
}

/// The same image in Docker's words: classic dockerd pushes nothing else.
fn docker(image: &Image) -> Image {
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let manifest = text.replace(MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST).into_bytes();
    Image { digest: Digest::of(&manifest), manifest, ..image.clone() }
}

/// "Pushing Manifests": what a manifest names and the repository lacks is `MANIFEST_BLOB_UNKNOWN`; a subject may be missing,
/// and so may layers that are not to be distributed.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_kept_only_with_all_that_it_names() {
    let larder = larder().await;
    let app = image(501, &[1000]);
    let (layer, content) = app.blob(1);
    push::push(&larder, APP, &app.blob(0).1).await;
    // In another repository it helps nobody here.
    push::push(&larder, "cache/other", &content).await;
    let refused = push::manifest(&larder, APP, "1", &app).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(refused.json()["errors"][0]["detail"], layer.to_string());
    assert_eq!(larder.manifest(APP, "1").await.status, 404);
    assert_eq!(larder.manifest(APP, &app.digest.to_string()).await.status, 404);
    let both = index(std::slice::from_ref(&app));
    assert_eq!(push::manifest(&larder, APP, "both", &both).await.code(), "MANIFEST_BLOB_UNKNOWN");
    push::push(&larder, APP, &content).await;
    assert_eq!(push::manifest(&larder, APP, "1", &app).await.status, 201);
    assert_eq!(push::manifest(&larder, APP, "both", &both).await.status, 201);
    let foreign = String::from_utf8(app.manifest.clone()).unwrap();
    let foreign = foreign.replace("image.layer.v1.tar", "image.layer.nondistributable.v1.tar").into_bytes();
    let foreign = Image { digest: Digest::of(&foreign), manifest: foreign, ..app.clone() };
    push::push(&larder, "cache/foreign", &app.blob(0).1).await;
    assert_eq!(push::manifest(&larder, "cache/foreign", "1", &foreign).await.status, 201);
}

/// BuildKit's caches without `image-manifest` are an index that lists blobs: they are no manifests.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_may_list_the_blobs_of_a_build_cache() {
    let larder = larder().await;
    let (layer, config) = (bytes(502, 5000), b"{\"layers\":[],\"records\":[]}".to_vec());
    for blob in [&layer, &config] {
        push::push(&larder, APP, blob).await;
    }
    let descriptor = |kind: &str, content: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(content).to_string(), "size": content.len()});
    let cache = |layer_type: &str| {
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [
            descriptor(layer_type, &layer),
            descriptor(MediaType::BUILDKIT_CACHE, &config),
        ]});
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        Image { manifest, media_type: MediaType::OCI_INDEX.into(), digest, blobs: vec![], children: vec![] }
    };
    let pushed = push::manifest(&larder, APP, "main", &cache("application/vnd.oci.image.layer.v1.tar+gzip")).await;
    assert_eq!(pushed.status, 201, "{pushed:?}");
    // What is called a manifest must be one.
    let wrong = push::manifest(&larder, APP, "wrong", &cache(MediaType::OCI_MANIFEST)).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
}

/// A manifest that two readers could take for two things, or for none, is `MANIFEST_INVALID`, and the tag stays as it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_manifest_is_refused_and_changes_nothing() {
    let larder = larder().await;
    let app = image(503, &[1000]);
    push::image(&larder, APP, "1", &app).await;
    let text = String::from_utf8(app.manifest.clone()).unwrap();
    let twice = text.replace("\"schemaVersion\": 2", "\"schemaVersion\": 2, \"schemaVersion\": 2");
    let both = text.replace("\"schemaVersion\": 2", &format!("\"manifests\": [{}]", descriptor_of(&app)));
    for (body, content_type) in [
        (twice.as_str(), MediaType::OCI_MANIFEST),
        (both.as_str(), MediaType::OCI_MANIFEST),
        (&text, MediaType::OCI_INDEX),
        (&text, "application/vnd.docker.distribution.manifest.v1+json"),
        ("{", MediaType::OCI_MANIFEST),
        ("", MediaType::OCI_MANIFEST),
        ("<html>", "text/html"),
    ] {
        let headers = [("Content-Type", content_type)];
        let path = format!("/v2/{APP}/manifests/1");
        let answer = push::send(&larder, "PUT", &path, &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "MANIFEST_INVALID"), "{content_type} {body}");
    }
    let other = Digest::of(b"other");
    let answer = push::manifest(&larder, APP, &other.to_string(), &app).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(larder.manifest(APP, "1").await.body[..], app.manifest[..]);
}

fn descriptor_of(image: &Image) -> String {
    format!(r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#, image.media_type, image.digest, image.manifest.len())
}

/// "Pushing Manifests": 4 MiB SHOULD be taken; more than the limit is 413, before the body or where it becomes so.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_may_have_four_mebibytes_and_no_byte_more() {
    let larder = larder().await;
    let of = |length: usize| {
        let head = format!(r#"{{"schemaVersion":2,"mediaType":"{}","layers":[],"filler":""#, MediaType::OCI_MANIFEST);
        let manifest = format!("{head}{}\"}}", "x".repeat(length - head.len() - 2)).into_bytes();
        let media_type = MediaType::OCI_MANIFEST.into();
        Image { digest: Digest::of(&manifest), manifest, media_type, blobs: vec![], children: vec![] }
    };
    let largest = of(4 << 20);
    assert_eq!(push::manifest(&larder, APP, "largest", &largest).await.status, 201);
    assert_eq!(larder.manifest(APP, "largest").await.body[..], largest.manifest[..]);
    let path = format!("/v2/{APP}/manifests/more");
    let said = push::Slow::send(&larder, "PUT", &path, (4 << 20) + 1, b"{").await.answer().await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    let mut unsaid = push::Slow::chunked(&larder, "PUT", &path).await;
    unsaid.piece(&of((4 << 20) + 1).manifest).await;
    unsaid.end().await;
    let answer = unsaid.answer().await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

/// "Pushing Manifests" by digest with `?tag=` (end-7b): each tag is named by `OCI-Tag`; ten at least are taken, and more
/// than are taken is 414.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_given_its_tags_at_once() {
    let larder = larder().await;
    let app = image(504, &[1000]);
    push::blobs(&larder, APP, &app).await;
    let names: Vec<String> = (0..10).map(|n| format!("t{n}")).collect();
    let query = |names: &[String]| names.iter().map(|name| format!("tag={name}")).collect::<Vec<_>>().join("&");
    let pushed = push::manifest(&larder, APP, &format!("{}?{}", app.digest, query(&names)), &app).await;
    assert_eq!(pushed.status, 201);
    let told: Vec<_> = pushed.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap().to_owned()).collect();
    assert_eq!(told, names);
    for name in &names {
        assert_eq!(larder.manifest(APP, name).await.header("docker-content-digest"), app.digest.to_string());
    }
    let many: Vec<String> = (0..17).map(|n| format!("m{n}")).collect();
    assert_eq!(push::manifest(&larder, APP, &format!("{}?{}", app.digest, query(&many)), &app).await.status, 414);
    assert_eq!(larder.manifest(APP, "m0").await.status, 404);
}

/// An immutable tag neither moves nor goes, the same content may be pushed again, and `?tag=` is all or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_neither_moves_nor_goes() {
    let larder = larder().await;
    let (first, second) = (image(505, &[1000]), image(506, &[1000]));
    for (tag, image) in [("v1", &first), ("v1", &first), ("main", &first), ("main", &second)] {
        assert_eq!(push::image(&larder, "team/app", tag, image).await.status, 201, "{tag}");
    }
    let moved = push::manifest(&larder, "team/app", "v1", &second).await;
    assert_eq!((moved.status, moved.code().as_str()), (403, "DENIED"));
    let both = format!("{}?tag=v2&tag=v1", second.digest);
    assert_eq!(push::manifest(&larder, "team/app", &both, &second).await.status, 403);
    assert_eq!(larder.manifest("team/app", "v2").await.status, 404, "all or nothing");
    assert_eq!(delete(&larder, "team/app", "v1").await, 403);
    assert_eq!(delete(&larder, "team/app", &first.digest.to_string()).await, 403, "it would take the tag along");
    assert_eq!(larder.manifest("team/app", "v1").await.body[..], first.manifest[..]);
    assert_eq!(delete(&larder, "team/app", "main").await, 202);
    assert_eq!(delete(&larder, "team/app", &second.digest.to_string()).await, 202);
}

/// "Pushing Manifests with Subject": the answer MUST name the subject by `OCI-Subject`. "Listing Referrers": 200 with an
/// index in any case, artifactType and annotations in it, the filter named, and Link where the list goes on.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_listed_as_soon_as_they_are_pushed() {
    let larder = larder().await;
    let app = image(507, &[1000]);
    let list = async |query: &str| larder.get(&format!("/v2/{APP}/referrers/{}{query}", app.digest)).await;
    let none = list("").await;
    assert_eq!((none.status, none.json()["manifests"].as_array().unwrap().len()), (200, 0));
    let (sbom, signature) =
        (referrer(1, &app, "application/vnd.test.sbom"), referrer(2, &app, "application/vnd.test.signature"));
    // The subject comes later, or never.
    for one in [&sbom, &signature] {
        let pushed = push::image(&larder, APP, &one.digest.to_string(), one).await;
        assert_eq!((pushed.status, pushed.header("oci-subject")), (201, app.digest.to_string().as_str()));
    }
    push::image(&larder, APP, "1", &app).await;
    let all = list("").await;
    assert_eq!(all.header("content-type"), MediaType::OCI_INDEX);
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let filtered = list("?artifactType=application/vnd.test.sbom").await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let found = filtered.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["digest"], sbom.digest.to_string());
    assert_eq!(
        (&found[0]["artifactType"], &found[0]["annotations"]["of"]),
        (&"application/vnd.test.sbom".into(), &"1".into())
    );
    assert_eq!(delete(&larder, APP, &sbom.digest.to_string()).await, 202);
    assert_eq!(list("").await.json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(larder.get(&format!("/v2/{APP}/referrers/sha256:abc")).await.status, 400);
}

/// "Listing Referrers": a list too large for one answer goes on by `Link`.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_of_referrers_goes_on() {
    let larder = larder().await;
    let app = image(508, &[1000]);
    let mut pushed = Vec::new();
    for n in 0..5 {
        let one = referrer(n, &app, "application/vnd.test.sbom");
        let text = String::from_utf8(one.manifest.clone()).unwrap();
        let long = text.replace(&format!("\"of\":\"{n}\""), &format!("\"of\":\"{n}{}\"", "x".repeat(700_000)));
        let one = Image { digest: Digest::of(long.as_bytes()), manifest: long.into_bytes(), ..one };
        assert_eq!(push::image(&larder, APP, &one.digest.to_string(), &one).await.status, 201);
        pushed.push(one.digest.to_string());
    }
    let mut path = format!("/v2/{APP}/referrers/{}?artifactType=application/vnd.test.sbom", app.digest);
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = larder.get(&path).await;
        pages += 1;
        assert!(page.body.len() < 4 << 20);
        seen.extend(
            page.json()["manifests"].as_array().unwrap().iter().map(|m| m["digest"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.header("link").strip_prefix('<').and_then(|link| link.split('>').next()) else { break };
        next.clone_into(&mut path);
    }
    seen.sort();
    pushed.sort();
    assert!(seen == pushed && pages > 1, "{pages}");
}

/// "Listing Tags": sorted, `n`, `last`, `n=0`, Link; a repository that is not there is 404, one without tags is not.
#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_in_pages() {
    let larder = larder().await;
    assert_eq!(tags(&larder, "").await.code(), "NAME_UNKNOWN");
    let app = image(509, &[1000]);
    push::blobs(&larder, APP, &app).await;
    assert_eq!(tags(&larder, "").await.json()["tags"], serde_json::json!([]));
    for tag in ["b", "a", "C", "10", "9"] {
        push::manifest(&larder, APP, tag, &app).await;
    }
    assert_eq!(tags(&larder, "").await.json(), serde_json::json!({"name": APP, "tags": ["10", "9", "C", "a", "b"]}));
    let page = tags(&larder, "?n=2").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["10", "9"]));
    assert_eq!(page.header("link"), format!("</v2/{APP}/tags/list?n=2&last=9>; rel=\"next\""));
    let last = tags(&larder, "?n=10&last=C").await;
    assert_eq!((last.json()["tags"].clone(), last.header("link")), (serde_json::json!(["a", "b"]), ""));
    let none = tags(&larder, "?n=0").await;
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (serde_json::json!([]), ""));
}

/// "Deleting tags", "Deleting Manifests", "Deleting Blobs": 202, then 404, for a manifest under each of its tags too; other
/// tags and other repositories keep what they have.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_gone_at_once_and_nothing_else_is() {
    let mut larder = larder().await;
    let (app, other) = (image(510, &[1000]), image(511, &[1000]));
    for tag in ["a", "b", "c"] {
        push::image(&larder, APP, tag, &app).await;
    }
    push::image(&larder, APP, "other", &other).await;
    push::image(&larder, "cache/copy", "1", &app).await;
    let (layer, content) = app.blob(1);
    assert_eq!(delete(&larder, APP, "a").await, 202);
    assert_eq!(delete(&larder, APP, "a").await, 404);
    assert_eq!(larder.manifest(APP, "b").await.status, 200);
    let named = larder.ask("DELETE", &format!("/v2/{APP}/blobs/{layer}"), &[]).await;
    assert_eq!((named.status, named.code().as_str()), (405, "UNSUPPORTED"), "a manifest names it");
    assert_eq!(delete(&larder, APP, &app.digest.to_string()).await, 202);
    for reference in ["a", "b", "c", &app.digest.to_string()] {
        assert_eq!(larder.manifest(APP, reference).await.status, 404, "{reference}");
    }
    assert_eq!(tags(&larder, "").await.json()["tags"], serde_json::json!(["other"]));
    assert_eq!(larder.ask("DELETE", &format!("/v2/{APP}/blobs/{layer}"), &[]).await.status, 202);
    larder.stop().await;
    larder.start().await;
    assert_eq!(larder.blob(APP, &layer).await.status, 404);
    assert_eq!(larder.ask("DELETE", &format!("/v2/{APP}/blobs/{layer}"), &[]).await.status, 404);
    assert_eq!(larder.blob("cache/copy", &layer).await.body[..], content[..]);
    assert_eq!(larder.manifest(APP, "other").await.body[..], other.manifest[..]);
    assert_eq!(delete(&larder, "cache/nothing", "1").await, 404);
}

/// An index keeps its images: one that it names does not go alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_does_not_go_from_under_its_index() {
    let larder = larder().await;
    let both = index(&[image(512, &[1000]), image(513, &[1000])]);
    push::image(&larder, APP, "both", &both).await;
    let child = both.children[0].digest.to_string();
    assert_eq!(delete(&larder, APP, &child).await, 405);
    assert_eq!(delete(&larder, APP, &both.digest.to_string()).await, 202);
    assert_eq!(delete(&larder, APP, &child).await, 202);
}

/// A proxied repository takes no writes, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn proxied_repositories_are_not_written_to() {
    let larder = larder().await;
    let app = image(514, &[1000]);
    let put = push::manifest(&larder, "library/app", "1", &app).await;
    assert_eq!((put.status, put.code().as_str(), put.header("allow")), (405, "UNSUPPORTED", "GET, HEAD"));
    assert_eq!(delete(&larder, "library/app", "1").await, 405);
    let path = "/v2/cache/app/manifests/1?ns=docker.io";
    let put = push::send(&larder, "PUT", path, &[("Content-Type", &app.media_type)], &app.manifest).await;
    assert_eq!(put.status, 405, "a name with a host is the upstream's");
}

/// Racing pushes to one tag: each 201 was seen or overwritten by a later one, and what stays is one of them, whole.
#[tokio::test(flavor = "multi_thread")]
async fn racing_pushes_to_one_tag_leave_one_of_them() {
    let larder = larder().await;
    let images = [image(515, &[1000]), image(516, &[2000])];
    for image in &images {
        push::blobs(&larder, APP, image).await;
    }
    for _ in 0..50 {
        let put = |n: usize| push::manifest(&larder, APP, "racing", &images[n]);
        let (first, second, seen) = tokio::join!(put(0), put(1), larder.manifest(APP, "racing"));
        assert_eq!((first.status, second.status), (201, 201));
        for answer in [seen, larder.manifest(APP, "racing").await] {
            if answer.status == 200 {
                let digest = Digest::of(&answer.body).to_string();
                assert_eq!(answer.header("docker-content-digest"), digest);
                assert!(images.iter().any(|image| image.digest.to_string() == digest));
            }
        }
    }
}

/// A tag remembers who pushed it, when, and what it meant before.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_remembers_who_pushed_it_and_what_it_meant_before() {
    let larder = larder().await;
    let images: Vec<Image> = (0..12).map(|n| image(520 + n, &[100])).collect();
    for image in &images {
        push::image(&larder, APP, "main", image).await;
        larder.advance(std::time::Duration::from_mins(1));
    }
    let listed = client::ask(larder.admin, "GET", &format!("/api/v1/tags?repository={APP}"), &[], b"").await.json();
    let tag = &listed["tags"][0];
    assert_eq!((&tag["pushed_by"], &tag["origin"]), (&"anonymous".into(), &"hosted".into()));
    let history: Vec<_> = tag["history"].as_array().unwrap().iter().map(|meant| meant["digest"].clone()).collect();
    let last: Vec<_> = images[2..].iter().map(|image| serde_json::Value::from(image.digest.to_string())).collect();
    assert_eq!(history, last, "the last ten, the oldest first");
    assert_eq!(tag["history"][9]["since"], tag["written_at"]);
    let told = client::ask(larder.admin, "GET", &format!("/api/v1/explain?ref={APP}:main"), &[], b"").await.json();
    let told = told["sentences"].to_string();
    for said in ["anonymous pushed it at", &format!("before that it meant {}", images[10].digest)] {
        assert!(told.contains(said), "{said}: {told}");
    }
}
