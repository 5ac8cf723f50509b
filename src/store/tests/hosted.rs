//! What is pushed under conditions, and what clients remove.

use super::*;

const REPOSITORY: &str = "_hosted/cache/app";

fn nothing_is_fixed() -> Arc<dyn Fn(&Tag) -> bool + Send + Sync> {
    Arc::new(|_| false)
}

async fn push_blob(store: &Store, text: &str) {
    let put = vec![blob(store, text).await];
    store.commit_if(&of(REPOSITORY), put, Vec::new()).await.unwrap();
}

/// Pushes a manifest of one layer under a tag, as `push` does.
async fn push(store: &Store, name: &str, layer: &str, more: Vec<Condition>) -> Result<Manifest> {
    let image = manifest(&[layer], None);
    let mut conditions = vec![Condition::Linked(Digest::of(layer.as_bytes()))];
    conditions.extend(more);
    store.commit_if(&of(REPOSITORY), vec![put_manifest(&image), tag_of(name, &image)], conditions).await?;
    Ok(image)
}

async fn remove(store: &Store, removal: Removal) -> Result<bool> {
    store.remove(&of(REPOSITORY), removal, nothing_is_fixed()).await
}

async fn has_tag(store: &Store, name: &str) -> bool {
    store.tag(&of(REPOSITORY), &tag(name)).await.unwrap().is_some()
}

#[tokio::test]
async fn nothing_of_a_manifest_is_kept_while_what_it_names_is_missing() {
    let bench = Bench::new();
    let store = bench.open().await;
    let refused = push(&store, "1", "layer", Vec::new()).await;
    assert!(matches!(refused, Err(Error::Unlinked { digest }) if digest == Digest::of(b"layer")));
    assert!(!has_tag(&store, "1").await);
    // Bytes that another repository has are no link of this one.
    put_image(&store, "_hosted/cache/other", Origin::Pushed, "1", "layer").await;
    assert!(push(&store, "1", "layer", Vec::new()).await.is_err());
    push_blob(&store, "layer").await;
    assert!(push(&store, "1", "layer", Vec::new()).await.is_ok());
    // A blob is no manifest.
    let blob_as_manifest = vec![Condition::HasManifest(Digest::of(b"layer"))];
    assert!(matches!(push(&store, "2", "layer", blob_as_manifest).await, Err(Error::Unlinked { .. })));
}

#[tokio::test]
async fn an_immutable_tag_neither_moves_nor_goes_along_with_its_manifest() {
    let bench = Bench::new();
    let store = bench.open().await;
    for layer in ["one", "two"] {
        push_blob(&store, layer).await;
    }
    let unmoved = |layer| vec![Condition::Unmoved(tag("v1"), manifest(&[layer], None).digest())];
    let one = push(&store, "v1", "one", unmoved("one")).await.unwrap();
    push(&store, "v1", "one", unmoved("one")).await.unwrap();
    let moved = push(&store, "v1", "two", unmoved("two")).await;
    assert!(matches!(moved, Err(Error::Fixed { tag: named }) if named == tag("v1")));
    assert!(store.held(&of(REPOSITORY), &manifest(&["two"], None).digest()).await.unwrap().is_none());
    let fixed: Arc<dyn Fn(&Tag) -> bool + Send + Sync> = Arc::new(|tag| tag.as_str().starts_with('v'));
    for removal in [Removal::Tag(tag("v1")), Removal::Manifest(one.digest())] {
        let refused = store.remove(&of(REPOSITORY), removal, Arc::clone(&fixed)).await;
        assert!(matches!(refused, Err(Error::Fixed { .. })));
    }
    assert!(has_tag(&store, "v1").await);
}

#[tokio::test]
async fn what_a_manifest_names_stays_and_a_manifest_goes_with_its_tags_alone() {
    let bench = Bench::new();
    let store = bench.open().await;
    for layer in ["one", "two"] {
        push_blob(&store, layer).await;
    }
    let one = push(&store, "a", "one", Vec::new()).await.unwrap();
    push(&store, "b", "one", Vec::new()).await.unwrap();
    let two = push(&store, "c", "two", Vec::new()).await.unwrap();
    let layer = Digest::of(b"one");
    assert!(matches!(remove(&store, Removal::Blob(layer)).await, Err(Error::Named { by }) if by == one.digest()));
    // A manifest is removed as a manifest, a blob as a blob.
    assert!(!remove(&store, Removal::Blob(one.digest())).await.unwrap());
    assert!(!remove(&store, Removal::Manifest(layer)).await.unwrap());
    assert!(remove(&store, Removal::Tag(tag("a"))).await.unwrap());
    assert!(has_tag(&store, "b").await && !has_tag(&store, "a").await);
    assert!(remove(&store, Removal::Manifest(one.digest())).await.unwrap());
    assert!(!has_tag(&store, "b").await && has_tag(&store, "c").await);
    assert!(remove(&store, Removal::Blob(layer)).await.unwrap());
    for again in [Removal::Blob(layer), Removal::Manifest(one.digest()), Removal::Tag(tag("b"))] {
        assert!(!remove(&store, again).await.unwrap());
    }
    store.crash().await;
    let store = bench.open().await;
    assert!(!has_tag(&store, "b").await && has_tag(&store, "c").await);
    assert!(store.held(&of(REPOSITORY), &layer).await.unwrap().is_none());
    assert!(store.held(&of(REPOSITORY), &two.digest()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_not_removed_under_a_manifest_that_is_being_pushed() {
    let bench = Bench::new();
    let store = bench.open().await;
    for round in 0..50 {
        let layer = format!("layer {round}");
        push_blob(&store, &layer).await;
        let digest = Digest::of(layer.as_bytes());
        let (pushed, removed) =
            tokio::join!(push(&store, "racing", &layer, Vec::new()), remove(&store, Removal::Blob(digest)),);
        let there = store.held(&of(REPOSITORY), &digest).await.unwrap().is_some();
        assert_eq!(pushed.is_ok(), there, "{pushed:?} {removed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_never_means_a_manifest_that_is_gone() {
    let bench = Bench::new();
    let store = bench.open().await;
    push_blob(&store, "layer").await;
    let image = push(&store, "racing", "layer", Vec::new()).await.unwrap();
    for _ in 0..50 {
        let (pushed, removed) = tokio::join!(
            push(&store, "racing", "layer", Vec::new()),
            remove(&store, Removal::Manifest(image.digest()))
        );
        pushed.unwrap();
        removed.unwrap();
        let there = store.held(&of(REPOSITORY), &image.digest()).await.unwrap().is_some();
        assert_eq!(has_tag(&store, "racing").await, there);
    }
}
