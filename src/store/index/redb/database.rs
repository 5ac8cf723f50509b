//! The open file: how it is opened, taken away from its readers, and opened anew.
//!
//! Where the file system takes no writes the file is opened sealed: everything is read from it, and each write fails with
//! what the file system said, until it takes writes again.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::time::Duration;

use ::redb::Builder;
use ::redb::Database;
use ::redb::ReadTransaction;
use ::redb::ReadableDatabase;
use ::redb::StorageBackend;
use ::redb::backends::FileBackend;
use rustix::fs::Access;
use rustix::fs::StatVfsMountFlags;
use tokio::sync::watch;

use crate::config::store::Durability;
use crate::store::index::Error;
use crate::store::index::Health;
use crate::store::index::Result;
use crate::store::index::Totals;

use super::backend::Unsynced;
use super::overlay::Overlay;
use super::riding::Riding;
use super::tables::Tables;
use super::tables::failed;

/// Bytes that must be free before a sealed file is opened for writing again: opening it writes a few pages.
const ROOM_BYTES_MIN: u64 = 1 << 20;

/// What the readers and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    durability: Durability,
    cache_bytes: usize,
    /// None while it is being opened anew.
    pub(super) database: RwLock<Option<Arc<Database>>>,
    /// Why nothing is written, where the file system takes no writes.
    sealed: Mutex<Option<Error>>,
    totals: Mutex<Totals>,
    riding: Mutex<Riding>,
    health: watch::Sender<Health>,
}

impl Shared {
    /// Opens the file, or makes a new one where there is none.
    pub(super) fn open(path: PathBuf, durability: Durability, cache_bytes: usize) -> Result<Self> {
        let shared = Self {
            path,
            durability,
            cache_bytes,
            database: RwLock::new(None),
            sealed: Mutex::default(),
            totals: Mutex::default(),
            riding: Mutex::default(),
            health: watch::Sender::new(Health::Well),
        };
        shared.install()?;
        Ok(shared)
    }

    /// Opens the file for writing, or else sealed.
    fn install(&self) -> Result<()> {
        let (opened, sealed) = match guarded(|| self.open_to_write()) {
            Err(refusal @ (Error::Full(_) | Error::ReadOnly(_))) => (self.open_sealed()?, Some(refusal)),
            other => (other?, None),
        };
        let (database, totals) = opened;
        self.count(totals);
        *self.sealed.lock().unwrap_or_else(PoisonError::into_inner) = sealed;
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        Ok(())
    }

