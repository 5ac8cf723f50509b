//! Lists of tags and referrers of upstreams with pages of their own kinds.

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;
use crate::support::upstream::Seen;

fn json(body: &serde_json::Value, link: Option<String>) -> Fault {
    let mut headers = vec![("Content-Type", "application/json".to_owned())];
    headers.extend(link.map(|link| ("Link", link)));
    Fault::Answer(200, headers, body.to_string().into_bytes())
}

/// Pages of two, with a cursor that says nothing to anybody else; `last` is not known.
fn opaque(seen: &Seen, tags: &[&str]) -> Fault {
    let at: usize = seen.query.split("next_page=c").nth(1).map_or(0, |n| n.parse().unwrap());
    let end = (at + 2).min(tags.len());
    // The link leads elsewhere on purpose: only its query may be taken.
    let link = (end < tags.len()).then(|| format!("<http://evil.test/v2/x?n=2&next_page=c{end}>; rel=\"next\""));
    json(&serde_json::json!({"name": "x", "tags": &tags[at..end]}), link)
}

/// All pages, as a client follows them.
async fn all(larder: &Larder, mut path: String) -> Vec<String> {
    let mut tags = Vec::new();
    for _ in 0..50 {
        let answer = larder.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        tags.extend(answer.json()["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()));
        let link = answer.header("link").to_owned();
        if link.is_empty() {
            return tags;
        }
        link.trim_start_matches('<').split('>').next().unwrap().clone_into(&mut path);
    }
    panic!("it does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_the_upstreams_own_are_followed() {
    const TAGS: [&str; 7] = ["z", "b", "a", "q", "c", "y", "d"];
    let upstream = Upstream::start().await;
    upstream.script(|seen| seen.path.ends_with("/tags/list").then(|| opaque(seen, &TAGS)));
    let larder = Larder::before(&upstream).await;
    for path in [
        "/v2/org/app/tags/list",
        "/v2/org/app/tags/list?n=2",
        "/v2/org/app/tags/list?n=1",
        "/v2/org/app/tags/list?n=1000",
    ] {
        assert_eq!(all(&larder, path.into()).await, TAGS, "{path}");
    }
    // Another replica, or this one after a restart, does not know the cursor: it is found from the front.
    let second = Larder::before(&upstream).await;
    assert_eq!(all(&second, "/v2/org/app/tags/list?n=2&last=q".into()).await, ["c", "y", "d"]);
    assert_eq!(all(&second, "/v2/org/app/tags/list?last=gone".into()).await, ["q", "y", "z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_does_not_end_is_an_error() {
    let upstream = Upstream::start().await;
    upstream.script(|seen| {
        let link = format!("<{}?next_page=again>; rel=next", seen.path);
        seen.path.ends_with("/tags/list").then(|| json(&serde_json::json!({"tags": []}), Some(link)))
    });
    let larder = Larder::before(&upstream).await;
    assert_eq!(larder.get("/v2/org/app/tags/list").await.status, 502);
    assert!(upstream.asked_anything() <= 200, "{}", upstream.asked_anything());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_referrers_is_listed() {
    let upstream = Upstream::start().await;
    let of = image(310, &[10]);
    let index = "application/vnd.oci.image.index.v1+json";
    upstream.script(move |seen| {
        if !seen.path.contains("/referrers/") {
            return None;
        }
        let page: usize = seen.query.split("page=").nth(1).map_or(0, |n| n.parse().unwrap());
        let digest = larder::oci::Digest::of(&[u8::try_from(page).unwrap()]);
        let one = serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": 1, "artifactType": if page == 2 { "b/b" } else { "a/a" }});
        let mut headers = vec![("Content-Type", index.to_owned())];
        if page < 4 {
            headers.push(("Link", format!("<{}?page={}>; rel=\"next\"", seen.path, page + 1)));
        }
        let body = serde_json::json!({"schemaVersion": 2, "mediaType": index, "manifests": [one]});
        Some(Fault::Answer(200, headers, body.to_string().into_bytes()))
    });
    let larder = Larder::before(&upstream).await;
    let path = format!("/v2/org/app/referrers/{}", of.digest);
    assert_eq!(larder.get(&path).await.json()["manifests"].as_array().unwrap().len(), 5);
    let filtered = larder.get(&format!("{path}?artifactType=b/b")).await;
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
}

/// The end of a list that was begun with the upstream must not be made up while that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_nobody_knows_is_no_empty_one() {
    let mut upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(311, &[10]));
    let larder = Larder::before(&upstream).await;
    assert_eq!(larder.get("/v2/library/app/tags/list?n=1").await.status, 200);
    upstream.stop().await;
    for query in ["", "?n=1", "?n=1&last=1", "?last=1"] {
        let answer = larder.get(&format!("/v2/library/app/tags/list{query}")).await;
        assert_eq!(answer.status, 503, "{query}");
    }
}
