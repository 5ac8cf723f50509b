//! What a decision of retention is made from: facts of one repository, wherever it is, as data.

use std::fmt;

use crate::clock::Timestamp;
use crate::oci::Class;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

/// All that is known of one repository. Who makes one vouches that it is complete: nothing is decided from a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The repository: a hosted one, or one of a remote registry by its host.
    pub repository: RepositoryKey,
    /// Its tags, in the order of bytes.
    pub tags: Vec<TagFact>,
    /// Its manifests, tagged or not, each once.
    pub manifests: Vec<ManifestFact>,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFact {
    /// The tag.
    pub tag: Tag,
    /// What it means.
    pub digest: Digest,
    /// When it was last pushed: of the tag, never of the image. None where that is not known, which keeps it wherever an age
    /// is asked for.
    pub pushed_at: Option<Timestamp>,
    /// Its last use by a client.
    pub pulled: Pulled,
}

/// What is known of the last use by a client. Our own looks are no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// It was used then, and not later.
    At(Timestamp),
    /// It was not used since then; before that nothing is known.
    NotSince(Timestamp),
    /// Nothing is known: it counts as used just now.
    Unknown,
}

/// A manifest, with what it needs and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFact {
    /// Its digest.
    pub digest: Digest,
    /// Its own size in bytes.
    pub size: u64,
    /// What it is; none where that is not known.
    pub class: Option<Class>,
    /// When it came; none where that is not known.
    pub pushed_at: Option<Timestamp>,
    /// Its last use by its digest.
    pub pulled: Pulled,
    /// The manifests that it names.
    pub children: Vec<Digest>,
    /// The blobs that it names, each once, with their sizes in bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// How its registry calls it, where that is neither tag nor digest: a GHCR package version's number.
    pub id: Option<String>,
}

impl Pulled {
    /// The later of two pieces of knowledge of the same thing.
    #[must_use]
    pub fn latest(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(a), Self::At(b)) => Self::At(a.max(b)),
            (at @ Self::At(_), _) | (_, at @ Self::At(_)) => at,
            // Two watchers that saw nothing: the one that watched longer knows more.
            (Self::NotSince(a), Self::NotSince(b)) => Self::NotSince(a.min(b)),
            (Self::NotSince(at), Self::Unknown) | (Self::Unknown, Self::NotSince(at)) => Self::NotSince(at),
            (Self::Unknown, Self::Unknown) => Self::Unknown,
        }
    }
}

impl fmt::Display for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => write!(f, "pulled at {at}"),
            Self::NotSince(since) => write!(f, "not pulled since {since}"),
            Self::Unknown => f.write_str("last pull unknown"),
        }
    }
}
