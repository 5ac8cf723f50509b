//! An index that can't be relied on is made anew, and nothing that was acknowledged is missing, then or meanwhile.

use std::fs;

use super::*;

const REPOSITORY: &str = "docker.io/library/alpine";

impl Running {
    async fn wait_until_complete(&self) {
        let mut completeness = self.completeness();
        completeness.wait_for(|now| *now == Completeness::Complete).await.unwrap();
    }
}

/// Twenty images in a proxied repository and one, with a referrer, in a hosted one.
async fn fill(store: &Store) -> Vec<Manifest> {
    let mut images = Vec::new();
    for round in 0..20 {
        images
            .push(put_image(store, REPOSITORY, Origin::Proxied, &format!("t{round}"), &format!("layer {round}")).await);
    }
    let subject = put_image(store, "_hosted/cache/app", Origin::Pushed, "main", "pushed").await;
    let signature = manifest(&["pushed"], Some(&subject.digest()));
    store.commit(&of("_hosted/cache/app"), Origin::Pushed, vec![put_manifest(&signature)]).await.unwrap();
    images
}

async fn is_whole(store: &Store, images: &[Manifest]) {
    for (round, image) in images.iter().enumerate() {
        let state = store.tag(&of(REPOSITORY), &tag(&format!("t{round}"))).await.unwrap().unwrap();
        assert_eq!(state.record.digest, image.digest());
        let held = store.held(&of(REPOSITORY), &image.digest()).await.unwrap().unwrap();
        assert_eq!(held.manifest(), Some(&image.bytes));
        let layer = Digest::of(format!("layer {round}").as_bytes());
        assert_eq!(Digest::of(&bytes_of(&store.held(&of(REPOSITORY), &layer).await.unwrap().unwrap()).await), layer);
    }
}

/// What only the index answers.
async fn is_indexed(store: &Store, images: &[Manifest]) {
    let tags = store.tags(&of(REPOSITORY), None, 100).await.unwrap().rows;
    assert_eq!(tags.len(), images.len());
    let repositories = store.repositories(None, 100).await.unwrap().rows;
    assert_eq!(repositories, [of("_hosted/cache/app"), of(REPOSITORY)]);
    let main = store.tag(&of("_hosted/cache/app"), &tag("main")).await.unwrap().unwrap();
    let referrers = store.referrers(&of("_hosted/cache/app"), &main.record.digest, None, 10).await.unwrap();
    assert_eq!(referrers.rows.len(), 1);
    let layer = Digest::of(b"layer 0");
    assert_eq!(store.links(&of(REPOSITORY), None, 100).await.unwrap().rows.len(), 2 * images.len());
    assert!(store.is_named(&of(REPOSITORY), &layer).await.unwrap());
    assert_eq!(store.present(&layer).await.unwrap(), Some(7));
}

/// Does `harm` to the index between two starts; the second must find it out, and make it anew.
async fn is_made_anew(harm: impl FnOnce(&Bench)) {
    let bench = Bench::new();
    let store = bench.open().await;
    let images = fill(&store).await;
    let stored = store.stored();
    store.close().await;
    harm(&bench);
    let store = bench.open().await;
    // Nothing has run since.
    assert_ne!(*store.completeness().borrow(), Completeness::Complete, "nothing was found out");
    // At once, whether it is being made anew or not.
    is_whole(&store, &images).await;
    store.wait_until_complete().await;
    is_whole(&store, &images).await;
    is_indexed(&store, &images).await;
    assert_eq!(store.stored(), stored);
    store.close().await;
    let store = bench.open().await;
    assert_eq!(*store.completeness().borrow(), Completeness::Complete);
    is_indexed(&store, &images).await;
}

#[tokio::test]
async fn a_missing_index_is_made_anew() {
    is_made_anew(|bench| fs::remove_file(bench.path("index.redb")).unwrap()).await;
}

#[tokio::test]
async fn an_index_that_is_no_index_is_made_anew() {
    is_made_anew(|bench| fs::write(bench.path("index.redb"), b"not an index").unwrap()).await;
    is_made_anew(|bench| fs::write(bench.path("index.redb"), b"").unwrap()).await;
}

