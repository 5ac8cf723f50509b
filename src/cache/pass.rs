//! Passing through: a transfer for one client, hashed and not kept, for when the store has no room.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::body;
use crate::body::ByteStream;
use crate::body::Parts;
use crate::oci::Digest;
use crate::oci::Hasher;
use crate::oci::RepositoryKey;
use crate::oci::range::Extent;
use crate::repository::Proxied;
use crate::store::spool::HELD_BACK_BYTES;
use crate::upstream;
use crate::upstream::Ask;
use crate::upstream::Wanted;

use super::alarm::Alarm;
use super::error::Error;

/// A transfer that has begun.
pub(super) struct Passed {
    /// The blob's size, where it is known.
    pub(super) size: Option<u64>,
    body: BoxStream<'static, Result<Bytes, upstream::Error>>,
    digest: Digest,
}

/// Asks the upstream for all of the blob: a part of it could not be checked.
pub(super) async fn begin(
    proxied: &Proxied,
    ask: &Ask,
    digest: &Digest,
    expected: Option<u64>,
) -> Result<Passed, Error> {
    let wanted = Wanted { start: 0, end: None, same_as: None };
    let incoming = proxied.upstream.blob(ask, digest, &wanted).await?.ok_or(Error::BlobUnknown)?;
    match (expected, incoming.total) {
        (Some(wanted), Some(got)) if wanted != got => Err(Error::WrongSize { wanted, got }),
        (wanted, got) => Ok(Passed { size: wanted.or(got), body: incoming.body, digest: *digest }),
    }
}

/// What is on its way to the client.
struct Passing {
    body: BoxStream<'static, Result<Bytes, upstream::Error>>,
    hasher: Option<Hasher>,
    digest: Digest,
    /// Told where they are wrong, with the repository.
    alarm: (Alarm, RepositoryKey),
    /// Bytes that may not go out before the digest is known to be right.
    held_back: VecDeque<Bytes>,
    held_back_bytes: u64,
    /// How many bytes went by.
    at: u64,
    extent: Extent,
    size: Option<u64>,
}

impl Passed {
    /// The bytes of `extent`, or all of them; the last 64 KiB go out when the digest is known to be right.
    pub(super) fn stream(self, extent: Option<Extent>, alarm: (Alarm, RepositoryKey)) -> ByteStream {
        let passing = Passing {
            hasher: Some(Hasher::new(self.digest.algorithm())),
            body: self.body,
            digest: self.digest,
            alarm,
            held_back: VecDeque::new(),
            held_back_bytes: 0,
            at: 0,
            extent: extent.unwrap_or(Extent { start: 0, end: u64::MAX }),
            size: self.size,
        };
        body::stream(passing)
    }
}

impl Parts for Passing {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.hasher.is_none() || self.held_back_bytes > HELD_BACK_BYTES {
                let Some(bytes) = self.held_back.pop_front() else { return Ok(None) };
                self.held_back_bytes -= bytes.len() as u64;
                let wanted = self.cut(bytes);
                if !wanted.is_empty() {
                    return Ok(Some(wanted));
                }
                continue;
            }
            match self.body.next().await {
                Some(Ok(bytes)) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&bytes);
                    }
                    self.held_back_bytes += bytes.len() as u64;
                    if self.size.is_some_and(|s| self.at + self.held_back_bytes > s) {
                        return Err(io::Error::other("the upstream sends more than the blob's size"));
                    }
                    self.held_back.push_back(bytes);
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => {
                    let got = self.hasher.take().map(Hasher::finish);
                    if got != Some(self.digest) {
                        let (alarm, repository) = &self.alarm;
                        return Err(io::Error::other(
                            alarm.heard(repository, Error::WrongBytes { wanted: self.digest }),
                        ));
                    }
                }
            }
        }
    }
}

impl Passing {
    /// The part of the next bytes that lies in the extent.
    fn cut(&mut self, mut bytes: Bytes) -> Bytes {
        let (from, to) = (self.at, self.at + bytes.len() as u64);
        self.at = to;
        let start = self.extent.start.clamp(from, to) - from;
        let end = self.extent.end.clamp(from, to) - from;
        bytes.truncate(usize::try_from(end).unwrap_or(usize::MAX));
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
        bytes.split_off(start)
    }
}
