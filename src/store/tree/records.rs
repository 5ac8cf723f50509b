//! What the records are.

use std::cmp::Ordering;

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
    /// It is whole, and of a format that this version does not know.
    #[error("the format {version} is newer than this version of larder")]
    Newer {
        /// The format.
        version: u32,
    },
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
    /// What keeps it, where it is a manifest that was pushed.
    #[serde(default, skip_serializing_if = "Standing::is_default")]
    pub standing: Standing,
}

/// What keeps a pushed manifest, or was the last to keep it, as far as that decides when it may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// No tag ever meant it: it stays until somebody removes it.
    #[default]
    Untagged,
    /// A tag means it, or did until it was moved to another.
    Tagged,
    /// It was found without a tag then, the last one having been moved to another.
    Replaced(Timestamp),
    /// Its last tag was removed, or the index that named it: it goes as soon as nothing else keeps it.
    Released,
}

impl Standing {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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

/// The format of what this version writes.
const VERSION: u32 = 1;

/// A record as it is stored: a line `larder <version> <digest of the rest>`, then JSON. Every later format keeps that line.
pub(in crate::store) fn encode<T: Serialize>(record: &T) -> Result<Bytes, RecordError> {
    let json = serde_json::to_vec(record).map_err(RecordError::Json)?;
    let mut bytes = format!("larder {VERSION} {}\n", Digest::of(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    Ok(bytes.into())
}

/// Reads what was stored.
pub(in crate::store) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(RecordError::Header)?;
    let (header, rest) = bytes.split_at(end);
    let rest = rest.split_first().ok_or(RecordError::Header)?.1;
    let version = version(header, rest).ok_or(RecordError::Header)?;
    match version.cmp(&VERSION) {
        Ordering::Greater => Err(RecordError::Newer { version }),
        Ordering::Equal => serde_json::from_slice(rest).map_err(RecordError::Json),
        Ordering::Less => Err(RecordError::Header),
    }
}

/// The version that the first line names, if the line is whole and its digest that of the rest.
fn version(header: &[u8], rest: &[u8]) -> Option<u32> {
    let (version, digest) = std::str::from_utf8(header).ok()?.strip_prefix("larder ")?.split_once(' ')?;
    let digest: Digest = digest.parse().ok()?;
    (Digest::of_with(digest.algorithm(), rest) == digest).then(|| version.parse().ok())?
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> TagRecord {
        let digest = Digest::of(b"x");
        TagRecord {
            tag: "v1".parse().unwrap(),
            digest,
            media_type: MediaType::new("application/vnd.oci.image.index.v1+json"),
            size: 7,
            origin: Origin::Pushed,
            pusher: Some("ci".to_owned()),
            at: Timestamp(5),
            history: vec![(digest, Timestamp(5))],
            gone: None,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(TagRecord::decode(&record().encode().unwrap()).unwrap(), record());
    }

    #[test]
    fn a_record_of_a_newer_format_is_told_from_a_damaged_one() {
        let rest = b"whatever comes";
        let newer = format!("larder 2 {}\nwhatever comes", Digest::of(rest));
        assert!(matches!(TagRecord::decode(newer.as_bytes()), Err(RecordError::Newer { version: 2 })));
        let damaged = newer.replace("comes", "came");
        assert!(matches!(TagRecord::decode(damaged.as_bytes()), Err(RecordError::Header)));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_and_no_cut_goes_unseen(at in 0_usize..1000, bit in 0_u8..8) {
            let whole = record().encode().unwrap().to_vec();
            let at = at % whole.len();
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            // The name of the format is no part of what the digest covers; another format is refused all the same.
            prop_assert!(TagRecord::decode(&flipped).is_err());
            prop_assert!(TagRecord::decode(&whole[..at]).is_err());
        }
    }
}
