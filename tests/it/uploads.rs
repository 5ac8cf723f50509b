//! Pushing blobs (distribution-spec, "Pushing blobs"): every way that clients have, what they do wrong, and what
//! becomes of what they leave.

use larder::oci::Algorithm;
use larder::oci::Digest;

use crate::support::Larder;
use crate::support::client;
use crate::support::push;
use crate::support::push::Slow;
use crate::support::random::bytes;

const UPLOADS: &str = "/v2/cache/app/blobs/uploads/";

async fn larder() -> Larder {
    Larder::with("{}").await
}

/// The blob can be pulled, and is what was pushed.
async fn pulls(larder: &Larder, location: &str, digest: &Digest, bytes: &[u8]) {
    let head = larder.head(location).await;
    assert_eq!(
        (head.status, head.header("docker-content-digest"), head.header("content-length")),
        (200, digest.to_string().as_str(), bytes.len().to_string().as_str())
    );
    let answer = larder.get(location).await;
    assert!(answer.status == 200 && answer.body == bytes, "{location}: {}", answer.status);
}

/// 201 with an address at which the blob is.
async fn is_created(larder: &Larder, answer: &client::Answer, digest: &Digest, bytes: &[u8]) {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    pulls(larder, answer.header("location"), digest, bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_pushed_whole_after_a_session_or_at_once() {
    let larder = larder().await;
    for (seed, length) in [(1, 0), (2, 1), (3, 70_000), (4, 3 << 20)] {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let whole = bytes(seed, length);
            let digest = Digest::of_with(algorithm, &whole);
            let at_once = push::with_digest(UPLOADS, &digest);
            is_created(&larder, &push::send(&larder, "POST", &at_once, &[], &whole).await, &digest, &whole).await;

            let begun = larder.ask("POST", &format!("{UPLOADS}?digest-algorithm={}", algorithm.as_str()), &[]).await;
            assert_eq!((begun.status, begun.header("range")), (202, "0-0"));
            let session = begun.header("docker-upload-uuid");
            assert!(session.len() >= 32 && begun.header("location") == format!("{UPLOADS}{session}"), "{begun:?}");
            assert!(begun.header("oci-chunk-min-length").parse::<u64>().is_ok());
            let put = push::with_digest(begun.header("location"), &digest);
            is_created(&larder, &push::send(&larder, "PUT", &put, &[], &whole).await, &digest, &whole).await;
        }
    }
    assert_eq!(push::left(&larder), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_pushed_in_chunks_and_as_a_stream() {
    let larder = larder().await;
    let whole = bytes(5, 700_000);
    let digest = Digest::of(&whole);
    for (with_range, last_in_put) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut location = push::begin(&larder, "cache/app", &[]).await;
        let mut at = 0;
        for (n, chunk) in whole.chunks(300_000).enumerate() {
            let range = format!("{at}-{}", at + chunk.len() - 1);
            let headers = if with_range { vec![("Content-Range", range.as_str())] } else { vec![] };
            at += chunk.len();
            if last_in_put && n == 2 {
                let put = push::with_digest(&location, &digest);
                let answer = push::send(&larder, "PUT", &put, &headers, chunk).await;
                is_created(&larder, &answer, &digest, &whole).await;
                continue;
            }
            let answer = push::send(&larder, "PATCH", &location, &headers, chunk).await;
            assert_eq!((answer.status, answer.header("range")), (202, format!("0-{}", at - 1).as_str()));
            location = answer.header("location").to_owned();
            assert_eq!(push::range(&larder, &location).await, format!("0-{}", at - 1));
        }
        if !last_in_put {
            let answer = push::send(&larder, "PUT", &push::with_digest(&location, &digest), &[], b"").await;
            is_created(&larder, &answer, &digest, &whole).await;
        }
        // The session is over: nothing can be done with it any more.
        for (method, body) in [("PATCH", b"x".as_slice()), ("PUT", b""), ("GET", b""), ("DELETE", b"")] {
            let answer = push::send(&larder, method, &push::with_digest(&location, &digest), &[], body).await;
            assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
        }
    }
    assert_eq!(push::left(&larder), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_for_another_place_is_refused_with_the_right_one_and_changes_nothing() {
    let larder = larder().await;
    let whole = bytes(6, 100_000);
    let digest = Digest::of(&whole);
    let location = push::begin(&larder, "cache/app", &[]).await;
    let chunk = |from: usize, to: usize| (format!("{from}-{}", to - 1), &whole[from..to]);
    for (at, wrong) in [
        (0, vec![chunk(10_000, 20_000), ("0-9999".into(), &whole[..9_999]), ("0-9999".into(), &whole[..10_001])]),
        (10_000, vec![chunk(0, 10_000), chunk(9_999, 20_000), chunk(10_001, 20_000), chunk(99_000, 100_000)]),
    ] {
        let has = format!("0-{}", usize::max(at, 1) - 1);
        for (range, part) in wrong {
            for method in ["PATCH", "PUT"] {
                let to = push::with_digest(&location, &digest);
                let answer = push::send(&larder, method, &to, &[("Content-Range", &range)], part).await;
                assert_eq!(
                    (answer.status, answer.header("range"), answer.header("location")),
                    (416, has.as_str(), location.as_str()),
                    "{method} {range}"
                );
                assert_eq!(answer.code(), "BLOB_UPLOAD_INVALID");
            }
        }
        assert_eq!(push::range(&larder, &location).await, has);
        let (range, part) = chunk(at, at + 10_000);
        assert_eq!(push::send(&larder, "PATCH", &location, &[("Content-Range", &range)], part).await.status, 202);
    }
    let nonsense = push::send(&larder, "PATCH", &location, &[("Content-Range", "nonsense")], b"x").await;
    assert_eq!((nonsense.status, nonsense.code().as_str()), (400, "BLOB_UPLOAD_INVALID"));
    let (range, rest) = chunk(20_000, 100_000);
    let put = push::with_digest(&location, &digest);
    let range = format!("bytes {range}/*");
    is_created(&larder, &push::send(&larder, "PUT", &put, &[("Content-Range", &range)], rest).await, &digest, &whole)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_ends_the_upload_and_leaves_nothing() {
    let larder = larder().await;
    let (whole, other) = (bytes(7, 300_000), Digest::of(b"another"));
    let location = push::begin(&larder, "cache/app", &[]).await;
    push::send(&larder, "PATCH", &location, &[], &whole[..200_000]).await;
    let put = push::with_digest(&location, &other);
    for (method, to, body) in
        [("PUT", put.clone(), &whole[200_000..]), ("POST", push::with_digest(UPLOADS, &other), &whole)]
    {
        let answer = push::send(&larder, method, &to, &[], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"), "{method}");
    }
    assert_eq!(push::left(&larder), 0);
    assert_eq!(push::send(&larder, "PUT", &put, &[], b"").await.code(), "BLOB_UPLOAD_UNKNOWN");
    for digest in [other, Digest::of(&whole)] {
        assert_eq!(larder.blob("cache/app", &digest).await.status, 404);
    }
    // What is no digest is refused before anything else, and costs nothing.
    let location = push::begin(&larder, "cache/app", &[]).await;
    let hex = Digest::of(&whole).hex();
    for digest in
        [format!("sha256:{}", hex.to_uppercase()), format!("sha256:{}", hex.get(1..).unwrap()), format!("md5:{hex}")]
    {
        let answer = push::send(&larder, "PUT", &format!("{location}?digest={digest}"), &[], &whole).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"), "{digest}");
    }
    assert_eq!(push::send(&larder, "PUT", &location, &[], &whole).await.code(), "DIGEST_INVALID");
    assert_eq!(push::range(&larder, &location).await, "0-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_is_gone_at_once_also_in_the_middle_of_a_body() {
    let larder = larder().await;
    let whole = bytes(8, 400_000);
    let location = push::begin(&larder, "cache/app", &[]).await;
    push::send(&larder, "PATCH", &location, &[], &whole).await;
    assert_eq!(push::left(&larder), 2);
    assert_eq!(larder.ask("DELETE", &location, &[]).await.status, 204);
    assert_eq!(push::left(&larder), 0);
    assert_eq!(larder.ask("DELETE", &location, &[]).await.status, 404);

    let location = push::begin(&larder, "cache/app", &[]).await;
    let slow = Slow::send(&larder, "PATCH", &location, 400_000, &whole[..300_000]).await;
    push::until(&larder, &location, "0-299999").await;
    assert_eq!(larder.ask("DELETE", &location, &[]).await.status, 204);
    assert_eq!(push::left(&larder), 0);
    let answer = slow.answer().await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_write_at_once_one_is_told_how_far_the_other_has_come() {
    let larder = larder().await;
    let whole = bytes(9, 500_000);
    let location = push::begin(&larder, "cache/app", &[]).await;
    let mut slow = Slow::send(&larder, "PATCH", &location, 500_000, &whole[..300_000]).await;
    push::until(&larder, &location, "0-299999").await;
    for (method, headers) in [("PATCH", vec![]), ("PATCH", vec![("Content-Range", "300000-499999")]), ("PUT", vec![])] {
        let to = push::with_digest(&location, &Digest::of(&whole));
        let answer = push::send(&larder, method, &to, &headers, &whole[300_000..]).await;
        assert_eq!((answer.status, answer.header("range")), (416, "0-299999"), "{method} {headers:?}");
    }
    slow.more(&whole[300_000..]).await;
    assert!(slow.answer().await.starts_with("HTTP/1.1 202 "));
    let digest = Digest::of(&whole);
    let answer = push::send(&larder, "PUT", &push::with_digest(&location, &digest), &[], b"").await;
    is_created(&larder, &answer, &digest, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_its_client_left_it_or_larder_was_stopped() {
    let mut larder = larder().await;
    let whole = bytes(10, 900_000);
    let digest = Digest::of(&whole);
    let empty = push::begin(&larder, "cache/app", &[]).await;
    let location = push::begin(&larder, "cache/app", &[]).await;
    // Its body breaks off; what came before is kept, to the last byte.
    drop(Slow::send(&larder, "PATCH", &location, 900_000, &whole[..300_001]).await);
    push::until(&larder, &location, "0-300000").await;
    let mut answer = client::Answer::default();
    crate::support::larder::eventually("the other one is noticed to be gone", async || {
        answer =
            push::send(&larder, "PATCH", &location, &[("Content-Range", "300001-599999")], &whole[300_001..600_000])
                .await;
        answer.status != 416
    })
    .await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-599999"));
    let left = push::left(&larder);
    std::fs::write(larder.data().join("spool/uploads/stray"), "x").unwrap();
    larder.stop().await;
    larder.start().await;
    assert_eq!(push::left(&larder), left, "what has no record goes at the start");
    for (location, range) in [(&location, "0-599999"), (&empty, "0-0")] {
        assert_eq!(&push::range(&larder, location).await, range);
    }
    let answer = push::send(&larder, "PATCH", &location, &[], &whole[600_000..800_000]).await;
    assert_eq!(answer.header("range"), "0-799999");
    larder.stop().await;
    larder.start().await;
    let answer = push::send(&larder, "PUT", &push::with_digest(&location, &digest), &[], &whole[800_000..]).await;
    is_created(&larder, &answer, &digest, &whole).await;
    let answer = push::send(&larder, "PUT", &push::with_digest(&empty, &digest), &[], &whole).await;
    is_created(&larder, &answer, &digest, &whole).await;
    assert_eq!(push::left(&larder), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_lost_bytes_is_unknown_after_the_start() {
    let mut larder = larder().await;
    let (short, gone) = (push::begin(&larder, "cache/app", &[]).await, push::begin(&larder, "cache/app", &[]).await);
    for location in [&short, &gone] {
        push::send(&larder, "PATCH", location, &[], &bytes(11, 200_000)).await;
    }
    larder.stop().await;
    let file = |location: &str| larder.data().join("spool/uploads").join(location.rsplit('/').next().unwrap());
    std::fs::File::options().write(true).open(file(&short)).unwrap().set_len(199_999).unwrap();
    std::fs::remove_file(file(&gone)).unwrap();
    larder.start().await;
    for location in [&short, &gone] {
        assert_eq!(larder.get(location).await.code(), "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(push::left(&larder), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_uploads_of_one_blob_are_all_kept() {
    let larder = larder().await;
    let whole = bytes(12, 600_000);
    let digest = Digest::of(&whole);
    let pushes = (0..16).map(|n| {
        let repository = format!("cache/app{}", n % 3);
        let (larder, whole) = (&larder, &whole);
        async move { push::push(larder, &repository, whole).await }
    });
    futures_util::future::join_all(pushes).await;
    for n in 0..3 {
        pulls(&larder, &format!("/v2/cache/app{n}/blobs/{digest}"), &digest, &whole).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_repaired_by_pushing_it_again() {
    let larder = larder().await;
    let whole = bytes(13, 300_000);
    let digest = push::push(&larder, "cache/app", &whole).await;
    let path = format!("/v2/cache/app/blobs/{digest}");
    pulls(&larder, &path, &digest, &whole).await;
    std::fs::File::options().write(true).open(larder.file_of(&digest)).unwrap().set_len(299_999).unwrap();
    assert_eq!(larder.get(&path).await.status, 500);
    push::push(&larder, "cache/app", &whole).await;
    pulls(&larder, &path, &digest, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_keep_the_spelling_of_the_request() {
    let larder = larder().await;
    let whole = bytes(14, 1_000);
    let own = larder.address.to_string().replace(':', "%3A");
    for (path, blobs, query) in [
        ("/v2/cache/app/blobs/uploads".to_owned(), "/v2/cache/app/blobs/", String::new()),
        (format!("/v2/cache/app/blobs/uploads/?ns={own}"), "/v2/cache/app/blobs/", format!("?ns={own}")),
        ("/t/abc/v2/cache/app/blobs/uploads/".to_owned(), "/t/abc/v2/cache/app/blobs/", String::new()),
        ("/v2/cache/blobs/blobs/uploads/".to_owned(), "/v2/cache/blobs/blobs/", String::new()),
    ] {
        let begun = larder.ask("POST", &path, &[]).await;
        let session = begun.header("docker-upload-uuid");
        assert_eq!(begun.header("location"), format!("{blobs}uploads/{session}{query}"), "{path}");
        let digest = Digest::of(&whole);
        let put = push::with_digest(begun.header("location"), &digest);
        let answer = push::send(&larder, "PUT", &put, &[], &whole).await;
        assert_eq!(answer.header("location"), format!("{blobs}{digest}{query}"), "{path}");
        is_created(&larder, &answer, &digest, &whole).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proxied_repositories_take_no_uploads() {
    let larder = larder().await;
    let session = push::begin(&larder, "cache/app", &[]).await;
    let session = session.rsplit('/').next().unwrap();
    for repository in ["library/app", "docker.io/cache/app"] {
        for (method, path) in [
            ("POST", String::new()),
            ("POST", format!("?mount={}&from=cache/app", Digest::of(b"x"))),
            ("PATCH", session.to_owned()),
            ("PUT", format!("{session}?digest={}", Digest::of(b"x"))),
            ("GET", session.to_owned()),
            ("DELETE", session.to_owned()),
        ] {
            let answer = larder.ask(method, &format!("/v2/{repository}/blobs/uploads/{path}"), &[]).await;
            assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{repository} {method} {path}");
        }
    }
}
