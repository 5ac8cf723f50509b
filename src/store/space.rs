//! The reserve of the file system, and whether there is room.
//!
//! `reserve_free` is never filled. Part of it is a ballast file: where even deletes and a start can't write any more it
//! is let go, and it is made again when there is room.

use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
use rustix::fs::StatVfsMountFlags;
use tokio::sync::watch;

/// The ballast is this part of the reserve, and not more than [`BALLAST_BYTES_MAX`].
const BALLAST_PART: u64 = 4;

/// The most bytes of ballast: what a start must write (an epoch, settled intents, the index's repair) is far less.
const BALLAST_BYTES_MAX: u64 = 16 << 20;

/// The reserve is at most this part of the file system (a twentieth).
const RESERVE_PART_MAX: u64 = 20;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Bytes that are free beyond the reserve.
    pub free: u64,
    /// What that means.
    pub state: PressureState,
}

/// Whether writes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureState {
    /// They are.
    Ok,
    /// The reserve is reached.
    Full,
    /// The file system takes none.
    ReadOnly,
}

/// Watches the file system of a folder.
#[derive(Debug)]
pub struct Space {
    folder: PathBuf,
    reserve: u64,
    pressure: watch::Sender<Pressure>,
}

impl Space {
    /// Looks at the file system of `folder`, of which `reserve` bytes stay free.
    pub fn open(folder: &Path, reserve: u64) -> io::Result<Self> {
        let seen = rustix::fs::statvfs(folder)?;
        let reserve = reserve.min(seen.f_blocks.saturating_mul(seen.f_frsize) / RESERVE_PART_MAX);
        let space = Self {
            folder: folder.to_owned(),
            reserve,
            pressure: watch::Sender::new(Pressure { free: 0, state: PressureState::Ok }),
        };
        space.look()?;
        if let Err(error) = space.take_ballast() {
            tracing::warn!(%error, "no ballast could be laid by; a full disk will hinder deletes");
        }
        Ok(space)
    }

    /// What is known, and what changes about it.
    pub fn pressure(&self) -> watch::Receiver<Pressure> {
        self.pressure.subscribe()
    }

    /// Looks at the file system again.
    pub fn look(&self) -> io::Result<Pressure> {
        let seen = rustix::fs::statvfs(&self.folder)?;
        let available = seen.f_bavail.saturating_mul(seen.f_frsize);
        let state = if seen.f_flag.contains(StatVfsMountFlags::RDONLY) {
            PressureState::ReadOnly
        } else if available < self.reserve || (seen.f_files > 0 && seen.f_favail == 0) {
            PressureState::Full
        } else {
            PressureState::Ok
        };
        let now = Pressure { free: available.saturating_sub(self.reserve), state };
        let before = self.pressure.send_replace(now);
        if before.state != now.state {
            match state {
                PressureState::Ok => tracing::info!(free = now.free, "the store has room again"),
                PressureState::Full => tracing::warn!(
                    reserve = self.reserve,
                    "the store is full: what is held is served, nothing more is kept"
                ),
                PressureState::ReadOnly => {
                    tracing::warn!("the store is read-only: what is held is served, nothing more is kept");
                }
            }
        }
        Ok(now)
    }

    /// Whether `bytes` more may be taken.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let pressure = *self.pressure.borrow();
        pressure.state == PressureState::Ok && pressure.free >= bytes
    }

    /// Lays the ballast by, where there is room.
    pub fn take_ballast(&self) -> io::Result<()> {
        let bytes = (self.reserve / BALLAST_PART).min(BALLAST_BYTES_MAX);
        let path = self.ballast();
        if bytes == 0 || path.exists() || !self.has_room_for(bytes) {
            return Ok(());
        }
        let file = File::create(&path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(|error| {
            drop(std::fs::remove_file(&path));
            error.into()
        })
    }

    /// Lets the ballast go, for what must be written on a full disk.
    pub fn drop_ballast(&self) -> io::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_larger_than_a_twentieth_of_the_file_system_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::open(folder.path(), u64::MAX).unwrap();
        let seen = rustix::fs::statvfs(folder.path()).unwrap();
        assert_eq!(space.reserve, seen.f_blocks * seen.f_frsize / 20);
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
}
