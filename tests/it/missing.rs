//! Which images of a matrix are neither here nor upstream.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use serde_json::json;

use crate::support::Answer;
use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::hosted;
use crate::support::images::image;
use crate::support::push;
use crate::support::users;

const PATH: &str = "/api/v1/missing";

async fn ask(larder: &Larder, question: &Value) -> Answer {
    client::ask(larder.admin, "POST", PATH, &[], question.to_string().as_bytes()).await
}

async fn answer(larder: &Larder, question: &Value) -> Value {
    let answer = ask(larder, question).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn of(versions: &[&str]) -> Value {
    json!({ "matrix": { "image": "docker.io/acme/app:{version}", "matrix": { "version": versions } } })
}

fn states(answer: &Value) -> Vec<&str> {
    answer["cells"].as_array().unwrap().iter().map(|cell| cell["state"].as_str().unwrap()).collect()
}

/// The versions in the rows.
fn rows(answer: &Value) -> Vec<&str> {
    answer["rows"].as_array().unwrap().iter().map(|row| row["version"].as_str().unwrap()).collect()
}

/// How many cells are leased.
async fn leases(larder: &Larder) -> String {
    let metrics = client::ask(larder.admin, "GET", "/metrics", &[], b"").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix("larder_missing_leases ")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_is_here_or_upstream_or_missing_and_a_head_tells() {
    let upstream = Upstream::start().await;
    for (n, tag) in [(0, "1"), (1, "2")] {
        upstream.add("acme/app", tag, &image(600 + n, &[10]));
    }
    let larder = Larder::before(&upstream).await;
    assert_eq!(larder.manifest("acme/app", "1").await.status, 200);
    // Its upstream's 404 is believed by pulls for a while.
    assert_eq!(larder.manifest("acme/app", "4").await.status, 404);
    larder.settled().await;
    upstream.add("acme/app", "4", &image(604, &[10]));
    upstream.forget();
    let answer = answer(&larder, &of(&["1", "2", "3", "4"])).await;
    assert_eq!(states(&answer), ["here", "upstream", "missing", "upstream"]);
    assert_eq!((rows(&answer), &answer["count"]), (vec!["3"], &json!(1)));
    assert_eq!(answer["rows"][0], json!({ "version": "3", "image": "docker.io/acme/app:3" }));
    assert_eq!(answer["counts"], json!({ "here": 1, "upstream": 2, "missing": 1, "leased": 0, "failed": 0 }));
    let asked = upstream.asked(|_| true);
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|seen| seen.method == http::Method::HEAD), "{asked:?}");
    // What was found past the negative cache is pulled at once.
    assert_eq!(larder.manifest("acme/app", "4").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_here_while_a_pull_would_be_served_from_it() {
    let mut upstream = Upstream::start().await;
    upstream.add("acme/app", "1", &image(610, &[10]));
    let larder = Larder::before(&upstream).await;
    assert_eq!(larder.manifest("acme/app", "1").await.status, 200);
    larder.settled().await;
    upstream.forget();
    larder.advance(Duration::from_mins(5));
    assert_eq!(states(&answer(&larder, &of(&["1"])).await), ["here"]);
    assert_eq!(upstream.asked_anything(), 0);
    larder.advance(Duration::from_hours(1));
    assert_eq!(states(&answer(&larder, &of(&["1"])).await), ["here"]);
    assert_eq!(upstream.asked_anything(), 1, "past its time it is asked for");
    larder.advance(Duration::from_hours(1));
    upstream.stop().await;
    assert_eq!(states(&answer(&larder, &of(&["1", "2"])).await), ["here", "failed"]);
    upstream.restart().await;
    upstream.remove_tag("acme/app", "1");
    let gone = async || states(&answer(&larder, &of(&["1"])).await) == ["missing"];
    crate::support::larder::eventually("the tag that is gone is missing", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_makes_no_cell_missing() {
    let upstream = Upstream::start().await;
    upstream.script(|seen| seen.path.ends_with("/2").then(|| Fault::Answer(500, Vec::new(), Vec::new())));
    let larder = Larder::before(&upstream).await;
    let question = json!({ "matrix": of(&["1", "2"])["matrix"], "lease": "30m" });
    let told = answer(&larder, &question).await;
    assert_eq!(states(&told), ["missing", "failed"]);
    assert!(told["cells"][1]["error"].as_str().unwrap().starts_with("the upstream failed"), "{told}");
    // The pipeline ends with this, so it has leased nothing.
    assert_eq!(told["leased_until"], Value::Null);
    assert_eq!(leases(&larder).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_is_looked_up_in_the_whole_list() {
    let upstream = Upstream::start().await;
    for tag in ["v1.9.0", "v1.10.0", "v2.0.0-rc.1", "latest"] {
        upstream.add("acme/source", tag, &image(620, &[10]));
    }
    let larder = Larder::before(&upstream).await;
    let latest = |repository: &str| {
        let version = json!(["1", { "latest": { "tags": repository, "semver": true } }]);
        json!({ "matrix": { "image": "docker.io/acme/app:{version}", "matrix": { "version": version } } })
    };
    assert_eq!(rows(&answer(&larder, &latest("docker.io/acme/source")).await), ["1", "v1.10.0"]);
    let refused = ask(&larder, &latest("docker.io/acme/nothing")).await;
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(refused.status == 404 && told.contains("matrix.version[1].latest.tags"), "{told}");
    upstream.script(|seen| seen.path.ends_with("/tags/list").then(|| Fault::Answer(503, Vec::new(), Vec::new())));
    upstream.forget();
    assert_eq!(ask(&larder, &latest("docker.io/acme/source")).await.status, 503);
    assert!(upstream.asked(|seen| seen.path.contains("/manifests/")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_named_and_asks_nobody() {
    let upstream = Upstream::start().await;
    let larder = Larder::configured(&upstream, r#", "limits": {"cells": 10}"#, "").await;
    let latest = json!([{ "latest": { "tags": "docker.io/acme/app", "semver": true } }]);
    let twelve: Vec<String> = (0..12).map(|n| n.to_string()).collect();
    for (question, told) in [
        (json!({ "matrix": "image: [" }), "1:"),
        (json!({ "matrix": { "image": "acme/app:{w}", "matrix": { "v": ["1"] } } }), "image: the template's `{w}`"),
        (json!({ "matrix": { "image": "nohost.test/app:{v}", "matrix": { "v": latest } } }), "`nohost.test/app:1.0.0`"),
        (json!({ "matrix": { "image": "acme/app:{v}", "matrix": { "v": ["a b"] } } }), "`acme/app:a b` (v=a b)"),
        (json!({ "matrix": { "image": "acme/app:{v}", "matrix": { "v": twelve } } }), "12 cells; it may have 10"),
        (
            json!({ "matrix": { "image": "a/b:{v}", "matrix": { "v": [{ "latest": { "tags": "nohost.test/x", "semver": true } }] } } }),
            "matrix.v[0].latest.tags: `nohost.test/x` is no repository",
        ),
        (json!({ "matrix": of(&["1"])["matrix"], "lease": "soon" }), "`lease` is not a duration"),
        (json!({ "matrix": of(&["1"])["matrix"], "lease": "2d" }), "1d at most (limits.lease)"),
        (json!({ "matrx": "" }), "the request's body is not"),
    ] {
        let refused = ask(&larder, &question).await;
        let message = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(refused.status == 400 && message.contains(told) && !message.contains('\n'), "{question}: {message}");
    }
    assert_eq!(upstream.asked_anything(), 0);
    let limits = json!({ "matrix": of(&["1", "2", "3"])["matrix"], "rows_max": 2, "lease": "1m" });
    let refused = ask(&larder, &limits).await;
    assert!(refused.status == 400 && String::from_utf8_lossy(&refused.body).contains("group_by"));
    assert_eq!(rows(&answer(&larder, &of(&["1"])).await), ["1"], "nothing was leased");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_do_not_build_the_same_cell() {
    let upstream = Upstream::start().await;
    let mut larder = Larder::configured(&upstream, r#", "limits": {"leases": 4}"#, "").await;
    let leased = |versions: &[&str]| json!({ "matrix": of(versions)["matrix"], "lease": "30m" });
    let asked: Vec<Value> = join_all((0..6).map(|_| async { answer(&larder, &leased(&["1", "2"])).await })).await;
    let builds: Vec<&str> = asked.iter().flat_map(|answer| rows(answer)).collect();
    assert_eq!(builds, ["1", "2"], "one of six builds");
    larder.advance(Duration::from_mins(20));
    for restarted in [false, true] {
        if restarted {
            larder.stop().await;
            larder.start().await;
        }
        let other = answer(&larder, &of(&["1", "2", "3"])).await;
        assert_eq!((rows(&other), states(&other)), (vec!["3"], vec!["leased", "leased", "missing"]));
        assert!(other["cells"][0]["leased_until"].as_str().unwrap().starts_with("2026-"), "{other}");
    }
    assert_eq!(ask(&larder, &leased(&["3", "4", "5"])).await.status, 429, "limits.leases");
    assert_eq!(rows(&answer(&larder, &leased(&["2", "3"])).await), ["3"]);
    // What was built is there, whoever has it leased.
    upstream.add("acme/app", "1", &image(640, &[10]));
    larder.advance(Duration::from_mins(10));
    let over = answer(&larder, &of(&["1", "2", "3"])).await;
    assert_eq!(states(&over), ["upstream", "missing", "leased"]);
    assert_eq!(leases(&larder).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_learns_of_what_it_may_pull() {
    let upstream = Upstream::start().await;
    let (_users, file) = users::file(&["ci"]);
    let access = format!(
        r#", "access": {{"anonymous": [], "htpasswd": {}, "rules": [{{"who": "ci", "may": ["pull"], "repositories": ["docker.io/acme/app"]}}]}}"#,
        json!(file)
    );
    let larder = Larder::configured(&upstream, &access, "").await;
    let matrix = json!({ "image": "docker.io/acme/{name}:1", "matrix": { "name": ["app", "secret"] } });
    let question = json!({ "matrix": matrix }).to_string();
    let asks =
        async |headers: &[(&str, &str)]| client::ask(larder.address, "POST", PATH, headers, question.as_bytes()).await;
    assert_eq!(asks(&[]).await.status, 401);
    assert_eq!(upstream.asked_anything(), 0);
    let known = users::known("ci");
    assert_eq!(asks(&[("Authorization", &known), ("Origin", "https://evil.test")]).await.status, 403);
    let told = asks(&[("Authorization", &known)]).await.json();
    assert_eq!(states(&told), ["missing", "failed"]);
    assert_eq!(told["cells"][1]["error"], "the repository is not known");
    assert!(upstream.asked(|seen| seen.path.contains("secret")).is_empty());
}

/// A thousand by default. No assertion holds the time, for a machine may be busy; this shows it:
/// `LARDER_CELLS=10000 cargo test --test it cells_that_are_here -- --nocapture`.
#[tokio::test(flavor = "multi_thread")]
async fn cells_that_are_here_ask_nobody() {
    const NAMES: usize = 10;
    let cells = std::env::var("LARDER_CELLS").map_or(1_000, |count| count.parse().unwrap());
    let versions = cells / NAMES;
    let upstream = Upstream::start().await;
    let larder = Larder::before(&upstream).await;
    let image = image(650, &[10]);
    join_all((0..NAMES).map(async |name| {
        let repository = format!("cache/wheels-{name}");
        push::blobs(&larder, &repository, &image).await;
        for from in (0..versions).step_by(10) {
            let tags: Vec<String> = (from..versions.min(from + 10)).map(|n| format!("tag=v{n}")).collect();
            let path = format!("/v2/{repository}/manifests/{}?{}", image.digest, tags.join("&"));
            hosted::manifest(&larder, &path, &image).await;
        }
    }))
    .await;
    let names: Vec<String> = (0..NAMES).map(|n| n.to_string()).collect();
    let versions: Vec<String> = (0..versions).map(|n| format!("v{n}")).collect();
    let question = json!({ "matrix": {
        "image": "cache/wheels-{name}:{version}", "matrix": { "name": names, "version": versions },
    } });
    let began = tokio::time::Instant::now();
    let told = answer(&larder, &question).await;
    println!("{cells} cells answered in {:?}", began.elapsed());
    assert_eq!((&told["counts"]["here"], &told["count"]), (&json!(cells), &json!(0)));
    assert_eq!(upstream.asked_anything(), 0);
}