    fn open_to_write(&self) -> Result<(Database, Totals)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path);
        let backend = FileBackend::new(file.map_err(io_failed)?).map_err(failed)?;
        match self.durability {
            Durability::Strict => self.open_on(backend),
            Durability::Relaxed => self.open_on(Unsynced(backend)),
        }
    }

    /// What can't be read is made anew as soon as the file system takes writes: until then there is nothing in the index.
    fn open_sealed(&self) -> Result<(Database, Totals)> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(io_failed)?),
        };
        match guarded(|| self.open_on(Overlay::over(file).map_err(io_failed)?)) {
            Err(Error::Damaged(_)) => self.open_on(Overlay::over(None).map_err(io_failed)?),
            other => other,
        }
    }

    fn open_on(&self, backend: impl StorageBackend) -> Result<(Database, Totals)> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        let database = builder.create_with_backend(backend).map_err(failed)?;
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        let mut tables = Tables::open(&transaction)?;
        self.riding().replay(&mut tables)?;
        let totals = tables.finish()?;
        transaction.commit().map_err(failed)?;
        Ok((database, totals))
    }

    /// Why nothing can be written; none where it can.
    fn sealed(&self) -> Option<Error> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is worth a try to open a sealed file for writing.
    fn takes_writes(&self) -> bool {
        let Some(folder) = self.path.parent() else { return false };
        let Ok(seen) = rustix::fs::statvfs(folder) else { return false };
        let open = if self.path.exists() { &self.path } else { folder };
        !seen.f_flag.contains(StatVfsMountFlags::RDONLY)
            && seen.f_bavail.saturating_mul(seen.f_frsize) >= ROOM_BYTES_MIN
            && rustix::fs::access(open, Access::WRITE_OK).is_ok()
    }

    /// The open file, to be written. A sealed one is opened anew as soon as its file system takes writes.
    pub(super) fn writable(&self) -> Result<Arc<Database>> {
        let Some(refusal) = self.sealed() else { return self.database() };
        if !self.takes_writes() {
            return Err(refusal);
        }
        self.take();
        self.install()?;
        self.sealed().map_or_else(|| self.database(), Err)
    }

    pub(super) fn database(&self) -> Result<Arc<Database>> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().map(Arc::clone).ok_or(Error::Reopening)
    }

    /// Reads within one transaction, on the thread of the caller: a microsecond, where handing it over costs 66.
    pub(super) fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        let database = self.database()?;
        let read = || {
            let transaction = database.begin_read().map_err(failed)?;
            work(&transaction)
        };
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(Error::Damaged("reading it panicked".into())));
        if outcome.as_ref().is_err_and(Error::is_damage) {
            self.tell(Health::Damaged);
        }
        outcome
    }

    pub(super) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, totals: Totals) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// What did not wait for the disk.
    pub(super) fn riding(&self) -> MutexGuard<'_, Riding> {
        self.riding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Damage stays told until the file is made anew.
    fn tell(&self, health: Health) {
        self.health.send_if_modified(|now| {
            let changed = *now != health && *now != Health::Damaged;
            if changed {
                *now = health;
            }
            changed
        });
    }

    /// Takes the file away from its readers, whose reads take microseconds, and closes it.
    fn take(&self) {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        self.riding().fall();
        let Some(mut database) = database else { return };
        loop {
            match Arc::try_unwrap(database) {
                Ok(last) => {
                    // A panic while a broken file is closed has nothing left to break.
                    drop(std::panic::catch_unwind(AssertUnwindSafe(move || drop(last))));
                    return;
                }
                Err(shared) => database = shared,
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// After a fault: redb refuses everything once a write failed, until the file is opened anew [0.4 ms].
    pub(super) fn recover(&self, error: &Error) {
        match error {
            Error::Damaged(_) => self.tell(Health::Damaged),
            Error::Encoding(_) | Error::Lost | Error::Closed => {}
            // It is read from all the same.
            Error::Full(_) | Error::ReadOnly(_) if self.sealed().is_some() => {}
            Error::Full(_) | Error::ReadOnly(_) | Error::Storage(_) | Error::Reopening => {
                self.tell(Health::Reopening);
                self.take();
                match self.install() {
                    Ok(()) => self.tell(Health::Well),
                    Err(Error::Damaged(_)) => self.tell(Health::Damaged),
                    // The next request tries again; the tree answers meanwhile.
                    Err(error) => tracing::warn!(error = %error, "the index can't be opened anew"),
                }
            }
        }
    }

    /// Throws the file away and makes a new one.
    pub(super) fn recreate(&self) -> Result<()> {
        if let Some(refusal) = self.sealed()
            && !self.takes_writes()
        {
            return Err(refusal);
        }
        self.take();
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_failed(error)),
            _ => {}
        }
        // All of it is in the tree.
        *self.riding() = Riding::default();
        self.install()?;
        self.health.send_replace(Health::Well);
        self.sealed().map_or(Ok(()), Err)
    }

    pub(super) fn close(&self) {
        self.take();
    }
}

fn io_failed(error: io::Error) -> Error {
    failed(::redb::Error::Io(error))
}

/// A file that was damaged after it was closed in order makes redb panic.
fn guarded<T>(open: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(Error::Damaged("opening it panicked".into())))
}
