//! What uploads may take: sizes, times, how many, and who else is in the way.

use larder::oci::Digest;

use crate::support::Larder;
use crate::support::larder::eventually;
use crate::support::push;
use crate::support::push::Slow;
use crate::support::random::bytes;
use crate::support::users;

/// larder with two users who may do everything with what is hosted, and who may have so many uploads.
async fn with_users(uploads: u32) -> (Larder, tempfile::TempDir) {
    let (users, file) = users::file(&["alice", "bob"]);
    let everything =
        |who: &str| serde_json::json!({"who": who, "may": ["pull", "push", "delete"], "repositories": ["cache/**"]});
    let access = serde_json::json!({
        "htpasswd": file, "rules": [everything("alice"), everything("bob")], "limits": {"uploads": uploads},
    });
    (Larder::with(&format!(r#"{{"access": {access}}}"#)).await, users)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_belongs_to_its_repository_and_its_principal_alone() {
    let (larder, _users) = with_users(64).await;
    let (alice, bob) = (users::known("alice"), users::known("bob"));
    let whole = bytes(20, 10_000);
    let location = push::begin(&larder, "cache/app", &[("Authorization", &alice)]).await;
    push::send(&larder, "PATCH", &location, &[("Authorization", &alice)], &whole[..5_000]).await;
    let elsewhere = location.replace("cache/app", "cache/other");
    let unknown = "/v2/cache/app/blobs/uploads/01234567-0123-0123-0123-0123456789ab".to_owned();
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let ask = async |location: &str, who: &str| {
            let to = push::with_digest(location, &Digest::of(&whole));
            let answer = push::send(&larder, method, &to, &[("Authorization", who)], &whole[5_000..]).await;
            (answer.status, answer.body)
        };
        let want = ask(&unknown, &alice).await;
        assert_eq!(want.0, 404, "{method}");
        for (location, who) in [(&location, &bob), (&elsewhere, &alice), (&elsewhere, &bob)] {
            assert_eq!(ask(location, who).await, want, "{method} {location}");
        }
        assert_eq!(larder.ask(method, &push::with_digest(&location, &Digest::of(b"x")), &[]).await.status, 401);
    }
    let put = push::with_digest(&location, &Digest::of(&whole));
    let answer = push::send(&larder, "PUT", &put, &[("Authorization", &alice)], &whole[5_000..]).await;
    assert_eq!(answer.status, 201, "nothing of that touched it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_uploads_open_hinders_nobody_else_and_giving_them_up_frees_them_at_once() {
    let (larder, _users) = with_users(8).await;
    let (alice, bob) = (users::known("alice"), users::known("bob"));
    let post = async |who: &str| larder.ask("POST", "/v2/cache/app/blobs/uploads/", &[("Authorization", who)]).await;
    let mut open = Vec::new();
    for n in 0..100 {
        let answer = post(&alice).await;
        if n < 8 {
            assert_eq!(answer.status, 202);
            open.push(answer.header("location").to_owned());
            continue;
        }
        assert_eq!((answer.status, answer.code().as_str()), (429, "TOOMANYREQUESTS"), "{n}");
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=75).contains(&wait));
    }
    let whole = bytes(21, 1_000);
    let at_once = push::with_digest("/v2/cache/app/blobs/uploads/", &Digest::of(&whole));
    assert_eq!(push::send(&larder, "POST", &at_once, &[("Authorization", &alice)], &whole).await.status, 429);
    for n in 0..50 {
        let whole = bytes(1_000 + n, 1_000);
        let begun = post(&bob).await;
        let put = push::with_digest(begun.header("location"), &Digest::of(&whole));
        assert_eq!(push::send(&larder, "PUT", &put, &[("Authorization", &bob)], &whole).await.status, 201);
    }
    for location in open {
        assert_eq!(larder.ask("DELETE", &location, &[("Authorization", &alice)]).await.status, 204);
        let begun = post(&alice).await;
        assert_eq!(begun.status, 202, "its place is free");
        larder.ask("DELETE", begun.header("location"), &[("Authorization", &alice)]).await;
    }
    assert_eq!(push::left(&larder), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_left_ends_and_its_bytes_go() {
    let larder = Larder::with(r#"{"limits": {"upload_idle": "300ms"}}"#).await;
    let location = push::begin(&larder, "cache/app", &[]).await;
    // Who writes is not idle, however long that takes.
    let busy = push::begin(&larder, "cache/app", &[]).await;
    let whole = bytes(22, 300_000);
    let mut slow = Slow::send(&larder, "PATCH", &busy, 300_000, &whole[..100]).await;
    push::send(&larder, "PATCH", &location, &[], &whole).await;
    eventually("its bytes are gone", async || push::left(&larder) == 2).await;
    assert_eq!(larder.get(&location).await.code(), "BLOB_UPLOAD_UNKNOWN");
    slow.more(&whole[100..]).await;
    assert!(slow.answer().await.starts_with("HTTP/1.1 202 "));
    eventually("that of the other too", async || push::left(&larder) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_loses_its_request_and_not_what_came() {
    let larder = Larder::with(r#"{"limits": {"upload_stall": "200ms"}}"#).await;
    let whole = bytes(23, 300_000);
    let location = push::begin(&larder, "cache/app", &[]).await;
    let slow = Slow::send(&larder, "PATCH", &location, 300_000, &whole[..100_001]).await;
    let answer = slow.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(push::range(&larder, &location).await, "0-100000");
    let put = push::with_digest(&location, &Digest::of(&whole));
    let headers = [("Content-Range", "100001-299999")];
    assert_eq!(push::send(&larder, "PUT", &put, &headers, &whole[100_001..]).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_too_large_is_refused_before_its_body_or_where_it_becomes_so() {
    let larder = Larder::with(r#"{"limits": {"blob_bytes": "1MiB"}}"#).await;
    let (most, more) = (bytes(24, 1 << 20), bytes(25, (1 << 20) + 1));
    push::push(&larder, "cache/app", &most).await;
    let put = |location: &str| push::with_digest(location, &Digest::of(&more));
    let location = push::begin(&larder, "cache/app", &[]).await;
    // Not a byte of it is wanted: the client that waits to be told so sends none.
    let slow = Slow::send(&larder, "PUT", &put(&location), more.len(), b"").await;
    assert!(slow.answer().await.starts_with("HTTP/1.1 413 "));
    assert_eq!(larder.get(&location).await.code(), "BLOB_UPLOAD_UNKNOWN");
    let location = push::begin(&larder, "cache/app", &[]).await;
    assert_eq!(push::send(&larder, "PATCH", &location, &[], &more[..1 << 20]).await.status, 202);
    let answer = push::send(&larder, "PUT", &put(&location), &[], &more[1 << 20..]).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "SIZE_INVALID"));
    // Without a length it is seen when it comes.
    let location = push::begin(&larder, "cache/app", &[]).await;
    let mut chunked = Slow::chunked(&larder, "PATCH", &location).await;
    chunked.piece(&most).await;
    chunked.piece(b"x").await;
    assert!(chunked.answer().await.starts_with("HTTP/1.1 413 "));
    assert_eq!(push::left(&larder), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_held_to_its_range() {
    let larder = Larder::with("{}").await;
    let whole = bytes(26, 1_000);
    let location = push::begin(&larder, "cache/app", &[]).await;
    for (range, pieces, status, has) in [
        ("Content-Range: 0-99\r\n", [0..50, 50..100], 202, 100),
        ("Content-Range: 100-199\r\n", [100..120, 120..150], 416, 150),
        ("Content-Range: 150-199\r\n", [150..170, 170..201], 416, 200),
        ("", [200..300, 300..1_000], 202, 1_000),
    ] {
        let mut chunked = Slow::chunked_with(&larder, "PATCH", &location, range).await;
        for piece in pieces {
            chunked.piece(&whole[piece]).await;
        }
        chunked.end().await;
        let answer = chunked.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{range}: {answer}");
        assert_eq!(push::range(&larder, &location).await, format!("0-{}", has - 1));
    }
    let put = push::with_digest(&location, &Digest::of(&whole));
    assert_eq!(push::send(&larder, "PUT", &put, &[], b"").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_their_bytes_are_counted() {
    let larder = Larder::with("{}").await;
    let location = push::begin(&larder, "cache/app", &[]).await;
    push::send(&larder, "PATCH", &location, &[], &bytes(27, 12_345)).await;
    let metrics = String::from_utf8_lossy(&larder.get("/metrics").await.body).into_owned();
    for line in ["larder_uploads 1", "larder_uploaded_bytes_total 12345"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    larder.ask("DELETE", &location, &[]).await;
    assert!(String::from_utf8_lossy(&larder.get("/metrics").await.body).contains("larder_uploads 0"));
}