#[tokio::test]
async fn a_cut_index_is_made_anew() {
    is_made_anew(|bench| {
        let file = fs::OpenOptions::new().write(true).open(bench.path("index.redb")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    })
    .await;
}

#[tokio::test]
async fn another_folders_index_is_made_anew() {
    let other = Bench::new();
    let store = other.open().await;
    put_image(&store, REPOSITORY, Origin::Proxied, "t0", "theirs").await;
    store.close().await;
    is_made_anew(|bench| {
        fs::copy(other.path("index.redb"), bench.path("index.redb")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_older_index_is_made_anew() {
    let bench = Bench::new();
    let store = bench.open().await;
    put_image(&store, REPOSITORY, Origin::Proxied, "t0", "older").await;
    store.close().await;
    fs::copy(bench.path("index.redb"), bench.path("copy")).unwrap();
    let store = bench.open().await;
    let images = fill(&store).await;
    store.close().await;
    fs::copy(bench.path("copy"), bench.path("index.redb")).unwrap();
    let store = bench.open().await;
    is_whole(&store, &images).await;
    store.wait_until_complete().await;
    assert_eq!(store.tags(&of(REPOSITORY), None, 100).await.unwrap().rows.len(), images.len());
}

#[tokio::test]
async fn a_tree_whose_epoch_is_lost_keeps_everything() {
    is_made_anew(|bench| fs::remove_file(bench.path("state/store/epoch")).unwrap()).await;
    is_made_anew(|bench| fs::write(bench.path("state/store/epoch"), b"nonsense").unwrap()).await;
}

#[tokio::test]
async fn a_relaxed_index_is_made_anew_when_the_machine_went_down() {
    let bench = Bench { durability: Durability::Relaxed, ..Bench::new() };
    let store = bench.open().await;
    let images = fill(&store).await;
    store.crash().await;
    let store = bench.open().await;
    assert_eq!(*store.completeness().borrow(), Completeness::Complete, "the machine did not go down");
    store.0.tree.put_epoch(&store.0.epoch.before_another_boot()).await.unwrap();
    store.crash().await;
    let store = bench.open().await;
    assert_ne!(*store.completeness().borrow(), Completeness::Complete);
    store.wait_until_complete().await;
    is_indexed(&store, &images).await;
}

#[tokio::test]
async fn flipped_bits_of_the_index_lose_nothing() {
    let bench = Bench { durability: Durability::Relaxed, ..Bench::new() };
    let store = bench.open().await;
    let images = fill(&store).await;
    store.close().await;
    let path = bench.path("index.redb");
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        let mut bytes = fs::read(&path).unwrap();
        for _ in 0..=round % 4 {
            let bit = random.usize(..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        fs::write(&path, bytes).unwrap();
        let store = bench.open().await;
        is_whole(&store, &images).await;
        store.0.index.verify().await.ok();
        store.wait_until_sound().await;
        is_whole(&store, &images).await;
        is_indexed(&store, &images).await;
        store.close().await;
    }
}

impl Running {
    /// Until the keeper has looked at the index, and has made it anew where that was needed.
    async fn wait_until_sound(&self) {
        loop {
            let mut completeness = self.completeness();
            completeness.wait_for(|now| *now == Completeness::Complete).await.unwrap();
            if *self.0.index.health().borrow() == index::Health::Well {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_is_committed_during_a_rebuild_is_in_the_index_afterwards() {
    let bench = Bench::new();
    let store = bench.open().await;
    let images = fill(&store).await;
    let rebuilding = store.rebuild();
    let committing = async {
        for round in 0..10 {
            put_image(&store, "docker.io/new", Origin::Proxied, &format!("t{round}"), &format!("new {round}")).await;
            let drops = vec![Drop::Tag(tag(&format!("t{round}")))];
            if round % 2 == 0 {
                store.evict(&of("docker.io/new"), drops).await.unwrap();
            }
        }
    };
    let (rebuilt, ()) = futures_util::future::join(rebuilding, committing).await;
    rebuilt.unwrap();
    assert_eq!(store.tags(&of("docker.io/new"), None, 100).await.unwrap().rows.len(), 5);
    assert_eq!(store.links(&of("docker.io/new"), None, 100).await.unwrap().rows.len(), 20);
    assert_eq!(store.tags(&of(REPOSITORY), None, 100).await.unwrap().rows.len(), images.len());
}

#[tokio::test]
async fn while_the_index_is_incomplete_what_it_alone_knows_is_an_error_and_nothing_is_removed() {
    let bench = Bench::new();
    let store = bench.open().await;
    let image = put_image(&store, REPOSITORY, Origin::Proxied, "t0", "layer").await;
    store.0.index.clear().await.unwrap();
    store.0.completeness.send_replace(Completeness::Rebuilding { done: 0 });
    let repository = of(REPOSITORY);
    assert!(matches!(store.referrers(&repository, &image.digest(), None, 10).await, Err(Error::Incomplete)));
    assert!(matches!(store.present(&image.digest()).await, Err(Error::Incomplete)));
    let link = vec![Put::Link { digest: image.digest() }];
    let mount = store.commit(&of("docker.io/b"), Origin::Proxied, link).await;
    assert!(matches!(mount, Err(Error::Incomplete)));
    assert!(store.tag(&repository, &tag("t0")).await.unwrap().is_some());
    assert!(store.tag(&repository, &tag("none")).await.unwrap().is_none());
    let drops = vec![Drop::Tag(tag("t0")), Drop::Link(Digest::of(b"layer"))];
    assert_eq!(store.evict(&repository, drops).await.unwrap(), 0);
    assert!(store.tag(&repository, &tag("t0")).await.unwrap().is_none());
    assert!(bench.blob_path(&Digest::of(b"layer")).exists());
}
