//! Uploading a blob: sessions are begun, written to, asked for, finished and given up (distribution-spec, "Pushing
//! blobs").

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use crate::access::Grant;
use crate::config::Action;
use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::store;
use crate::store::Origin;
use crate::store::Put;
use crate::store::spool::SealError;
use crate::store::spool::Spooled;
use crate::telemetry;

use super::Error;
use super::Push;
use super::session::Owner;
use super::session::Progress;
use super::session::Session;
use super::session::Sessions;

impl Push {
    /// Begins an upload, which survives the end of the process.
    pub async fn begin(&self, grant: &Grant, algorithm: Option<Algorithm>) -> Result<Progress, Error> {
        let session = self.begin_session(grant, algorithm)?;
        let noted = self.sessions.note(&session).await;
        if noted.is_err() {
            drop(self.sessions.end_later(session));
        }
        noted
    }

    /// Begins an upload that ends with this request, whatever becomes of it.
    pub fn begin_whole(&self, grant: &Grant, digest: &Digest) -> Result<Writing, Error> {
        let session = self.begin_session(grant, Some(digest.algorithm()))?;
        let turn = Arc::clone(&session.turn).try_lock_owned().map_err(|_| Error::UploadUnknown)?;
        let mut writing = Writing::new(self, session, turn);
        writing.fleeting = true;
        Ok(writing)
    }

    fn begin_session(&self, grant: &Grant, algorithm: Option<Algorithm>) -> Result<Arc<Session>, Error> {
        let repository = Self::hosted(grant, Action::Push)?;
        self.store.look_for_room(0)?;
        self.sessions.begin(repository, Owner::from(grant.principal()), algorithm.unwrap_or(Algorithm::Sha256))
    }

    fn session(&self, grant: &Grant, id: &str) -> Result<Arc<Session>, Error> {
        let repository = Self::hosted(grant, Action::Push)?;
        self.sessions.find(id, repository, &Owner::from(grant.principal()))
    }

    /// How far an upload has come.
    pub async fn status(&self, grant: &Grant, id: &str) -> Result<Progress, Error> {
        let session = self.session(grant, id)?;
        let spooled = session.state().spooled.clone();
        if let Some(spooled) = spooled.filter(|spooled| spooled.is_pending())
            && let Err(error) = spooled.flush().await
        {
            // What is told is what is in the file.
            tracing::debug!(error = %telemetry::chain(&error), "an upload could not be written out");
        }
        Ok(session.progress())
    }

    /// Opens an upload to be written to. One request writes at a time; another is told how far it has come, as who writes
    /// at the wrong place is. `digest` is what the whole will be, where that is known.
    pub async fn write(&self, grant: &Grant, id: &str, digest: Option<&Digest>) -> Result<Writing, Error> {
        let session = self.session(grant, id)?;
        let turn = Arc::clone(&session.turn).try_lock_owned();
        let turn = turn.map_err(|_| Error::Offset(session.progress()))?;
        Writing::open(self, session, turn, digest).await
    }

    /// Gives an upload up: its place is free at once, and its bytes are gone on return.
    pub async fn cancel(&self, grant: &Grant, id: &str) -> Result<(), Error> {
        let session = self.session(grant, id)?;
        let ended = self.sessions.end_later(session);
        ended.await.map_err(|_| store::Error::Closed.into())
    }

    /// Takes up the uploads that an earlier process left.
    pub async fn take_up(&self) -> Result<(), store::Error> {
        self.sessions.take_up().await
    }

    /// Ends uploads that were left, until larder stops.
    pub fn keep_ending(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.sessions).keep_ending()
    }

    /// How many uploads a principal may have open, from now on.
    pub fn set_uploads(&self, most: u32) {
        self.sessions.set_per_owner(most);
    }
}

