//! The store's folder: one process has it at a time, and it says of which format it is.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::Error;
use super::Result;

/// The format of what this version writes.
const FORMAT: &str = "larder store 1\n";

/// The folder is this process's, until it is dropped. The kernel lets go of it with the process, however that ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the folder, which is made where it is missing. A second process is refused, and so is a format that this
    /// version does not know: nothing is touched then.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::folder("making the store's folder", e))?;
        let path = folder.join("larder.lock");
        let failed = |e| Error::folder("opening the store's lock", e);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = match opened {
            // What is held is served from a file system that takes no writes too.
            Err(error) if refuses_writes(error.kind()) => File::open(&path).map_err(|_| failed(error))?,
            other => other.map_err(failed)?,
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => Error::InUse { folder: folder.to_owned(), holder: holder(&file) },
            other => failed(other.into()),
        })?;
        let mut format = String::new();
        file.read_to_string(&mut format).map_err(failed)?;
        if format.is_empty() {
            // A full disk keeps the folder without its mark until the next start.
            if let Err(error) = file.write_all(FORMAT.as_bytes()).and_then(|()| file.sync_all()) {
                tracing::warn!(%error, "the store's format could not be written down");
            }
        } else if format != FORMAT {
            return Err(Error::Format { folder: folder.to_owned(), format: format.trim().to_owned() });
        }
        Ok(Self { _file: file })
    }
}

fn refuses_writes(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::StorageFull)
}

/// The process that has the lock, from the kernel's list: `1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF`.
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.nth(1)? == "FLOCK").then_some(())?;
        let pid = words.nth(2)?.parse().ok()?;
        (words.next()?.rsplit(':').next()? == inode).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_and_the_next_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { holder: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(lock);
        Lock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_format_of_another_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("larder.lock"), "larder store 9\n").unwrap();
        assert!(matches!(Lock::take(folder.path()), Err(Error::Format { .. })));
        assert_eq!(std::fs::read(folder.path().join("larder.lock")).unwrap(), b"larder store 9\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
