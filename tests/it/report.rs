//! What storage comes to and what it saved, as `larder report` tells it.

use std::collections::BTreeSet;

use larder::oci::Digest;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::push;

/// Tags are of branches, and bytes cost something.
const TERMS: &str = r#", "retention": {"price": {"storage_gib_month": 1000, "egress_gib": 500}, "policies": [{
    "name": "branches", "repositories": ["cache/{repo}"], "select": ["{branch|slug}-{sha:7}"], "keep": [{"newest": 3}]}]}"#;

/// The bytes of these images, each once.
fn bytes(images: &[&Image]) -> u64 {
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    let blobs = images.iter().flat_map(|image| &image.blobs).filter(|(digest, _)| seen.insert(*digest));
    let blobs: usize = blobs.map(|(_, bytes)| bytes.len()).sum();
    (blobs + images.iter().map(|image| image.manifest.len()).sum::<usize>()) as u64
}

fn micros(bytes: u64, price: u64) -> u64 {
    u64::try_from(u128::from(price) * 1_000_000 * u128::from(bytes) / (1 << 30)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_repositories_branches_and_tags_take_is_told_to_the_byte() {
    let upstream = Upstream::start().await;
    let larder = Larder::configured(&upstream, TERMS, "").await;
    let base = Digest::of(b"").hex().into_bytes();
    let (first, second, other) = (image(920, &[1000]), image(921, &[2000]), image(922, &[3000]));
    // They share a configuration and a layer, with each other and with another repository.
    let first = first.with_layers(vec![base.clone(), vec![1; 1000]]);
    let second = first.with_layers(vec![base.clone(), second.blobs[1].1.clone()]);
    let feature = first.with_layers(vec![base, other.blobs[1].1.clone()]);
    for (repository, tag, image) in [
        ("cache/app", "main-0000001", &first),
        ("cache/app", "main-0000002", &second),
        ("cache/app", "feature-0000003", &feature),
        ("cache/app", "latest", &second),
        ("cache/other", "main-0000001", &first),
    ] {
        assert_eq!(push::image(&larder, repository, tag, image).await.status, 201);
    }
    assert_eq!(larder.manifest("cache/app", "latest").await.status, 200);
    let answer = larder.ask_admin("GET", "/api/v1/report?repository=cache/app").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = answer.json();
    let all = [&first, &second, &feature];
    assert_eq!((&report["bytes"], &report["hosted_bytes"]), (&bytes(&all).into(), &bytes(&all).into()));
    assert_eq!(report["month_micros"], micros(bytes(&all), 1000));
    assert_eq!(report["pulls"], 1);
    assert_eq!(report["saved_pulls"], 0, "what lives here alone spares no upstream");
    let app = &report["repositories"][0];
    assert_eq!((&app["repository"], report["repositories"].as_array().unwrap().len()), (&"cache/app".into(), 1));
    // The other repository needs `first` whole.
    let alone = bytes(&all) - bytes(&[&first]);
    assert_eq!((&app["bytes"], &app["exclusive_bytes"]), (&bytes(&all).into(), &alone.into()));
    assert_eq!(app["shared_bytes"], bytes(&[&first]));
    assert_eq!(app["month_micros"], micros(alone, 1000));
    assert!(app["used_at"].is_string());
    let branches: Vec<_> = app["branches"].as_array().unwrap().iter().map(|b| b["branch"].as_str().unwrap()).collect();
    assert_eq!(branches, ["feature", "main"], "what takes more alone stands first");
    let feature_alone = (feature.manifest.len() + 3000) as u64;
    assert_eq!(app["branches"][0]["exclusive_bytes"], feature_alone);
    // `latest` needs what the newer tag of main does.
    assert_eq!(app["branches"][1]["exclusive_bytes"], 0);
    assert_eq!((&app["branches"][1]["tag_count"], &app["branches"][1]["bytes"]), (&2.into(), &bytes(&all[..2]).into()));
    let tags: Vec<_> = app["tags"].as_array().unwrap().iter().collect();
    assert_eq!(tags.len(), 4);
    let latest = tags.iter().find(|tag| tag["tag"] == "latest").unwrap();
    assert_eq!((&latest["branch"], &latest["bytes"]), (&serde_json::Value::Null, &bytes(&[&second]).into()));
    assert!(latest["used_at"].is_string() && tags[0]["used_at"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_and_bytes_that_spared_the_upstream_are_told() {
    let upstream = Upstream::start().await;
    let app = image(930, &[70_000]);
    upstream.add("library/app", "1", &app);
    let mut larder = Larder::configured(&upstream, TERMS, "").await;
    let (layer, bytes) = app.blob(1);
    for _ in 0..3 {
        assert_eq!(larder.manifest("library/app", "1").await.status, 200);
        larder.settled().await;
    }
    for _ in 0..2 {
        assert!(larder.blob("library/app", &layer).await.body[..] == bytes);
    }
    // It is known over a restart.
    for restarted in [false, true] {
        if restarted {
            larder.stop().await;
            larder.start().await;
        }
        let report = larder.ask_admin("GET", "/api/v1/report?since=1h").await.json();
        assert_eq!((&report["pulls"], &report["saved_pulls"]), (&3.into(), &2.into()), "{report}");
        assert_eq!((&report["sent_bytes"], &report["saved_bytes"]), (&140_000.into(), &140_000.into()), "{report}");
        assert_eq!(report["saved_micros"], micros(140_000, 500));
        assert_eq!(report["repositories"][0]["repository"], "docker.io/library/app");
        assert!(report["repositories"][0]["branches"].is_null(), "only where it is asked for");
    }
    larder.advance(std::time::Duration::from_secs(7200));
    let report = larder.ask_admin("GET", "/api/v1/report?since=1h").await.json();
    assert_eq!((&report["pulls"], &report["saved_micros"]), (&0.into(), &0.into()));
    for (query, status) in [("since=soon", 400), ("repository=UPPER", 400), ("repository=nowhere.example/a", 404)] {
        assert_eq!(larder.ask_admin("GET", &format!("/api/v1/report?{query}")).await.status, status, "{query}");
    }
    let registry = larder.get("/api/v1/report").await;
    assert_eq!(registry.status, 404, "it is for whoever runs the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policies_freed_is_told_after_a_restart_too() {
    let upstream = Upstream::start().await;
    let terms = r#", "retention": {"policies": [{"name": "newest", "repositories": ["cache/{repo}"], "select": ["all"],
        "keep": [{"newest": 1}], "grace": "0s", "at_most": {"deletes": 10, "share": "90%"}}]}"#;
    let mut larder = Larder::configured(&upstream, terms, "").await;
    let images = [image(940, &[1000]), image(941, &[2000]), image(942, &[3000])];
    // Two of them share a layer: it becomes free with both of them only.
    let images =
        [images[0].clone(), images[0].with_layers(vec![images[0].blobs[1].1.clone(), vec![7; 10]]), images[2].clone()];
    for (n, image) in images.iter().enumerate() {
        larder.advance(std::time::Duration::from_secs(60));
        assert_eq!(push::image(&larder, "cache/app", &format!("v{n}"), image).await.status, 201);
    }
    let plan = client::ask(larder.admin, "POST", "/api/v1/prune/plan", &[], b"").await;
    assert_eq!(plan.json()["plan"]["deletes"].as_array().unwrap().len(), 2, "{}", plan.json());
    let applied = client::ask(larder.admin, "POST", "/api/v1/prune/apply", &[], &plan.body).await;
    assert_eq!(applied.status, 200, "{applied:?}");
    for restarted in [false, true] {
        if restarted {
            larder.stop().await;
            larder.start().await;
        }
        let report = larder.ask_admin("GET", "/api/v1/report").await.json();
        assert_eq!((&report["pruned"], &report["freed_bytes"]), (&2.into(), &bytes(&[&images[0], &images[1]]).into()));
        assert_eq!(report["repositories"][0]["pruned"], 2);
    }
}
