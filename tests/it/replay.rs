//! What policies would have done in the past, held against the pulls that were recorded.

use std::time::Duration;

use larder::clock::Timestamp;
use serde_json::Value;

use crate::support::Answer;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::push;

const START: Timestamp = Timestamp(1_790_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

const POLICY: &str = r#", "retention": {"price": {"storage_gib_month": 1000}, "policies": [{"name": "used",
    "repositories": ["cache/{repo}"], "select": ["all"], "grace": "0s",
    "keep": [{"pushed_within": "2d"}, {"pulled_within": "2d"}]}]}"#;

async fn replay(larder: &Larder, body: &str) -> Answer {
    client::ask(larder.admin, "POST", "/api/v1/prune/replay", &[], body.as_bytes()).await
}

/// Moves on to so many hours after the start. What was noted until then is written down as of then.
async fn until(larder: &Larder, hours: u32) {
    assert_eq!(larder.ask_admin("GET", "/api/v1/report").await.status, 200);
    let target = START.after(HOUR * hours);
    larder.advance(target.since(larder.clock.now()));
}

async fn pull(larder: &Larder, reference: &str) {
    assert_eq!(larder.manifest("cache/app", reference).await.status, 200);
}

fn bytes(images: &[&Image]) -> u64 {
    let one = |image: &&Image| image.manifest.len() + image.blobs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    images.iter().map(one).sum::<usize>() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_free_and_who_would_have_missed_it_is_told_and_nothing_is_deleted() {
    let upstream = Upstream::start().await;
    let larder = Larder::configured(&upstream, POLICY, "").await;
    let (used, late, old, new) = (image(950, &[1000]), image(951, &[2000]), image(952, &[3000]), image(953, &[4000]));
    for (tag, image) in [("used", &used), ("late", &late), ("moved", &old)] {
        assert_eq!(push::image(&larder, "cache/app", tag, image).await.status, 201);
    }
    for day in 1..=4 {
        until(&larder, day * 24).await;
        pull(&larder, "used").await;
    }
    until(&larder, 6 * 24).await;
    assert_eq!(push::image(&larder, "cache/app", "moved", &new).await.status, 201);
    until(&larder, 7 * 24).await;
    pull(&larder, "moved").await;
    until(&larder, 8 * 24).await;
    pull(&larder, "late").await;
    until(&larder, 8 * 24 + 6).await;
    pull(&larder, &late.digest.to_string()).await;
    until(&larder, 8 * 24 + 12).await;

    let answer = replay(&larder, r#"{"since": "10d"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    // `late` and `moved` go on the third day, `used` on the seventh; `moved` is pushed anew before it is pulled.
    let policy = &told["policies"][0];
    assert_eq!(
        (&policy["policy"], &policy["deletes"], &policy["most_in_a_run"]),
        (&"used".into(), &3.into(), &2.into())
    );
    assert_eq!(policy["refused_runs"], 1, "two of three are more than half of them: {told}");
    assert_eq!((&told["runs"], &told["tags"]), (&11.into(), &2.into()), "{told}");
    let freed = bytes(&[&used, &late, &old]);
    assert_eq!(told["freed_bytes"], freed);
    assert_eq!(told["saved_a_month_micros"], 1_000_000_000 * freed / (1 << 30));
    assert_eq!((&told["pulls"], &told["missed_pulls"]), (&7.into(), &2.into()), "{told}");
    let missed: Vec<&Value> = told["missed"].as_array().unwrap().iter().collect();
    let references: Vec<_> = missed.iter().map(|one| one["reference"].as_str().unwrap()).collect();
    assert_eq!(references, ["late", late.digest.to_string().as_str()]);
    assert_eq!(missed[0]["deleted_at"], START.after(HOUR * 60).to_string());
    assert_eq!(missed[0]["pulled_at"], START.after(HOUR * 24 * 8).to_string());
    assert_eq!(told["known_since"], START.to_string());

    for (tag, image) in [("used", &used), ("late", &late), ("moved", &new)] {
        assert_eq!(larder.manifest("cache/app", tag).await.header("docker-content-digest"), image.digest.to_string());
    }
    for (body, status) in [
        ("{}", 400),
        (r#"{"since": "soon"}"#, 400),
        (r#"{"since": "366d"}"#, 400),
        (r#"{"since": "1d", "policy": "none"}"#, 400),
    ] {
        assert_eq!(replay(&larder, body).await.status, status, "{body}");
    }
}
