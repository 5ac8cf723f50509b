//! What the records are.

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::Tag;

use super::BlobKey;

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The first line is not that of a record of this version, or its checksum is not that of the rest.
    #[error("the first line does not fit what follows")]
    Header,
    /// What follows is not the record.
    #[error("the record can't be read")]
    Json(#[source] serde_json::Error),
}

/// Where something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A client pushed it: it lives here alone.
    Pushed,
    /// An upstream has it.
    Proxied,
}

/// What a link leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A blob.
    Blob,
    /// A manifest.
    Manifest {
        /// What it is served as.
        media_type: MediaType,
        /// What it refers to.
        subject: Option<Digest>,
        /// The artifact's type.
        artifact_type: Option<String>,
    },
}

/// A repository's link to bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The digest of the bytes.
    pub digest: Digest,
    /// Which storing of them.
    pub generation: u32,
    /// Their count.
    pub size: u64,
    /// What they are.
    pub kind: Kind,
    /// Where they came from.
    pub origin: Origin,
    /// When the link was made.
    pub at: Timestamp,
}

impl LinkRecord {
    /// What it links.
    pub fn blob(&self) -> BlobKey {
        BlobKey { digest: self.digest, generation: self.generation }
    }
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The tag.
    pub tag: Tag,
    /// What it means.
    pub digest: Digest,
    /// The media type of that.
    pub media_type: MediaType,
    /// The size of that in bytes.
    pub size: u64,
    /// Where it came from.
    pub origin: Origin,
    /// Who pushed it.
    pub pusher: Option<String>,
    /// When it was written.
    pub at: Timestamp,
    /// The last ten digests, the oldest first, each with the time since which the tag meant it.
    pub history: Vec<(Digest, Timestamp)>,
    /// When the upstream said that it is gone.
    pub gone: Option<Timestamp>,
}

/// A record as it is stored: a line with the version and the checksum, then JSON.
pub(in crate::store) fn encode<T: Serialize>(record: &T) -> Result<Bytes, RecordError> {
    let json = serde_json::to_vec(record).map_err(RecordError::Json)?;
    let mut bytes = format!("larder 1 {}\n", Digest::of(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    Ok(bytes.into())
}

/// Reads what was stored.
pub(in crate::store) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(RecordError::Header)?;
    let (header, json) = bytes.split_at(end);
    let json = json.split_first().ok_or(RecordError::Header)?.1;
    if header != format!("larder 1 {}", Digest::of(json)).as_bytes() {
        return Err(RecordError::Header);
    }
    serde_json::from_slice(json).map_err(RecordError::Json)
}

impl LinkRecord {
    /// The record as it is stored.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        encode(self)
    }

    /// Reads what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode(bytes)
    }
}

impl TagRecord {
    /// The record as it is stored.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        encode(self)
    }

    /// Reads what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode(bytes)
    }
}
