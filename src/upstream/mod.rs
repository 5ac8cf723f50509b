//! Registries that we pull from: the contract, and what a call can end in.
//!
//! Knows nothing of caching and nothing of the store. Bodies that come from here are unverified: whoever takes them
//! hashes them. A call picks the endpoint, the credential and the token, follows redirects, keeps to the budget and to
//! the circuit; resuming a broken body is the caller's.

mod answer;
mod budget;
mod challenge;
mod circuit;
mod credential;
mod endpoints;
pub mod error;
mod exchange;
mod gate;
mod listing;
mod probe;
mod realm;
pub mod remote;
mod session;
pub mod state;
mod token;
pub mod write;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::oci::RepositoryName;
use crate::oci::Tag;

pub use error::Error;
pub use error::Fault;
pub use error::NoConnection;
pub use error::Retry;
pub use remote::Deps;
pub use remote::Remote;
pub use state::Budget;
pub use state::EndpointState;
pub use state::Health;
pub use state::State;
pub use write::Document;
pub use write::Removal;

/// What a call ends in.
pub type Result<T> = std::result::Result<T, Error>;

/// One registry, however many endpoints it has.
///
/// `Ok(None)` is always the upstream's own 404, given by every endpoint that was asked; a 404 beside another endpoint's
/// fault is that fault. Every call may be dropped at any point, and none of them retries beyond two tries of its own
/// within ten seconds.
#[async_trait]
pub trait Upstream: Debug + Send + Sync {
    /// What a reference is now (HEAD). Spends no quota of pulls.
    ///
    /// An answer without a usable digest is [`Fault::Unusable`]; the caller then gets the manifest instead.
    async fn resolve(&self, ask: &Ask, reference: &Reference) -> Result<Option<Resolved>>;

    /// A manifest's bytes (GET), at most `limits.manifest_bytes`, unverified.
    async fn manifest(&self, ask: &Ask, reference: &Reference) -> Result<Option<RawManifest>>;

    /// A blob's bytes (GET, redirects followed), from where they are wanted, unverified. The tries are for the headers:
    /// a body that breaks is the caller's to continue.
    async fn blob(&self, ask: &Ask, digest: &Digest, wanted: &Wanted) -> Result<Option<Incoming>>;

    /// A blob's size (HEAD; GET without its body where a chained proxy's HEAD says 404). Also how the upstream's
    /// permission is asked for.
    async fn blob_size(&self, ask: &Ask, digest: &Digest) -> Result<Option<u64>>;

    /// One page of tags in the upstream's order, from behind `after`.
    async fn tags(&self, ask: &Ask, after: Option<&Tag>, limit: usize) -> Result<Option<TagPage>>;

    /// What names `digest` as its subject; `Ok(None)` where the upstream has no such API.
    ///
    /// A filter that the upstream does not apply is applied here.
    async fn referrers(
        &self,
        ask: &Ask,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>>;

    /// Health by part, circuits and budget, as known now; asks nobody.
    fn state(&self) -> State;
}

/// What every call is made with.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The repository, without its registry.
    pub name: RepositoryName,
    /// Who waits for it.
    pub priority: Priority,
    /// As whom the upstream is asked.
    pub identity: Identity,
    /// How long the whole call may take, where that is shorter than its own time-outs. Whoever sets it holds a copy: such
    /// a call, like one of less priority than a client's, gets its answer at once from an open circuit, never probes, and
    /// opens the circuit only for its like when this time is up.
    pub within: Option<Duration>,
}

impl Ask {
    /// A client's question, with the configured credential.
    pub fn client(name: RepositoryName) -> Self {
        Self { name, priority: Priority::Client, identity: Identity::Configured, within: None }
    }
}

/// Who waits: clients come before revalidations, those before warming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Fetched ahead of its use.
    Warm,
    /// Looked at again while a copy is held.
    Revalidate,
    /// A client waits.
    Client,
}

/// As whom an upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// With the configured credential, where there is one.
    Configured,
    /// As anybody: how the upstream's own visibility is found out.
    Anonymous,
}

/// What a reference is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest's digest, as the upstream says.
    pub digest: Digest,
    /// Its media type, where the upstream says one.
    pub media_type: Option<MediaType>,
    /// Its bytes, where the upstream says so.
    pub size: Option<u64>,
}

/// A manifest as it came, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// The body, byte for byte.
    pub bytes: Bytes,
    /// The `Content-Type` as sent.
    pub content_type: String,
    /// The digest that the upstream claims; may be wrong.
    pub digest: Option<Digest>,
}

/// What is wanted of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The first byte.
    pub start: u64,
    /// One past the last byte; `None`: to the end.
    pub end: Option<u64>,
    /// The validator of an earlier answer that this one continues (`If-Range`).
    pub same_as: Option<String>,
}

/// A blob's bytes as they come.
pub struct Incoming {
    /// Where the first byte lies; an upstream that ignores the range begins at 0 whatever was wanted.
    pub start: u64,
    /// The whole blob's size, where the upstream says it.
    pub total: Option<u64>,
    /// A strong validator, for resuming.
    pub validator: Option<String>,
    /// The bytes; the stall time-out is inside. An end that came too early is an error, never a clean end.
    pub body: BoxStream<'static, Result<Bytes>>,
}

impl Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("start", &self.start).field("total", &self.total).finish_non_exhaustive()
    }
}

/// One page of tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagPage {
    /// In the upstream's order.
    pub tags: Vec<Tag>,
    /// Whether more come behind the last one.
    pub more: bool,
}

#[cfg(test)]
mod tests;
