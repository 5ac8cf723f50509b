//! The open file: how it is opened, taken away from its readers, and opened anew.

use std::fs::OpenOptions;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::time::Duration;

use ::redb::Builder;
use ::redb::Database;
use ::redb::ReadTransaction;
use ::redb::ReadableDatabase;
use ::redb::backends::FileBackend;
use tokio::sync::watch;

use crate::config::store::Durability;
use crate::store::index::Error;
use crate::store::index::Health;
use crate::store::index::Result;
use crate::store::index::Totals;

use super::backend::Unsynced;
use super::tables::Tables;
use super::tables::failed;

/// What the readers and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    durability: Durability,
    cache_bytes: usize,
    /// None while it is being opened anew.
    database: RwLock<Option<Arc<Database>>>,
    totals: Mutex<Totals>,
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
            totals: Mutex::default(),
            health: watch::Sender::new(Health::Well),
        };
        shared.install()?;
        Ok(shared)
    }

    fn install(&self) -> Result<()> {
        // A file that was damaged after it was closed in order makes redb panic.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| self.try_open()));
        let (database, totals) = opened.unwrap_or_else(|_| Err(Error::Damaged("opening it panicked".into())))?;
        self.count(totals);
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        Ok(())
    }

    fn try_open(&self) -> Result<(Database, Totals)> {
        let io = |error: io::Error| Error::from(::redb::Error::Io(error));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path).map_err(io)?;
        let backend = FileBackend::new(file).map_err(failed)?;
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        let database = match self.durability {
            Durability::Strict => builder.create_with_backend(backend),
            Durability::Relaxed => builder.create_with_backend(Unsynced(backend)),
        };
        let database = database.map_err(|error| match error {
            // What redb can't read at all is not another fault of the disk: it is no index.
            ::redb::DatabaseError::Storage(::redb::StorageError::Io(io)) if io.kind() == io::ErrorKind::InvalidData => {
                Error::Damaged(io.to_string())
            }
            other => failed(other),
        })?;
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        let totals = Tables::open(&transaction)?.finish()?;
        transaction.commit().map_err(failed)?;
        Ok((database, totals))
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
            Error::Encoding(_) | Error::Closed => {}
            Error::Full(_) | Error::Storage(_) | Error::Reopening => {
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
        self.take();
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(::redb::Error::Io(error))),
            _ => {}
        }
        self.install()?;
        self.health.send_replace(Health::Well);
        Ok(())
    }

    pub(super) fn close(&self) {
        self.take();
    }
}
