use std::process::Command;

use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::store::spool::Spool;

use super::*;

/// A small file system of its own; it goes with the value.
struct Small(tempfile::TempDir);

impl Small {
    /// None, with a message, where this user may not mount.
    fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "larder-test"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: this user may not mount a file system");
            return None;
        }
        Some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", options]).arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

#[test]
fn a_reserve_larger_than_a_twentieth_of_the_file_system_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::open(folder.path(), u64::MAX).unwrap();
    let seen = rustix::fs::statvfs(folder.path()).unwrap();
    assert_eq!(space.0.reserve, seen.f_blocks * seen.f_frsize / 20);
    assert!(!space.has_room_for(u64::MAX));
}

#[test]
fn the_ballast_is_laid_by_and_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(std::fs::metadata(folder.path().join("ballast")).unwrap().len(), 1 << 18);
    space.drop_ballast().unwrap();
    space.drop_ballast().unwrap();
    assert!(!folder.path().join("ballast").exists());
}

#[test]
fn a_refused_write_shows_until_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::open(folder.path(), 0).unwrap();
    space.refused(&io::ErrorKind::NotFound.into());
    assert_eq!(space.state(), PressureState::Ok);
    space.refused(&io::ErrorKind::QuotaExceeded.into());
    assert_eq!(space.state(), PressureState::Full);
    space.look().unwrap();
    assert_eq!(space.state(), PressureState::Ok);
}

#[test]
fn the_reserve_is_full_before_the_file_system_is_and_the_ballast_is_part_of_it() {
    let Some(small) = Small::mount("size=4M") else { return };
    let space = Space::open(small.path(), 1 << 20).unwrap();
    // A twentieth of 4 MiB, a quarter of it laid by.
    assert_eq!(space.0.reserve, (4 << 20) / 20);
    let with = space.look().unwrap();
    space.drop_ballast().unwrap();
    let without = space.look().unwrap();
    assert!(with.free.abs_diff(without.free) <= 8192, "{with:?} {without:?}");
    std::fs::write(small.path().join("x"), vec![1; (4 << 20) - (100 << 10)]).unwrap();
    assert_eq!(space.look().unwrap(), Pressure { free: 0, state: PressureState::Full });
    std::fs::remove_file(small.path().join("x")).unwrap();
    assert_eq!(space.look().unwrap().state, PressureState::Ok);
}

#[test]
fn a_file_system_without_inodes_is_full_and_one_made_read_only_is_that() {
    let Some(small) = Small::mount("size=4M,nr_inodes=20") else { return };
    let space = Space::open(small.path(), 1 << 20).unwrap();
    let made = (0..30).take_while(|n| std::fs::write(small.path().join(n.to_string()), "").is_ok()).count();
    assert!(made < 30);
    assert_eq!(space.look().unwrap().state, PressureState::Full);
    small.remount("remount,ro");
    assert_eq!(space.look().unwrap().state, PressureState::ReadOnly);
}

#[tokio::test]
async fn a_file_that_does_not_fit_is_refused_before_anything_is_promised() {
    let Some(small) = Small::mount("size=4M") else { return };
    let space = Space::open(small.path(), 100 << 10).unwrap();
    let spool = Spool::open(&small.path().join("spool")).unwrap().within(&space);
    let refused = spool.create(Some(5 << 20), Algorithm::Sha256).await.unwrap_err();
    assert_eq!(refused.source.kind(), io::ErrorKind::StorageFull);
    // One that takes the reserve does not fit either, though the file system has that room.
    let all = space.look().unwrap().free;
    assert!(spool.create(Some(all + 8192), Algorithm::Sha256).await.is_err());
    assert_eq!((spool.bytes(), std::fs::read_dir(small.path().join("spool/fills")).unwrap().count()), (0, 0));
    drop(spool.create(Some(2 << 20), Algorithm::Sha256).await.unwrap());
}

#[tokio::test]
async fn a_disk_that_fills_up_under_a_transfer_breaks_its_readers() {
    let Some(small) = Small::mount("size=1M") else { return };
    let spool = Spool::open(&small.path().join("spool")).unwrap();
    let spooled = spool.create(None, Algorithm::Sha256).await.unwrap();
    let mut reader = spooled.follow(None);
    let mut outcome = Ok(());
    for n in 0..16 {
        outcome = spooled.write(n << 18, Bytes::from(vec![7; 1 << 18])).await;
        if outcome.is_err() {
            break;
        }
    }
    let error = match outcome {
        Ok(()) => spooled.flush().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
    assert!(!spooled.revive());
    assert!(spooled.seal(Digest::of(b"")).await.is_err());
    while let Some(part) = reader.next().await {
        if part.is_err() {
            return;
        }
    }
    panic!("the reader saw a clean end");
}
