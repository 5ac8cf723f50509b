//! The files of uploads: named by whoever has them, and kept, whatever becomes of the process, until they are published
//! or given up.

use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::oci::Algorithm;

use super::Error;
use super::Spool;
use super::Spooled;
use super::Staged;
use super::Unpublished;
use super::on_the_pool;

impl Spool {
    /// Begins the file of the upload `name`.
    pub async fn begin_upload(&self, name: &str, algorithm: Algorithm) -> Result<Arc<Spooled>, Error> {
        let (spool, path) = (self.clone(), self.upload(name));
        on_the_pool(move || {
            spool.look_for_room(0)?;
            Ok(Arc::new(Spooled::new(spool.make(path, Unpublished::Kept)?, None, algorithm)))
        })
        .await
    }

    /// Takes up the file of the upload `name` as it was left, with all bytes that are in it. They are hashed when the next
    /// ones are. None if it is gone, or lacks some of the `least` bytes that were acknowledged.
    pub async fn resume_upload(
        &self,
        name: &str,
        least: u64,
        algorithm: Algorithm,
    ) -> Result<Option<Arc<Spooled>>, Error> {
        let (spool, path) = (self.clone(), self.upload(name));
        on_the_pool(move || {
            let file = match File::options().read(true).write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened.map_err(|e| Error::new("opening a file of the spool", e))?,
            };
            let here = file.metadata().map_err(|e| Error::new("looking at a file of the spool", e))?.len();
            if here < least {
                return Ok(None);
            }
            spool.unpark(here);
            let (file, shared, unpublished) = (Arc::new(file), Arc::clone(&spool.0), Unpublished::Kept);
            let mut staged = Staged { file, path: Some(path), spool: shared, bytes: 0, unpublished };
            staged.grow_to(here);
            Ok(Some(Arc::new(Spooled::resumed(staged, here, algorithm))))
        })
        .await
    }

    /// Removes the file of the upload `name`, which nobody has open. Removing what is not there is success.
    pub async fn remove_upload(&self, name: &str) -> Result<(), Error> {
        let (spool, path) = (self.clone(), self.upload(name));
        on_the_pool(move || {
            let size = std::fs::symlink_metadata(&path).map_or(0, |file| file.len());
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => {
                    removed.map_err(|e| Error::new("removing a file of the spool", e))?;
                    spool.unpark(size);
                    Ok(())
                }
            }
        })
        .await
    }

    /// The uploads that have a file, and how many bytes are in it.
    pub async fn uploads(&self) -> Result<Vec<(String, u64)>, Error> {
        let spool = self.clone();
        on_the_pool(move || sizes(&spool.0.uploads).map_err(|e| Error::new("reading the spool", e))).await
    }

    fn upload(&self, name: &str) -> PathBuf {
        self.0.uploads.join(name)
    }

    fn unpark(&self, bytes: u64) {
        let less = |parked: u64| Some(parked.saturating_sub(bytes));
        let _ = self.0.parked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The files of a folder with their sizes. A folder that is not there has none.
pub(super) fn sizes(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Uploads are named by us; what is named otherwise is somebody else's.
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.metadata()?.len()));
        }
    }
    Ok(found)
}
