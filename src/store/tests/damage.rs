//! Stored bytes that are not what they were: never a wrong answer, and mended as soon as somebody has the right ones.

use std::fs;

use super::*;

const HOSTED: &str = "_hosted/cache/app";
const PROXIED: &str = "docker.io/library/alpine";

fn cut(path: &std::path::Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
}

fn flip(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_cut_blob_of_an_upstream_is_as_if_it_had_never_been_fetched() {
    let bench = Bench::new();
    let store = bench.open().await;
    put_image(&store, PROXIED, Origin::Proxied, "1", "layer").await;
    let digest = Digest::of(b"layer");
    for harm in [cut, |path: &std::path::Path| fs::remove_file(path).unwrap()] {
        harm(&bench.blob_path(&digest));
        assert!(store.held(&of(PROXIED), &digest).await.unwrap().is_none());
        assert!(store.0.tree.link(&of(PROXIED), &digest).await.unwrap().is_none());
        let put = vec![blob(&store, "layer").await];
        store.commit(&of(PROXIED), Origin::Proxied, put).await.unwrap();
        assert_eq!(bytes_of(&store.held(&of(PROXIED), &digest).await.unwrap().unwrap()).await, b"layer");
        store.0.hot.forget_everywhere(&digest);
    }
}

#[tokio::test]
async fn a_cut_blob_that_was_pushed_is_an_error_until_it_is_pushed_again() {
    let bench = Bench::new();
    let store = bench.open().await;
    put_image(&store, HOSTED, Origin::Pushed, "main", "layer").await;
    let digest = Digest::of(b"layer");
    cut(&bench.blob_path(&digest));
    for _ in 0..2 {
        let damaged = store.held(&of(HOSTED), &digest).await;
        assert!(matches!(damaged, Err(Error::Damaged { digest: named }) if named == digest));
    }
    // Told once in the metric, however often it was met.
    assert!(store.0.metrics.encode().contains("larder_scrub_failures_total 1"));
    let put = vec![blob(&store, "layer").await];
    store.commit(&of(HOSTED), Origin::Pushed, put).await.unwrap();
    assert_eq!(bytes_of(&store.held(&of(HOSTED), &digest).await.unwrap().unwrap()).await, b"layer");
}

#[tokio::test]
async fn a_manifest_with_a_flipped_bit_is_found_when_it_is_read() {
    let bench = Bench::new();
    let store = bench.open().await;
    let pushed = put_image(&store, HOSTED, Origin::Pushed, "main", "pushed").await.digest();
    let proxied = put_image(&store, PROXIED, Origin::Proxied, "1", "proxied").await.digest();
    for digest in [pushed, proxied] {
        flip(&bench.blob_path(&digest));
    }
    assert!(matches!(store.held(&of(HOSTED), &pushed).await, Err(Error::Damaged { .. })));
    assert!(store.held(&of(PROXIED), &proxied).await.unwrap().is_none());
}

#[tokio::test]
async fn quarantine_forgets_what_an_upstream_has_and_marks_what_was_pushed() {
    let bench = Bench::new();
    let store = bench.open().await;
    put_image(&store, HOSTED, Origin::Pushed, "main", "layer").await;
    put_image(&store, PROXIED, Origin::Proxied, "1", "layer").await;
    let digest = Digest::of(b"layer");
    assert!(store.held(&of(HOSTED), &digest).await.unwrap().is_some());
    flip(&bench.blob_path(&digest));
    store.quarantine(&BlobKey { digest, generation: 0 }).await.unwrap();
    assert!(matches!(store.held(&of(HOSTED), &digest).await, Err(Error::Damaged { .. })));
    assert!(store.held(&of(PROXIED), &digest).await.unwrap().is_none());
    assert_eq!(store.present(&digest).await.unwrap(), None);
    let link = store.commit(&of(PROXIED), Origin::Proxied, vec![Put::Link { digest }]).await;
    assert!(matches!(link, Err(Error::Missing { .. })));
    // A fetch for the other repository mends both.
    let put = vec![blob(&store, "layer").await];
    store.commit(&of(PROXIED), Origin::Proxied, put).await.unwrap();
    assert_eq!(bytes_of(&store.held(&of(HOSTED), &digest).await.unwrap().unwrap()).await, b"layer");
}

#[tokio::test]
async fn a_row_that_the_index_lost_is_found_in_the_tree_and_doubts_the_index() {
    let bench = Bench::new();
    let store = bench.open().await;
    let image = put_image(&store, PROXIED, Origin::Proxied, "1", "layer").await;
    let lost = vec![
        index::Change::DropLink { of: of(PROXIED), digest: image.digest() },
        index::Change::DropTag { of: of(PROXIED), tag: tag("1") },
    ];
    store.0.index.apply(None, lost).await.unwrap();
    store.0.hot.forget_everywhere(&image.digest());
    store.0.hot.forget_tag(&of(PROXIED), &tag("1"));
    assert!(store.held(&of(PROXIED), &image.digest()).await.unwrap().is_some());
    assert!(store.tag(&of(PROXIED), &tag("1")).await.unwrap().is_some());
    // The index is made anew by itself.
    while store.0.index.link(&of(PROXIED), &image.digest()).await.ok().flatten().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_damaged_record_of_a_pushed_link_is_written_anew_by_a_rebuild() {
    let bench = Bench::new();
    let store = bench.open().await;
    let image = put_image(&store, HOSTED, Origin::Pushed, "main", "layer").await;
    for digest in [image.digest(), Digest::of(b"layer")] {
        flip(&bench.path(&format!("repositories/{HOSTED}/_links/sha256/{}", digest.hex())));
    }
    store.rebuild().await.unwrap();
    store.0.sweep().await.unwrap();
    let held = store.held(&of(HOSTED), &image.digest()).await.unwrap().unwrap();
    assert_eq!(held.manifest(), Some(&image.bytes));
    assert_eq!(held.link.origin, Origin::Pushed);
    assert!(store.is_named(&of(HOSTED), &Digest::of(b"layer")).await.unwrap());
    assert!(store.held(&of(HOSTED), &Digest::of(b"layer")).await.unwrap().is_some());
}