/// An upload that is being written to. Dropped, it stays where it came to.
#[derive(Debug)]
pub struct Writing {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    spooled: Option<Arc<Spooled>>,
    at: u64,
    most: u64,
    /// Whether it ends with its request.
    fleeting: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Writing {
    fn new(push: &Push, session: Arc<Session>, turn: OwnedMutexGuard<()>) -> Self {
        let sessions = Arc::clone(&push.sessions);
        Self { sessions, session, spooled: None, at: 0, most: push.blob_bytes, fleeting: false, _turn: turn }
    }

    async fn open(
        push: &Push,
        session: Arc<Session>,
        turn: OwnedMutexGuard<()>,
        digest: Option<&Digest>,
    ) -> Result<Self, Error> {
        let mut writing = Self::new(push, session, turn);
        writing.check_open()?;
        let (spooled, parked) = {
            let mut state = writing.session.state();
            if let Some(digest) = digest {
                state.algorithm = digest.algorithm();
            }
            (state.spooled.clone(), state.parked)
        };
        if let Some(spooled) = spooled {
            // A client that went away may have left bytes that no batch took.
            if let Err(error) = spooled.flush().await {
                return Err(writing.close(error.into()));
            }
            writing.at = spooled.cursor();
            writing.spooled = Some(spooled);
        } else if parked > 0 {
            writing.resume(parked).await?;
        }
        Ok(writing)
    }

    async fn resume(&mut self, least: u64) -> Result<(), Error> {
        let algorithm = self.session.state().algorithm;
        match self.sessions.store.spool().resume_upload(&self.session.id, least, algorithm).await {
            Ok(Some(spooled)) => {
                self.at = spooled.cursor();
                self.keep(spooled);
                Ok(())
            }
            Ok(None) => {
                self.sessions.end(&self.session).await;
                Err(Error::UploadUnknown)
            }
            Err(error) => Err(store::Error::from(error).into()),
        }
    }

    fn keep(&mut self, spooled: Arc<Spooled>) {
        self.session.state().spooled = Some(Arc::clone(&spooled));
        self.spooled = Some(spooled);
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.session.over.is_cancelled() { Err(Error::UploadUnknown) } else { Ok(()) }
    }

    /// The place of the next byte.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How far the upload has come, for who writes at another place.
    pub fn progress(&self) -> Progress {
        Progress { session: self.session.id.clone(), received: self.at }
    }

    /// Comes when the upload is given up, by another request.
    pub async fn given_up(&self) {
        self.session.over.cancelled().await;
    }

    /// Looks whether `length` more bytes may come, before they do. An upload that would be too large is over.
    pub async fn expect(&mut self, length: u64) -> Result<(), Error> {
        self.check_size(length).await?;
        Ok(self.sessions.store.look_for_room(length)?)
    }

    async fn check_size(&self, length: u64) -> Result<(), Error> {
        if self.at.checked_add(length).is_some_and(|end| end <= self.most) {
            return Ok(());
        }
        self.sessions.end(&self.session).await;
        Err(Error::TooLarge { limit: self.most })
    }

    /// Takes the next bytes. It waits where more come than are written.
    pub async fn take(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.check_open()?;
        let length = bytes.len() as u64;
        if length == 0 {
            return Ok(());
        }
        self.check_size(length).await?;
        let spooled = self.spooled().await?;
        if let Err(error) = spooled.write(self.at, bytes).await {
            return Err(self.close(error.into()));
        }
        self.at += length;
        self.sessions.metrics.uploaded(length);
        Ok(())
    }

    /// The open file; made where there is none yet.
    async fn spooled(&mut self) -> Result<Arc<Spooled>, Error> {
        if let Some(spooled) = &self.spooled {
            return Ok(Arc::clone(spooled));
        }
        let algorithm = self.session.state().algorithm;
        let spooled = self.sessions.store.spool().begin_upload(&self.session.id, algorithm).await;
        let spooled = spooled.map_err(store::Error::from)?;
        self.keep(Arc::clone(&spooled));
        Ok(spooled)
    }

    /// Leaves the file as it is: what is in it is taken up again by the next request.
    fn close(&mut self, error: store::Error) -> Error {
        self.spooled = None;
        let mut state = self.session.state();
        if let Some(spooled) = state.spooled.take() {
            state.parked = spooled.progress().borrow().watermark;
            spooled.park();
        }
        error.into()
    }

    /// Writes what came and acknowledges it; another request goes on.
    pub async fn pause(mut self) -> Result<Progress, Error> {
        self.check_open()?;
        if let Some(spooled) = self.spooled.clone()
            && let Err(error) = spooled.flush().await
        {
            return Err(self.close(error.into()));
        }
        self.sessions.note(&self.session).await
    }

    /// Checks the whole against `digest` and keeps it as a blob of the repository, durably. With another digest the upload
    /// is over, and its bytes are gone. It goes on to its end when its caller goes away.
    pub async fn finish(self, digest: Digest) -> Result<(), Error> {
        let tasks = self.sessions.tasks.clone();
        let finished = tasks.spawn("upload", self.seal(digest)).await;
        finished.map_err(|_| store::Error::Closed)?
    }

    async fn seal(mut self, digest: Digest) -> Result<(), Error> {
        self.check_open()?;
        let spooled = self.spooled().await?;
        let verified = match spooled.seal(digest).await {
            Ok(verified) => verified,
            Err(SealError::Mismatch { got }) => {
                self.sessions.end(&self.session).await;
                return Err(Error::WrongDigest { got });
            }
            Err(SealError::Spool(error)) => return Err(self.close(error.into())),
            // A file without a size that was told lacks nothing; so somebody removed it.
            Err(SealError::Short { .. }) => {
                self.sessions.end(&self.session).await;
                return Err(Error::UploadUnknown);
            }
        };
        drop(spooled);
        let put = vec![Put::Blob(verified)];
        match self.sessions.store.commit(&self.session.of, Origin::Pushed, put).await {
            Ok(()) => {
                self.fleeting = false;
                self.sessions.published(&self.session).await;
                Ok(())
            }
            Err(error) => Err(self.close(error)),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.session.touch();
        // Without a runtime the process is ending, and the next start removes what has no record.
        if self.fleeting && tokio::runtime::Handle::try_current().is_ok() {
            drop(self.sessions.end_later(Arc::clone(&self.session)));
        }
    }
}
