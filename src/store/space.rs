//! The reserve of the file system, and whether there is room.
//!
//! `reserve_free` is never filled. Part of it is a ballast file: where even deletes and a start can't write any more it
//! is let go, and it is made again when there is room.

use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::Access;
use rustix::fs::FallocateFlags;
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use tokio::sync::watch;

/// What the ballast is called in the store's folder.
pub(super) const BALLAST: &str = "ballast";

/// The ballast is this part of the reserve, and not more than [`BALLAST_BYTES_MAX`].
const BALLAST_PART: u64 = 4;

/// The most bytes of ballast: what a start must write (an epoch, settled intents, the index's repair) is far less.
const BALLAST_BYTES_MAX: u64 = 16 << 20;

/// The reserve is at most this part of the file system (a twentieth).
const RESERVE_PART_MAX: u64 = 20;

/// What must take writes for anything to be kept, below the store's folder. An administrator may forbid it by mode or flag.
const PARTS: [&str; 5] = ["blobs", "blobs/sha256", "repositories", "spool/fills", "index.redb"];

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

/// Watches the file system of a folder. Cheap to clone; clones share what they saw.
#[derive(Clone, Debug)]
pub struct Space(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    folder: PathBuf,
    /// Bytes that stay free, the ballast among them.
    reserve: u64,
    pressure: watch::Sender<Pressure>,
}

impl Space {
    /// Looks at the file system of `folder`, of which `reserve` bytes stay free.
    pub fn open(folder: &Path, reserve: u64) -> io::Result<Self> {
        let seen = rustix::fs::statvfs(folder)?;
        let reserve = reserve.min(seen.f_blocks.saturating_mul(seen.f_frsize) / RESERVE_PART_MAX);
        let space = Self(Arc::new(Watched {
            folder: folder.to_owned(),
            reserve,
            pressure: watch::Sender::new(Pressure { free: 0, state: PressureState::Ok }),
        }));
        space.look()?;
        if let Err(error) = space.take_ballast() {
            tracing::warn!(%error, "no ballast could be laid by; a full disk will hinder deletes");
        }
        Ok(space)
    }

    /// What is known, and what changes about it.
    pub fn pressure(&self) -> watch::Receiver<Pressure> {
        self.0.pressure.subscribe()
    }

    /// What was last seen.
    pub fn state(&self) -> PressureState {
        self.0.pressure.borrow().state
    }

    /// Looks at the file system again: a microsecond or two.
    pub fn look(&self) -> io::Result<Pressure> {
        let seen = rustix::fs::statvfs(&self.0.folder)?;
        // What the ballast takes is kept free already.
        let ballast = std::fs::metadata(self.ballast()).map_or(0, |ballast| ballast.len());
        let reserve = self.0.reserve.saturating_sub(ballast);
        let available = seen.f_bavail.saturating_mul(seen.f_frsize);
        let state = if seen.f_flag.contains(StatVfsMountFlags::RDONLY) || self.is_forbidden() {
            PressureState::ReadOnly
        } else if available < reserve || (seen.f_files > 0 && seen.f_favail == 0) {
            PressureState::Full
        } else {
            PressureState::Ok
        };
        let now = Pressure { free: available.saturating_sub(reserve), state };
        self.tell(now);
        Ok(now)
    }

    /// Whether this process may not write a part of the store: what the file system says of its modes and flags.
    fn is_forbidden(&self) -> bool {
        PARTS.iter().any(|part| {
            let refused = rustix::fs::access(self.0.folder.join(part), Access::WRITE_OK);
            matches!(refused, Err(Errno::ACCESS | Errno::PERM | Errno::ROFS))
        })
    }

    /// Takes note of an error of a write: the file system may refuse what it seems to have room for, by a quota or for
    /// want of inodes. The next look tells whether that is over.
    pub fn refused(&self, error: &io::Error) {
        let state = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PressureState::Full,
            io::ErrorKind::ReadOnlyFilesystem => PressureState::ReadOnly,
            _ => return,
        };
        self.tell(Pressure { free: 0, state });
    }

    fn tell(&self, now: Pressure) {
        let before = self.0.pressure.send_replace(now);
        if before.state == now.state {
            return;
        }
        match now.state {
            PressureState::Ok => tracing::info!(free = now.free, "the store has room again"),
            PressureState::Full => tracing::warn!(
                reserve = self.0.reserve,
                "the store is full: what is held is served, nothing more is kept"
            ),
            PressureState::ReadOnly => {
                tracing::warn!("the store is read-only: what is held is served, nothing more is kept");
            }
        }
    }

    /// Whether `bytes` more may be taken.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let pressure = *self.0.pressure.borrow();
        pressure.state == PressureState::Ok && pressure.free >= bytes
    }

    /// Lays the ballast by, where there is room.
    pub fn take_ballast(&self) -> io::Result<()> {
        let bytes = (self.0.reserve / BALLAST_PART).min(BALLAST_BYTES_MAX);
        let path = self.ballast();
        if bytes == 0 || path.exists() || !self.has_room_for(bytes) {
            return Ok(());
        }
        let file = File::create(&path)?;
        let laid = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes);
        if laid.is_err() {
            // Less than all of it is no use.
            drop(std::fs::remove_file(&path));
        }
        laid?;
        self.look().map(drop)
    }

    /// Lets the ballast go, for what must be written on a full disk.
    pub fn drop_ballast(&self) -> io::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.folder.join(BALLAST)
    }
}

#[cfg(test)]
mod tests;
