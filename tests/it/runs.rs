//! Run views: one pipeline's run sees one digest of a tag, whatever becomes of the tag meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;

use crate::support::Answer;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::hosted;
use crate::support::images::Image;
use crate::support::images::build_cache;
use crate::support::images::image;
use crate::support::larder::eventually;
use crate::support::users;

/// Each pull asks the upstream what the tag means.
const ALWAYS: &str = r#", "freshness": [{"match": "**", "fresh_for": "0s", "stale_while_revalidate": "0s"}]"#;

fn digest(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.header("docker-content-digest")
}

async fn metric(larder: &Larder, name: &str) -> u64 {
    let metrics = client::ask(larder.admin, "GET", "/metrics", &[], b"").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = text.lines().find(|line| line.starts_with(&format!("larder_{name} ")));
    line.and_then(|line| line.split(' ').next_back()?.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_sees_what_it_saw_first_in_every_spelling_and_after_a_restart() {
    let upstream = Upstream::start().await;
    let (old, new) = (image(400, &[10]), image(401, &[10]));
    upstream.add("library/app", "1", &old);
    let mut larder = Larder::configured(&upstream, ALWAYS, "").await;
    let first = larder.get("/v2/run/one/docker.io/library/app/manifests/1").await;
    assert_eq!(digest(&first), old.digest.to_string());
    upstream.add("library/app", "1", &new);
    assert_eq!(digest(&larder.manifest("library/app", "1").await), new.digest.to_string());
    let spellings = [
        "/v2/run/one/docker.io/library/app/manifests/1",
        "/v2/run/one/library/app/manifests/1",
        "/v2/run/one/app/manifests/1",
        "/run/one/v2/library/app/manifests/1",
        "/run/one/docker.io/v2/library/app/manifests/1",
        "/v2/run/one/library/app/manifests/1?ns=registry-1.docker.io",
        "/run/one/v2/library/app/manifests/1?ns=docker.io",
    ];
    for restarted in [false, true] {
        if restarted {
            larder.stop().await;
            larder.start().await;
        }
        for spelling in spellings {
            for answer in [larder.get(spelling).await, larder.head(spelling).await] {
                assert_eq!(digest(&answer), old.digest.to_string(), "{spelling}");
                assert_eq!(answer.header("cache-status"), "larder; hit; detail=run");
            }
        }
        assert!(larder.get(spellings[0]).await.body[..] == old.manifest[..]);
        let other = larder.get("/run/two/v2/library/app/manifests/1").await;
        assert_eq!(digest(&other), new.digest.to_string(), "another run begins with what is there now");
    }
    // What is named by its digest is what it is, and so are blobs.
    let (layer, bytes) = old.blob(1);
    let blob = larder.get(&format!("/run/one/v2/library/app/blobs/{layer}")).await;
    assert!(blob.body[..] == bytes);
    let path = format!("/run/one/v2/library/app/manifests/{}", new.digest);
    assert_eq!(digest(&larder.get(&path).await), new.digest.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_first_requests_at_once_one_decides() {
    let upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(410, &[10]));
    let larder = Larder::configured(&upstream, ALWAYS, "").await;
    for run in 0..5 {
        let path = format!("/run/r{run}/v2/library/app/manifests/1");
        let answers = join_all((0..20).map(|n| {
            let (path, upstream, larder) = (&path, &upstream, &larder);
            async move {
                if n % 5 == 0 {
                    upstream.add("library/app", "1", &image(411 + run * 20 + n, &[10]));
                }
                if n % 2 == 0 { larder.get(path).await } else { larder.head(path).await }
            }
        }))
        .await;
        let seen: Vec<&str> = answers.iter().map(digest).collect();
        assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_decides_and_what_is_absent_does_not() {
    let upstream = Upstream::start().await;
    let (old, new) = (image(430, &[10]), image(431, &[10]));
    upstream.add("library/app", "1", &old);
    let larder = Larder::configured(&upstream, ALWAYS, "").await;
    // A pusher's look as well: the run has seen it.
    let path = "/run/a/v2/library/app/manifests/1";
    let looked = larder.ask("HEAD", path, &[("Accept", "application/vnd.oci.image.manifest.v1+json")]).await;
    assert_eq!(digest(&looked), old.digest.to_string());
    larder.settled().await;
    upstream.add("library/app", "1", &new);
    assert_eq!(digest(&larder.get(path).await), old.digest.to_string());
    assert_eq!(larder.get("/run/a/v2/library/app/manifests/2").await.status, 404);
    assert_eq!(metric(&larder, "run_pins").await, 1);
    // Its upstream's 404 is believed for a moment, by the machine's clock.
    upstream.add("library/later", "2", &new);
    assert_eq!(digest(&larder.get("/run/a/v2/library/later/manifests/2").await), new.digest.to_string());
    assert_eq!((metric(&larder, "runs").await, metric(&larder, "run_pins").await), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_over_a_day_after_its_last_use_or_when_it_is_ended() {
    let upstream = Upstream::start().await;
    let (old, new) = (image(440, &[10]), image(441, &[10]));
    upstream.add("library/app", "1", &old);
    let larder = Larder::configured(&upstream, ALWAYS, "").await;
    let path = |run: &str| format!("/run/{run}/v2/library/app/manifests/1");
    for run in ["a", "b"] {
        assert_eq!(digest(&larder.get(&path(run)).await), old.digest.to_string());
    }
    larder.settled().await;
    upstream.add("library/app", "1", &new);
    larder.advance(Duration::from_secs(20 * 3600));
    // A blob is a use too.
    assert_eq!(larder.get(&format!("/run/a/v2/library/app/blobs/{}", old.blob(1).0)).await.status, 200);
    larder.advance(Duration::from_secs(5 * 3600));
    assert_eq!(digest(&larder.get(&path("a")).await), old.digest.to_string());
    assert_eq!(digest(&larder.get(&path("b")).await), new.digest.to_string());
    let ended = client::ask(larder.admin, "DELETE", "/api/v1/runs/a", &[], b"").await;
    assert_eq!((ended.status, ended.json()["outcome"].as_str()), (200, Some("ended")));
    assert_eq!(digest(&larder.get(&path("a")).await), new.digest.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_saw_is_not_evicted_and_what_was_evicted_comes_again_by_its_digest() {
    for (share, stays) in [("50%", true), ("0%", false)] {
        let upstream = Upstream::start().await;
        let images: Vec<Image> = (0..4).map(|n| image(450 + n, &[300_000])).collect();
        for (n, image) in images.iter().enumerate() {
            upstream.add(&format!("library/app{n}"), "1", image);
        }
        let more = format!(r#"{ALWAYS}, "store": {{"max_size": "1MiB"}}, "runs": {{"max_share": "{share}"}}"#);
        let larder = Larder::configured(&upstream, &more, "").await;
        assert_eq!(larder.get("/run/a/v2/library/app0/manifests/1").await.status, 200);
        larder.settled().await;
        for n in 1..4 {
            larder.advance(Duration::from_secs(60));
            assert_eq!(larder.manifest(&format!("library/app{n}"), "1").await.status, 200);
            larder.settled().await;
        }
        eventually("something was evicted", async || metric(&larder, "evicted_bytes_total").await > 0).await;
        upstream.add("library/app0", "1", &image(459, &[10]));
        upstream.forget();
        let again = larder.get("/run/a/v2/library/app0/manifests/1").await;
        assert!(again.body[..] == images[0].manifest[..], "{share}");
        let asked = upstream.asked(|seen| seen.path.contains("app0"));
        let by_digest = asked
            .iter()
            .any(|seen| seen.method == Method::GET && seen.path.ends_with(&format!("manifests/{}", images[0].digest)));
        assert_eq!((asked.is_empty(), by_digest), (stays, !stays), "{share}: {asked:?}");
        let (layer, bytes) = images[0].blob(1);
        assert!(larder.get(&format!("/run/a/v2/library/app0/blobs/{layer}")).await.body[..] == bytes);
        assert_eq!(upstream.asked(|seen| seen.is_blob(&layer)).is_empty(), stays, "{share}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_room_for_so_many_runs_and_tags_and_then_a_sentence() {
    let upstream = Upstream::start().await;
    let app = image(470, &[10]);
    for tag in ["1", "2"] {
        upstream.add("library/app", tag, &app);
    }
    let larder = Larder::configured(&upstream, r#", "limits": {"runs": 1, "run_tags": 1}"#, "").await;
    assert_eq!(larder.get("/run/a/v2/library/app/manifests/1").await.status, 200);
    for (path, word) in
        [("/run/a/v2/library/app/manifests/2", "run_tags"), ("/run/b/v2/library/app/manifests/1", "limits.runs")]
    {
        let refused = larder.get(path).await;
        assert_eq!((refused.status, refused.code().as_str()), (429, "TOOMANYREQUESTS"), "{path}");
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 60);
        assert!(String::from_utf8_lossy(&refused.body).contains(word), "{path}");
    }
    assert_eq!(larder.get("/run/a/v2/library/app/manifests/1").await.status, 200);
    assert_eq!(larder.manifest("library/app", "2").await.status, 200);
}

/// larder with what lives here alone.
async fn with_hosted(images: &[(&str, &str, &Image)], more: &str) -> (Larder, Upstream, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    hosted::put(folder.path(), images).await;
    let upstream = Upstream::start().await;
    let larder = Larder::configured_at(&upstream, folder.path(), more).await;
    (larder, upstream, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_sees_what_it_pushed_and_not_what_others_pushed_since() {
    let images: Vec<Image> = (0..4).map(|n| image(480 + n, &[10])).collect();
    // Their blobs are here; the manifests are pushed.
    let parts: Vec<(&str, &str, &Image)> = images.iter().map(|image| ("cache/app", "", image)).collect();
    let (mut larder, _upstream, _folder) = with_hosted(&parts, "").await;
    let (outside, inside) = ("/v2/cache/app/manifests/ci", "/v2/run/ci/cache/app/manifests/ci");
    assert_eq!(larder.get(inside).await.status, 404);
    hosted::manifest(&larder, outside, &images[0]).await;
    assert_eq!(digest(&larder.get(inside).await), images[0].digest.to_string(), "absence was not noted");
    hosted::manifest(&larder, inside, &images[1]).await;
    for path in [outside, inside] {
        assert_eq!(digest(&larder.get(path).await), images[1].digest.to_string());
    }
    hosted::manifest(&larder, outside, &images[2]).await;
    assert_eq!(digest(&larder.get(inside).await), images[1].digest.to_string());
    // By digest with tags, as a push of several at once.
    hosted::manifest(
        &larder,
        &format!("/run/ci/v2/cache/app/manifests/{}?tag=ci&tag=also", images[3].digest),
        &images[3],
    )
    .await;
    larder.stop().await;
    larder.start().await;
    for path in [outside, inside, "/run/ci/v2/cache/app/manifests/also"] {
        assert_eq!(digest(&larder.get(path).await), images[3].digest.to_string(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_by_digest_ends_what_a_run_saw_and_one_by_tag_does_not() {
    let (old, new) = (image(490, &[10]), image(491, &[10]));
    let (larder, _upstream, _folder) = with_hosted(&[("cache/app", "ci", &old), ("cache/app", "", &new)], "").await;
    let (outside, inside) = ("/v2/cache/app/manifests/ci", "/run/a/v2/cache/app/manifests/ci");
    assert_eq!(digest(&larder.get(inside).await), old.digest.to_string());
    assert_eq!(larder.ask("DELETE", outside, &[]).await.status, 202);
    assert_eq!(larder.get(outside).await.status, 404);
    assert_eq!(digest(&larder.get(inside).await), old.digest.to_string());
    let by_digest = format!("/v2/cache/app/manifests/{}", old.digest);
    assert_eq!(larder.ask("DELETE", &by_digest, &[]).await.status, 202);
    assert_eq!(larder.get(inside).await.status, 404);
    hosted::manifest(&larder, outside, &new).await;
    assert_eq!(digest(&larder.get(inside).await), new.digest.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_for_a_missing_cache_is_not_noted() {
    let (main, own) = (build_cache(500), build_cache(501));
    let more = r#", "build_caches": [{"match": "cache/**", "fallback": ["main"]}]"#;
    let (larder, _upstream, _folder) =
        with_hosted(&[("cache/app", "main", &main), ("cache/app", "", &own)], more).await;
    let branch = "/run/a/v2/cache/app/manifests/feature-x";
    let answer = larder.get(branch).await;
    assert_eq!((digest(&answer), answer.header("larder-served-tag")), (&*main.digest.to_string(), "main"));
    assert_eq!(metric(&larder, "run_pins").await, 0);
    hosted::manifest(&larder, "/v2/cache/app/manifests/feature-x", &own).await;
    let answer = larder.get(branch).await;
    assert_eq!((digest(&answer), answer.header("larder-served-tag")), (&*own.digest.to_string(), ""));
    // What the run saw of main is what stands in for the run.
    assert_eq!(digest(&larder.get("/run/a/v2/cache/app/manifests/main").await), main.digest.to_string());
    hosted::manifest(&larder, "/v2/cache/app/manifests/main", &own).await;
    let answer = larder.get("/run/a/v2/cache/app/manifests/feature-y").await;
    assert_eq!((digest(&answer), answer.header("larder-served-tag")), (&*main.digest.to_string(), "main"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_run_needs_its_own_right_and_a_job_sees_of_runs_what_it_may_pull() {
    let (_users, file) = users::file(&["alice", "bob", "carol"]);
    let access = serde_json::json!({
        "htpasswd": file,
        "rules": [
            {"who": "alice", "may": ["pull"], "repositories": ["cache/**"]},
            {"who": "bob", "may": ["pull"], "repositories": ["cache/one"]},
        ],
    });
    let (one, two) = (image(510, &[10]), image(511, &[10]));
    let more = format!(r#", "access": {access}"#);
    let (larder, _upstream, _folder) = with_hosted(&[("cache/one", "1", &one), ("cache/two", "1", &two)], &more).await;
    let ask = async |user: &str, method: &str, path: &str| {
        let basic = users::known(user);
        let mut headers = vec![("Accept", client::ACCEPT)];
        if !user.is_empty() {
            headers.push(("Authorization", &basic));
        }
        larder.ask(method, path, &headers).await
    };
    for repository in ["cache/one", "cache/two"] {
        assert_eq!(ask("alice", "GET", &format!("/run/a/v2/{repository}/manifests/1")).await.status, 200);
    }
    // It was seen by the run; that gives nobody a right.
    assert_eq!(ask("bob", "GET", "/run/a/v2/cache/two/manifests/1").await.status, 404);
    assert_eq!(ask("", "GET", "/run/a/v2/cache/two/manifests/1").await.status, 401);
    for (user, status, tags) in [("alice", 200, 2), ("bob", 200, 1), ("carol", 404, 0), ("", 401, 0)] {
        let shown = ask(user, "GET", "/api/v1/runs/a").await;
        assert_eq!(shown.status, status, "{user}");
        let listed = ask(user, "GET", "/api/v1/runs").await;
        if status == 200 {
            assert_eq!(shown.json()["tags"].as_array().map(Vec::len), Some(tags), "{user}");
            assert_eq!(listed.json()["runs"][0]["tags"], tags, "{user}");
        } else {
            assert!(listed.status == 401 || listed.json()["runs"].as_array().is_some_and(Vec::is_empty), "{user}");
        }
        // One that is not there is answered as one that may not be seen.
        let absent = ask(user, "GET", "/api/v1/runs/never").await;
        assert_eq!(absent.status, if user.is_empty() { 401 } else { 404 }, "{user}");
    }
    for (user, status) in [("", 401), ("carol", 404), ("bob", 403), ("alice", 200), ("alice", 404)] {
        assert_eq!(ask(user, "DELETE", "/api/v1/runs/a").await.status, status, "{user}");
    }
    let page = larder.ask("DELETE", "/api/v1/runs/a", &[("Origin", "https://evil.example")]).await;
    assert_eq!(page.status, 403);
}
