//! One request of a fill: from the upstream's body into the spool.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::store;
use crate::store::Store;
use crate::store::spool::Spooled;
use crate::upstream;
use crate::upstream::Wanted;

use super::super::claims::Claimed;
use super::super::error::Error;
use super::Fill;
use super::Stage;
use super::has_room;

/// How long bytes that make no whole batch wait for more.
const BATCH_WAIT: Duration = Duration::from_millis(10);

impl Fill {
    /// One request: from `at` to the claim's end, or until it breaks.
    pub(super) async fn transfer(&self, store: &Store, claimed: Claimed, at: &mut u64) -> Result<(), Error> {
        let end = self.claims().advance(claimed.id, *at);
        if end.is_some_and(|end| *at >= end) {
            return Ok(());
        }
        let same_as = self.validator.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted = Wanted { start: *at, end: claimed.end, same_as };
        let incoming = self.order.proxied.upstream.blob(&self.order.ask, &self.order.digest, &wanted).await?;
        let incoming = incoming.ok_or(Error::BlobUnknown)?;
        let spooled = self.begin(store, incoming.total, incoming.validator).await?;
        if incoming.start > *at {
            return Err(Error::WrongSize { wanted: *at, got: incoming.start });
        }
        // An upstream that ignores the range sends all of it again: what is here already is passed over.
        let mut skip = *at - incoming.start;
        let mut body = incoming.body;
        while let Some(chunk) = Self::next(&spooled, &mut body).await? {
            let mut chunk: Bytes = chunk?;
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            drop(chunk.split_to(usize::try_from(passed).unwrap_or(usize::MAX)));
            if self.take(&spooled, claimed, at, chunk).await? {
                return Ok(());
            }
        }
        Self::ended(&spooled, *at)
    }

    /// The next bytes of the body. What came and makes no whole batch is written when nothing more comes for a moment.
    async fn next(
        spooled: &Spooled,
        body: &mut BoxStream<'static, upstream::Result<Bytes>>,
    ) -> Result<Option<upstream::Result<Bytes>>, Error> {
        if spooled.is_pending() {
            match tokio::time::timeout(BATCH_WAIT, body.next()).await {
                Ok(next) => return Ok(next),
                Err(_) => spooled.flush().await.map_err(store::Error::from)?,
            }
        }
        Ok(body.next().await)
    }

    /// Writes one chunk; returns whether the claim is done.
    async fn take(
        &self,
        spooled: &Arc<Spooled>,
        claimed: Claimed,
        at: &mut u64,
        mut chunk: Bytes,
    ) -> Result<bool, Error> {
        if let Some(size) = spooled.size()
            && *at + chunk.len() as u64 > size
        {
            return Err(Error::WrongSize { wanted: size, got: *at + chunk.len() as u64 });
        }
        if *at + chunk.len() as u64 > self.order.proxied.blob_bytes() {
            return Err(Error::TooLarge { size: *at + chunk.len() as u64, limit: self.order.proxied.blob_bytes() });
        }
        if let Some(end) = self.claims().advance(claimed.id, *at) {
            chunk.truncate(usize::try_from(end.saturating_sub(*at)).unwrap_or(usize::MAX));
        }
        let length = chunk.len() as u64;
        if length > 0 {
            spooled.write(*at, chunk).await.map_err(|e| Error::from(store::Error::from(e)))?;
            *at += length;
        }
        Ok(self.claims().advance(claimed.id, *at).is_some_and(|end| *at >= end) || spooled.size() == Some(*at))
    }

    /// The body ended: cleanly when all is here, or when the upstream never said how much there is.
    fn ended(spooled: &Arc<Spooled>, at: u64) -> Result<(), Error> {
        match spooled.size() {
            None => {
                spooled.set_size(at);
                Ok(())
            }
            Some(size) if at == size => Ok(()),
            Some(_) => Err(Error::BrokenOff(None)),
        }
    }

    /// At the first answer: checks the size, makes the spool, lets the clients in.
    async fn begin(&self, store: &Store, total: Option<u64>, validator: Option<String>) -> Result<Arc<Spooled>, Error> {
        if let Some(spooled) = self.spooled() {
            if let (Some(size), Some(total)) = (spooled.size(), total)
                && size != total
            {
                return Err(Error::WrongSize { wanted: size, got: total });
            }
            self.confirm(&self.order.repository);
            return Ok(spooled);
        }
        let size = match (self.order.size, total) {
            (Some(wanted), Some(got)) if wanted != got => return Err(Error::WrongSize { wanted, got }),
            (wanted, got) => wanted.or(got),
        };
        if let Some(size) = size.filter(|s| *s > self.order.proxied.blob_bytes()) {
            return Err(Error::TooLarge { size, limit: self.order.proxied.blob_bytes() });
        }
        *self.validator.lock().unwrap_or_else(PoisonError::into_inner) = validator;
        let resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let made = match resumed {
            Some(resumed) => match (resumed.size(), size) {
                (Some(wanted), Some(got)) if wanted != got => return Err(Error::WrongSize { wanted, got }),
                _ => Ok(resumed),
            },
            None if !has_room(store, size) => Err(store::Error::Full(None)),
            None => store.spool().create(size, self.order.digest.algorithm()).await.map_err(Into::into),
        };
        match made {
            Ok(spooled) => {
                self.confirm(&self.order.repository);
                // Only the front's first answer comes here: nobody else has set it.
                let spooled = Arc::clone(self.spool.get_or_init(|| spooled));
                self.stage.send_replace(Stage::Filling(Arc::clone(&spooled)));
                Ok(spooled)
            }
            Err(error) => {
                self.stage.send_replace(Stage::NoRoom);
                Err(error.into())
            }
        }
    }

    /// Writes what makes no whole batch. Whoever asked for a part waits for all of it, and the front, which would write
    /// it by and by, may be waiting for its own next byte: so the part never came.
    pub(super) async fn write_out(&self) -> Result<(), Error> {
        match self.spooled() {
            Some(spooled) => spooled.flush().await.map_err(|e| store::Error::from(e).into()),
            None => Ok(()),
        }
    }
}
