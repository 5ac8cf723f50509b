//! Retention: a plan deletes nothing, and its carrying out deletes exactly that, less what moved or is kept by now.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::support::Answer;
use crate::support::Larder;
use crate::support::chat::Chat;
use crate::support::client;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::images::index;
use crate::support::images::referrer;
use crate::support::larder::eventually;
use crate::support::push;

const DAY: Duration = Duration::from_hours(24);

/// One policy for all that is hosted, with these keys besides.
fn policy(more: &str) -> String {
    format!(
        r#"{{ "name": "branches", "repositories": ["cache/**"], "select": ["{{branch|slug}}-{{sha:7}}"], "grace": "0s", "at_most": {{ "share": "90%" }}, {more} }}"#
    )
}

/// larder with these policies, and more under `retention`.
async fn with(policies: &str, more: &str) -> Larder {
    Larder::with(&format!(
        r#"{{ "gc": {{ "lease": "0s" }}, "retention": {{ "price": {{ "storage_gib_month": 0.1 }}, "policies": [{policies}] {more} }} }}"#
    ))
    .await
}

async fn post(larder: &Larder, path: &str, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json")];
    client::ask(larder.admin, "POST", path, &headers, body.to_string().as_bytes()).await
}

async fn plan(larder: &Larder) -> Value {
    let answer = post(larder, "/api/v1/prune/plan", &json!({ "kept": true })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn apply(larder: &Larder, plan: &Value) -> Answer {
    post(larder, "/api/v1/prune/apply", &json!({ "plan": plan["plan"], "mac": plan["mac"] })).await
}

/// The tags of a list of deletes or results, in order.
fn tags(list: &Value) -> Vec<String> {
    let name = |one: &Value| one["tag"].as_str().map_or_else(|| one["digest"].to_string(), str::to_owned);
    let mut tags: Vec<String> = list.as_array().unwrap().iter().map(name).collect();
    tags.sort();
    tags
}

/// Pushes an image a second later than the last.
async fn put(larder: &Larder, repository: &str, tag: &str, image: &Image) {
    larder.advance(Duration::from_secs(1));
    assert_eq!(push::image(larder, repository, tag, image).await.status, 201);
}

/// Three builds of two branches, with a layer that all share, and a release.
async fn two_branches(larder: &Larder) {
    for (branch, seed) in [("main", 10), ("feature-a", 20)] {
        for n in 0..3 {
            put(larder, "cache/app", &format!("{branch}-000000{n}"), &image(seed + n, &[2000])).await;
        }
    }
    put(larder, "cache/app", "v1", &image(30, &[2000])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_deletes_nothing_and_its_carrying_out_exactly_that() {
    let larder = with(&policy(r#""keep": [{ "newest": 1 }]"#), "").await;
    two_branches(&larder).await;
    let planned = plan(&larder).await;
    let going = ["feature-a-0000000", "feature-a-0000001", "main-0000000", "main-0000001"];
    assert_eq!(tags(&planned["plan"]["deletes"]), going);
    assert_eq!(tags(&planned["kept"]), ["feature-a-0000002", "main-0000002", "v1"]);
    assert_eq!(planned["plan"]["keepers"]["newest: 1 of branches"], 2);
    assert_eq!(larder.get("/v2/cache/app/tags/list").await.json()["tags"].as_array().unwrap().len(), 7);

    // What is planned is carried out, less what was pushed anew and what was deleted meanwhile.
    put(&larder, "cache/app", "main-0000000", &image(40, &[10])).await;
    assert_eq!(larder.ask("DELETE", "/v2/cache/app/manifests/main-0000001", &[]).await.status, 202);
    let answer = apply(&larder, &planned).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let applied = answer.json();
    let outcome = |tag: &str| {
        let results = applied["results"].as_array().unwrap();
        results.iter().find(|one| one["tag"] == tag).unwrap()["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(going.map(outcome), ["deleted", "deleted", "moved", "gone"]);
    let left = larder.get("/v2/cache/app/tags/list").await.json();
    assert_eq!(left["tags"], json!(["feature-a-0000002", "main-0000000", "main-0000002", "v1"]));
    assert_eq!(applied["broken"], json!([]));
    let metrics = String::from_utf8_lossy(&larder.ask_admin("GET", "/metrics").await.body).into_owned();
    assert!(metrics.contains(r#"larder_pruned_tags_total{policy="branches",outcome="deleted"} 2"#), "{metrics}");

    // The same plan once more deletes nothing.
    let again = apply(&larder, &planned).await.json();
    assert!(again["results"].as_array().unwrap().iter().all(|one| one["outcome"] != "deleted"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_edited_or_is_old_deletes_nothing() {
    let mut larder = with(&policy(r#""keep": [{ "newest": 1 }]"#), "").await;
    two_branches(&larder).await;
    let planned = plan(&larder).await;
    let mut edited = planned.clone();
    edited["plan"]["deletes"][0]["tag"] = "v1".into();
    let answer = apply(&larder, &edited).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["errors"][0]["message"].as_str().unwrap().contains("was edited"), "{answer:?}");
    let mut more = planned.clone();
    more["plan"]["extra"] = true.into();
    assert_eq!(apply(&larder, &more).await.status, 400);
    // The key outlives the process, the plan a day.
    larder.stop().await;
    larder.start().await;
    larder.advance(DAY + Duration::from_mins(1));
    let answer = apply(&larder, &planned).await;
    assert_eq!(answer.status, 409);
    assert!(answer.json()["errors"][0]["message"].as_str().unwrap().contains("1d1m"), "{answer:?}");
    assert_eq!(larder.get("/v2/cache/app/tags/list").await.json()["tags"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_at_most_goes_only_by_hand() {
    let policy = policy(r#""keep": [{ "newest": 1 }]"#).replace(r#""share": "90%""#, r#""deletes": 3"#);
    let larder = with(&policy, "").await;
    two_branches(&larder).await;
    let planned = plan(&larder).await;
    assert_eq!(planned["plan"]["policies"][0]["exceeded"], true);
    let answer = apply(&larder, &planned).await;
    assert_eq!(answer.status, 409);
    let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("it would delete 4 of 7") && message.contains("--at-most 4"), "{message}");
    let by_hand = |most: u64| json!({ "plan": planned["plan"], "mac": planned["mac"], "at_most": most });
    assert_eq!(post(&larder, "/api/v1/prune/apply", &by_hand(3)).await.status, 409);
    assert_eq!(larder.get("/v2/cache/app/tags/list").await.json()["tags"].as_array().unwrap().len(), 7);
    assert_eq!(post(&larder, "/api/v1/prune/apply", &by_hand(4)).await.status, 200);
    assert_eq!(larder.get("/v2/cache/app/tags/list").await.json()["tags"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_lets_nothing_go() {
    let larder = with(&policy(r#""keep": [{ "pushed_within": "7d" }]"#), "").await;
    two_branches(&larder).await;
    larder.clock.jump(Duration::from_hours(400 * 24));
    let planned = plan(&larder).await;
    let blocked = planned["plan"]["blocked"][0].as_str().unwrap();
    assert!(blocked.contains("the clock was set by 400d"), "{blocked}");
    assert_eq!(apply(&larder, &planned).await.status, 409);
    assert_eq!(larder.get("/v2/cache/app/tags/list").await.json()["tags"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_says_is_in_use_stays_and_a_list_that_is_missing_or_old_keeps_all() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("in-use.txt");
    let protect = format!(r#", "protect": [{{ "refs_file": {:?}, "max_age": "2h" }}]"#, list.display().to_string());
    let larder = with(&policy(r#""keep": [{ "newest": 1 }]"#), &protect).await;
    two_branches(&larder).await;
    let missing = plan(&larder).await;
    assert!(missing["plan"]["blocked"][0].as_str().unwrap().contains("can't be read"), "{missing}");
    assert_eq!(apply(&larder, &missing).await.status, 409);

    let by_digest = image(20, &[2000]).digest;
    let used = format!("# pods\n127.0.0.1:1/cache/app:main-0000000\nother.example.com/whatever@{by_digest}\n\n");
    std::fs::write(&list, used).unwrap();
    let fresh = plan(&larder).await;
    assert_eq!(tags(&fresh["plan"]["deletes"]), ["feature-a-0000001", "main-0000001"]);
    let of_list = |one: &Value| one["why"].as_str().unwrap().contains("a list of what is in use");
    assert_eq!(fresh["kept"].as_array().unwrap().iter().filter(|one| of_list(one)).count(), 2);

    let then = std::time::UNIX_EPOCH + Duration::from_millis(larder.clock.now().0) - Duration::from_hours(3);
    std::fs::File::options().append(true).open(&list).unwrap().set_modified(then).unwrap();
    let old = plan(&larder).await;
    assert!(old["plan"]["blocked"][0].as_str().unwrap().contains("is 3h old, and may be 2h"), "{old}");
    std::fs::write(&list, "not a reference at all!\n").unwrap();
    let wrong = plan(&larder).await;
    assert!(wrong["plan"]["blocked"][0].as_str().unwrap().contains("no reference in line 1"), "{wrong}");
    assert_eq!(apply(&larder, &fresh).await.status, 409, "a plan that was good is held against the list of now");
    assert_eq!(larder.get("/v2/cache/app/tags/list").await.json()["tags"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_goes_when_it_was_in_the_plan_for_the_grace_over_restarts() {
    let grace = policy(r#""keep": [{ "newest": 1 }]"#).replace(r#""grace": "0s""#, r#""grace": "24h""#);
    let mut larder = with(&grace, "").await;
    two_branches(&larder).await;
    let first = plan(&larder).await;
    assert_eq!((tags(&first["plan"]["deletes"]).len(), &first["plan"]["waiting"]), (0, &json!(4)));
    larder.stop().await;
    larder.start().await;
    larder.advance(DAY);
    put(&larder, "cache/app", "main-0000001", &image(50, &[10])).await;
    let second = plan(&larder).await;
    let going = ["feature-a-0000000", "feature-a-0000001", "main-0000000"];
    assert_eq!(tags(&second["plan"]["deletes"]), going, "{second}");
    assert_eq!(apply(&larder, &second).await.status, 200);
    let asked = "/api/v1/explain?ref=cache/app:main-0000002";
    let said = larder.ask_admin("GET", asked).await.json()["sentences"].to_string();
    assert!(said.contains("it goes after") && said.contains("the policy branches selects it"), "{said}");
    let asked = "/api/v1/explain?ref=cache/app:main-0000001";
    let said = larder.ask_admin("GET", asked).await.json()["sentences"].to_string();
    assert!(said.contains("`newest: 1` of the policy branches keeps it: it is the newest of main"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_run_reports_and_deletes_only_where_it_is_told_to() {
    for (mode, left) in [("report", 7), ("apply", 3)] {
        let schedule = format!(r#", "schedule": "*/5 * * * *", "mode": "{mode}""#);
        let larder = with(&policy(r#""keep": [{ "newest": 1 }]"#), &schedule).await;
        two_branches(&larder).await;
        larder.advance(Duration::from_mins(6));
        // A second one comes when the first is over.
        let prunes = async || {
            let metrics = larder.ask_admin("GET", "/metrics").await;
            String::from_utf8_lossy(&metrics.body).contains("larder_prune_runs_total")
        };
        eventually("a run", prunes).await;
        let tags = larder.get("/v2/cache/app/tags/list").await.json();
        assert_eq!(tags["tags"].as_array().unwrap().len(), left, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_run_that_refuses_tells_of_it_and_deletes_nothing() {
    let chat = Chat::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat");
    std::fs::write(&file, chat.url("hook")).unwrap();
    let policy = policy(r#""keep": [{ "newest": 1 }]"#).replace(r#""share": "90%""#, r#""deletes": 3"#);
    let notify = json!([{ "url_file": file, "events": ["prune_refused"] }]);
    let larder = Larder::with(&format!(
        r#"{{ "notify": {notify}, "retention": {{ "policies": [{policy}], "schedule": "*/5 * * * *", "mode": "apply" }} }}"#
    ))
    .await;
    two_branches(&larder).await;
    larder.advance(Duration::from_mins(6));
    eventually("the run tells that it refused", async || !chat.taken().is_empty()).await;
    let (_, told) = chat.taken().remove(0);
    let told = told.to_string();
    assert!(told.contains("branches") && told.contains("it would delete 4 of 7"), "{told}");
    assert_eq!(larder.get("/v2/cache/app/tags/list").await.json()["tags"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_tag_that_goes_needs_is_freed_to_the_byte_as_the_plan_says() {
    let larder = with(&policy(r#""keep": [{ "newest": 1 }]"#), "").await;
    two_branches(&larder).await;
    let children = [image(60, &[3000]), image(61, &[500])];
    put(&larder, "cache/app", "main-0000009", &index(&children)).await;
    put(&larder, "cache/app", "main-000000a", &image(62, &[700])).await;
    // A layer that another repository needs too is not freed, nor is what refers to what stays.
    put(&larder, "cache/other", "v2", &children[1]).await;
    let signature = referrer(63, &children[0], "application/vnd.example.signature");
    push::image(&larder, "cache/app", &signature.digest.to_string(), &signature).await;
    let stored = async || {
        let status = larder.ask_admin("GET", "/api/v1/status").await.json();
        status["store"]["hosted_bytes"].as_u64().unwrap()
    };
    let before = stored().await;
    let planned = plan(&larder).await;
    assert_eq!(apply(&larder, &planned).await.status, 200);
    let freed = planned["plan"]["freed_bytes"].as_u64().unwrap();
    assert!(freed > 5 * 2000, "{planned}");
    let wanted = before - freed;
    eventually("what went is collected", async || {
        post(&larder, "/api/v1/gc", &json!({})).await;
        stored().await <= wanted
    })
    .await;
    assert_eq!(stored().await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn untagged_manifests_go_where_a_policy_selects_them() {
    let untagged = r#"{ "name": "loose", "repositories": ["cache/**"], "select": ["untagged"], "keep": [{ "pushed_within": "1d" }], "grace": "0s", "at_most": { "share": "100%" } }"#;
    let larder = with(untagged, "").await;
    let (loose, parent) = (image(70, &[10]), index(&[image(71, &[10])]));
    push::image(&larder, "cache/app", &loose.digest.to_string(), &loose).await;
    push::image(&larder, "cache/app", &parent.digest.to_string(), &parent).await;
    put(&larder, "cache/app", "main", &index(&[image(72, &[10])])).await;
    assert_eq!(tags(&plan(&larder).await["plan"]["deletes"]).len(), 0, "they came just now");
    larder.advance(DAY);
    let planned = plan(&larder).await;
    assert_eq!(tags(&planned["plan"]["deletes"]).len(), 2, "the child goes with its index: {planned}");
    // What a tag means by now is not deleted.
    assert_eq!(push::manifest(&larder, "cache/app", "kept", &loose).await.status, 201);
    let applied = apply(&larder, &planned).await.json();
    let outcomes: Vec<&str> =
        applied["results"].as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert!(outcomes.contains(&"deleted") && outcomes.contains(&"kept"), "{applied}");
    assert_eq!(larder.manifest("cache/app", "kept").await.status, 200);
    assert_eq!(larder.manifest("cache/app", "main").await.status, 200);
    assert_eq!(larder.manifest("cache/app", &parent.digest.to_string()).await.status, 404);
}

/// larder with policies over another larder, which is a registry that deletes tags (OCI 1.1).
async fn before(remote: &Larder, repositories: &str) -> Larder {
    Larder::with(&format!(
        r#"{{ "upstreams": {{ "reg.test": {{ "endpoints": ["http://{}"] }} }},
              "retention": {{
                "policies": [{{ "name": "there", "repositories": [{repositories}], "select": ["{{branch|slug}}-{{sha:7}}"], "keep": [{{ "tags": ["main-*"] }}], "grace": "0s" }}],
                "remotes": {{ "reg.test": {{ "adapter": "oci" }} }} }} }}"#,
        remote.address
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_another_registry_go_by_their_names_and_what_shares_their_digest_stays() {
    let remote = Larder::with("{}").await;
    two_branches(&remote).await;
    push::manifest(&remote, "cache/app", "stable", &image(20, &[2000])).await;
    let larder = before(&remote, r#""reg.test/cache/app""#).await;
    let planned = plan(&larder).await;
    assert_eq!(tags(&planned["plan"]["deletes"]), ["feature-a-0000000", "feature-a-0000001", "feature-a-0000002"]);
    assert_eq!(planned["plan"]["calls"].as_array().unwrap().len(), 3, "{planned}");
    put(&remote, "cache/app", "feature-a-0000001", &image(80, &[10])).await;
    let applied = apply(&larder, &planned).await.json();
    let outcomes: Vec<&str> =
        applied["results"].as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["deleted", "moved", "deleted"], "{applied}");
    assert_eq!(applied["broken"], json!([]));
    assert_eq!(remote.manifest("cache/app", "stable").await.status, 200);
    assert_eq!(remote.manifest("cache/app", "feature-a-0000001").await.status, 200);
    assert_eq!(remote.manifest("cache/app", "feature-a-0000000").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_can_not_be_listed_loses_nothing() {
    let mut remote = Larder::with("{}").await;
    two_branches(&remote).await;
    let larder = before(&remote, r#""reg.test/cache/app", "reg.test/**""#).await;
    let planned = plan(&larder).await;
    let failed = planned["plan"]["failed"].as_array().unwrap().clone();
    assert_eq!(failed.len(), 1, "a pattern needs a catalog, which larder has not: {planned}");
    assert_eq!(tags(&planned["plan"]["deletes"]).len(), 3, "a name that is written out needs none");
    remote.stop().await;
    let none = plan(&larder).await;
    assert_eq!(tags(&none["plan"]["deletes"]).len(), 0);
    let applied = apply(&larder, &planned).await.json();
    assert!(applied["results"].as_array().unwrap().iter().all(|one| one["outcome"] == "kept"), "{applied}");
    let unknown = post(&larder, "/api/v1/prune/plan", &json!({ "remote": "other.test" })).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.json()["errors"][0]["message"].as_str().unwrap().contains("reg.test"), "{unknown:?}");
}
