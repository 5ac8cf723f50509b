//! A store without room: what is held is served, what is not passes through, and the process goes on.

use std::path::Path;
use std::process::Command;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;

/// A small file system of its own, in memory.
struct Small(std::path::PathBuf);

impl Small {
    /// Mounts it; `None` where this process may not (it takes root).
    fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={mebibytes}M");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "larder-test"]).arg(at).status();
        mounted.is_ok_and(|s| s.success()).then(|| Self(at.to_owned()))
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
    let Some(_small) = Small::mount(&data, 24) else {
        eprintln!("not run: mounting a small file system takes root");
        return;
    };
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
    let Some(small) = Small::mount(&data, 24) else {
        eprintln!("not run: mounting a small file system takes root");
        return;
    };
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
