//! Bytes that are being written, before they are verified.

use bytes::Bytes;

use crate::oci::Digest;

/// Where bytes are written before they are verified. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool {}

/// Bytes that were hashed and found to be what their digest says. Only this module makes one.
#[derive(Debug)]
pub struct Verified {
    digest: Digest,
    size: u64,
}

impl Verified {
    /// Their digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Their count.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Spool {
    /// Verifies bytes that are in memory whole: a manifest.
    #[expect(clippy::unused_async, reason = "the write is awaited as soon as there is one")]
    pub async fn stage(&self, bytes: Bytes, digest: Digest) -> std::io::Result<Verified> {
        if Digest::of_with(digest.algorithm(), &bytes) != digest {
            return Err(std::io::Error::other("the bytes are not those of the digest"));
        }
        Ok(Verified { digest, size: bytes.len() as u64 })
    }

    /// Bytes that are being written.
    pub fn bytes(&self) -> u64 {
        0
    }
}
