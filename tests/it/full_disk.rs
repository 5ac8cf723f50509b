//! A store without room: what is held is served, what is not passes through, and the process goes on.

#![expect(clippy::print_stderr, reason = "a test that could not be run says so")]

use std::path::Path;
use std::process::Command;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::larder::eventually;
use crate::support::larder::files;

/// A small file system of its own, in memory.
struct Small(std::path::PathBuf);

impl Small {
    /// Mounts it; `None` where this process may not (it takes root).
    fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        Self::mount_with(at, &format!("size={mebibytes}M"))
    }

    fn mount_with(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "larder-test"]).arg(at).status();
        let small = mounted.is_ok_and(|s| s.success()).then(|| Self(at.to_owned()));
        if small.is_none() {
            eprintln!("not run: mounting a small file system takes root");
        }
        small
    }

    /// Takes all room but so many bytes; what it gives takes it until it is removed.
    fn take_all_but(&self, bytes: u64) -> std::path::PathBuf {
        let path = self.0.join("taken");
        let mut file = std::fs::File::create(&path).unwrap();
        while std::io::Write::write(&mut file, &[7; 4096]).is_ok_and(|written| written > 0) {}
        let taken = file.metadata().unwrap().len();
        file.set_len(taken.saturating_sub(bytes)).unwrap();
        path
    }

    fn remount(&self, how: &str) {
        assert!(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_passes_through_and_what_is_held_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(_small) = Small::mount(&data, 24) else { return };
    let mut upstream = Upstream::start().await;
    let (held, large) = (image(70, &[500_000]), image(71, &[40 << 20]));
    upstream.add("library/held", "1", &held);
    upstream.add("library/large", "1", &large);
    let larder = Larder::at(&upstream, &data).await;
    assert_eq!(larder.manifest("library/held", "1").await.status, 200);
    larder.settled().await;
    let (digest, bytes) = large.blob(1);
    for range in [None, Some("bytes=1000-1999"), Some("bytes=41942940-")] {
        let answer = match range {
            None => larder.blob("library/large", &digest).await,
            Some(range) => larder.ranged("library/large", &digest, range).await,
        };
        let want = match range {
            None => &bytes[..],
            Some("bytes=1000-1999") => &bytes[1000..2000],
            Some(_) => &bytes[41_942_940..],
        };
        assert!(answer.complete && answer.body[..] == *want, "{range:?}: {} {}", answer.status, answer.body.len());
        assert!(answer.header("cache-status").contains("not-stored"), "{}", answer.header("cache-status"));
    }
    upstream.stop().await;
    let (digest, bytes) = held.blob(1);
    assert!(larder.manifest("library/held", "1").await.body[..] == held.manifest[..]);
    assert!(larder.blob("library/held", &digest).await.body[..] == bytes[..]);
    assert_eq!(larder.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_is_read_only_is_served_from() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(small) = Small::mount(&data, 24) else { return };
    let upstream = Upstream::start().await;
    let (held, cold) = (image(72, &[500_000]), image(73, &[500_000]));
    upstream.add("library/held", "1", &held);
    upstream.add("library/cold", "1", &cold);
    let mut larder = Larder::at(&upstream, &data).await;
    assert_eq!(larder.manifest("library/held", "1").await.status, 200);
    larder.settled().await;
    larder.stop().await;
    small.remount("ro");
    larder.start().await;
    upstream.forget();
    assert!(larder.manifest("library/held", "1").await.body[..] == held.manifest[..]);
    assert!(larder.blob("library/held", &held.blob(1).0).await.body[..] == held.blob(1).1[..]);
    assert_eq!(upstream.asked_anything(), 0);
    assert!(larder.manifest("library/cold", "1").await.body[..] == cold.manifest[..]);
    assert!(larder.blob("library/cold", &cold.blob(1).0).await.body[..] == cold.blob(1).1[..]);
    let ready = larder.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(String::from_utf8_lossy(&ready.body).contains("read-only"), "{:?}", ready.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_seeing_the_same_while_the_disk_takes_no_writes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(small) = Small::mount(&data, 24) else { return };
    let upstream = Upstream::start().await;
    let (old, new) = (image(74, &[1000]), image(75, &[1000]));
    upstream.add("library/app", "1", &old);
    let always = r#", "freshness": [{"match": "**", "fresh_for": "0s", "stale_while_revalidate": "0s"}]"#;
    let larder = Larder::configured_at(&upstream, &data, always).await;
    assert_eq!(larder.manifest("library/app", "1").await.status, 200);
    larder.settled().await;
    let taken = small.take_all_but(0);
    larder.says("\"store\":\"full\"").await;
    let seen = async |run: &str| larder.get(&format!("/run/{run}/v2/library/app/manifests/1")).await;
    assert!(seen("a").await.body[..] == old.manifest[..]);
    upstream.add("library/app", "1", &new);
    assert!(larder.manifest("library/app", "1").await.body[..] == new.manifest[..]);
    for _ in 0..2 {
        assert!(seen("a").await.body[..] == old.manifest[..]);
    }
    assert!(files(&data.join("state/runs")).is_empty());
    std::fs::remove_file(taken).unwrap();
    larder.says("\"store\":\"ok\"").await;
    // Another run begins, and what was kept in memory alone is written with it.
    assert!(seen("b").await.body[..] == new.manifest[..]);
    eventually("both are written", async || files(&data.join("state/runs")).len() == 2).await;
}

/// A pull of all of an image, each byte looked at; the store may or may not keep it.
async fn pull(larder: &Larder, name: &str, image: &Image, what: &str) {
    let manifest = larder.manifest(name, "1").await;
    assert_eq!(manifest.status, 200, "{what}");
    assert!(manifest.body[..] == image.manifest[..], "{what}");
    for (digest, bytes) in &image.blobs {
        let blob = larder.blob(name, digest).await;
        assert_eq!((blob.status, blob.complete), (200, true), "{what}");
        assert!(blob.body[..] == bytes[..], "{what}");
    }
}

/// Pulled now, an image is kept: it is served without its upstream.
async fn stores_again(larder: &Larder, upstream: &Upstream, name: &str, image: &Image) {
    larder.says("\"store\":\"ok\"").await;
    eventually("it is stored again", async || {
        pull(larder, name, image, "stored again").await;
        larder.settled().await;
        upstream.forget();
        pull(larder, name, image, "stored again").await;
        upstream.asked(|s| s.method == "GET").is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_file_system_that_is_full_to_its_last_byte_serves_and_stores_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(small) = Small::mount(&data, 24) else { return };
    let upstream = Upstream::start().await;
    let (held, cold) = (image(74, &[500_000]), image(75, &[100_000]));
    upstream.add("library/held", "1", &held);
    upstream.add("library/cold", "1", &cold);
    let mut larder = Larder::at(&upstream, &data).await;
    for orderly in [true, false] {
        pull(&larder, "library/held", &held, "held").await;
        larder.settled().await;
        larder.stop().await;
        if !orderly {
            let _ = std::fs::remove_file(data.join("ballast"));
        }
        let taken = small.take_all_but(0);
        larder.start().await;
        upstream.forget();
        pull(&larder, "library/held", &held, "full at the start").await;
        assert_eq!(upstream.asked(|s| s.method == "GET").len(), 0);
        pull(&larder, "library/cold", &cold, "full at the start").await;
        larder.says("\"store\":\"full\"").await;
        std::fs::remove_file(taken).unwrap();
    }
    stores_again(&larder, &upstream, "library/cold", &cold).await;
    larder.stop().await;
    larder.start().await;
    upstream.forget();
    pull(&larder, "library/cold", &cold, "after all").await;
    assert_eq!(upstream.asked(|s| s.method == "GET").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_fills_up_at_any_write_costs_nobody_a_pull_and_nothing_that_was_held() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(small) = Small::mount(&data, 16) else { return };
    let upstream = Upstream::start().await;
    let held = image(76, &[300_000]);
    upstream.add("library/held", "1", &held);
    // Without a reserve each write may be the one that finds no room.
    let mut larder = Larder::configured_at(&upstream, &data, r#", "store": {"reserve_free": "0B"}"#).await;
    pull(&larder, "library/held", &held, "held").await;
    larder.settled().await;
    for pages in (0..12).chain((12..80).step_by(7)) {
        let taken = small.take_all_but(pages * 4096);
        let name = format!("library/app{pages}");
        let cold = image(1000 + pages, &[40_000]);
        upstream.add(&name, "1", &cold);
        pull(&larder, &name, &cold, &format!("{pages} pages left")).await;
        larder.settled().await;
        upstream.forget();
        pull(&larder, "library/held", &held, &format!("{pages} pages left")).await;
        assert_eq!(upstream.asked(|s| s.method == "GET").len(), 0, "{pages} pages left");
        std::fs::remove_file(taken).unwrap();
        stores_again(&larder, &upstream, &name, &cold).await;
        if pages % 5 == 0 {
            larder.stop().await;
            larder.start().await;
            upstream.forget();
            pull(&larder, &name, &cold, "after a start").await;
            assert_eq!(upstream.asked(|s| s.method == "GET").len(), 0, "{pages} pages left");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_without_inodes_is_a_full_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(_small) = Small::mount_with(&data, "size=24M,nr_inodes=400") else { return };
    let upstream = Upstream::start().await;
    let held = image(77, &[300_000]);
    upstream.add("library/held", "1", &held);
    let larder = Larder::at(&upstream, &data).await;
    pull(&larder, "library/held", &held, "held").await;
    larder.settled().await;
    for left in 0..8 {
        let crowd = data.join("crowd");
        std::fs::create_dir(&crowd).unwrap();
        let made = (0..1000).take_while(|n: &usize| std::fs::write(crowd.join(n.to_string()), "").is_ok()).count();
        for n in 0..left.min(made) {
            std::fs::remove_file(crowd.join(n.to_string())).unwrap();
        }
        let name = format!("library/app{left}");
        let cold = image(1100 + left as u64, &[40_000]);
        upstream.add(&name, "1", &cold);
        pull(&larder, &name, &cold, &format!("{left} inodes left")).await;
        pull(&larder, "library/held", &held, &format!("{left} inodes left")).await;
        std::fs::remove_dir_all(crowd).unwrap();
        stores_again(&larder, &upstream, &name, &cold).await;
    }
}

/// A folder in which nothing may be made or removed.
struct Immutable(std::path::PathBuf);

impl Immutable {
    fn make(folder: &Path) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(folder).output();
        let made = made.is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()));
        if made.is_none() {
            eprintln!("not run: this user or file system has no immutable folders");
        }
        made
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_may_not_be_written_makes_the_store_read_only_until_it_may() {
    let upstream = Upstream::start().await;
    let (held, cold) = (image(78, &[300_000]), image(79, &[300_000]));
    upstream.add("library/held", "1", &held);
    upstream.add("library/cold", "1", &cold);
    let larder = Larder::before(&upstream).await;
    pull(&larder, "library/held", &held, "held").await;
    larder.settled().await;
    for part in ["blobs", "repositories", "spool/fills", "index.redb"] {
        let Some(immutable) = Immutable::make(&larder.data().join(part)) else { return };
        larder.says("\"store\":\"read-only\"").await;
        upstream.forget();
        pull(&larder, "library/held", &held, part).await;
        assert_eq!(upstream.asked(|s| s.method == "GET").len(), 0, "{part}");
        pull(&larder, "library/cold", &cold, part).await;
        assert_eq!(larder.get("/healthz").await.status, 200);
        drop(immutable);
        larder.says("\"store\":\"ok\"").await;
        pull(&larder, "library/held", &held, part).await;
        larder.settled().await;
    }
    stores_again(&larder, &upstream, "library/cold", &cold).await;
}
