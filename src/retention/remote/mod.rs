//! Remote registries in which policies may delete: the contract, and what a deletion ends in.
//!
//! An adapter lists a repository whole or not at all, says beforehand which calls would delete what, and carries each of
//! them out after it has looked again. It decides nothing: what goes is the plan's. What it refuses is what would take more
//! along than the plan names.

mod api;
mod deletes;
mod dialect;
mod dockerhub;
mod ecr;
mod gar;
mod ghcr;
mod gitlab;
mod graph;
mod harbor;
mod oci;
mod quay;
mod registry;
mod sigv4;
mod trees;
mod versions;
mod watch;

use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde::Serialize;

use crate::config;
use crate::config::retention::Adapter;
use crate::oci::Digest;
use crate::oci::RepositoryName;
use crate::oci::Tag;
use crate::upstream::Deps;

use super::records::Holding;
use api::Api;

pub use crate::upstream::Error;
pub use crate::upstream::Fault;
pub use dialect::Caps;

/// What a question to a registry ends in.
pub type Result<T> = std::result::Result<T, Error>;

/// One remote registry.
#[async_trait]
pub trait Remote: Debug + Send + Sync {
    /// All repositories that a pattern may reach, whole. `Ok(None)`: this registry, or its configuration, lists none, and
    /// only names that are written out reach anything.
    ///
    /// # Errors
    /// The list could not be had whole: a pattern over this registry deletes nothing.
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>>;

    /// Everything that the repository has, whole, with the trees of its manifests.
    ///
    /// # Errors
    /// It could not be had whole: nothing may be deleted in this repository. So it is also where the registry has no such
    /// repository or does not show it.
    async fn list(&self, repository: &RepositoryName) -> Result<Holding>;

    /// How these would be deleted: the calls in the order in which they must be made, and what can't be deleted. Asks
    /// nobody. `holding` is what [`Remote::list`] gave.
    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>);

    /// Makes one call, after it has looked at what the call is about again; never does anything else than what `call` says.
    ///
    /// # Errors
    /// It is not known whether it was done, or the registry could not be asked.
    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome>;
}

/// What a plan lets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doomed {
    /// A tag, while it means this.
    Tag {
        /// The tag.
        tag: Tag,
        /// What it means.
        digest: Digest,
    },
    /// A manifest that no tag means.
    Untagged {
        /// The manifest.
        digest: Digest,
    },
}

/// One request that deletes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What it deletes.
    pub target: Target,
    /// The request as it is sent, for people; without credentials.
    pub request: String,
}

/// What one call deletes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A tag by its name. Where that is its manifest's last tag, some registries delete the manifest too.
    Tag {
        /// The tag.
        tag: Tag,
        /// What it means.
        digest: Digest,
        /// The manifests that name what goes with it, and that go before it.
        after: Vec<Digest>,
    },
    /// A manifest with every tag that means it.
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Every tag that means it; all of them are in the plan.
        tags: Vec<Tag>,
        /// What the registry calls it, where that is not its digest.
        id: Option<String>,
        /// The manifests that name it, and that go before it.
        after: Vec<Digest>,
    },
}

impl Target {
    /// The manifest that it is about.
    pub fn digest(&self) -> &Digest {
        match self {
            Self::Tag { digest, .. } | Self::Manifest { digest, .. } => digest,
        }
    }

    /// The tag that it deletes by name, and what that means; none where it deletes a manifest.
    pub fn tag(&self) -> Option<(&Tag, &Digest)> {
        match self {
            Self::Tag { tag, digest, .. } => Some((tag, digest)),
            Self::Manifest { .. } => None,
        }
    }

    /// The tags that go by it.
    pub fn tags(&self) -> &[Tag] {
        match self {
            Self::Tag { tag, .. } => std::slice::from_ref(tag),
            Self::Manifest { tags, .. } => tags,
        }
    }

    /// The manifests that must be gone before it.
    pub fn after(&self) -> &[Digest] {
        match self {
            Self::Tag { after, .. } | Self::Manifest { after, .. } => after,
        }
    }
}

/// Something that can't be deleted there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What.
    pub doomed: Doomed,
    /// Why.
    pub why: Why,
}

/// Why something can't be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The registry deletes whole manifests, and tags that are kept mean this one too.
    Shared {
        /// These.
        kept: Vec<Tag>,
    },
    /// The manifest would go with it, and what is kept needs that.
    Needed {
        /// The tags that are kept and whose trees have it.
        kept: Vec<Tag>,
        /// The manifests that are kept and name it.
        by: Vec<Digest>,
    },
    /// The tag means something else by now.
    Moved,
    /// It is not there any more.
    Absent,
    /// Tags mean it.
    Tagged {
        /// These.
        tags: Vec<Tag>,
    },
    /// The registry deletes by tag only, or not by digest alone.
    ByTagOnly,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared { kept } => {
                write!(
                    f,
                    "the kept {} the same manifest, and this registry deletes it with all of its tags",
                    means(kept)
                )
            }
            Self::Needed { kept, by } if kept.is_empty() => {
                let by: Vec<String> = by.iter().map(Digest::to_string).collect();
                write!(f, "its manifest would go too, and {} names it and is kept", by.join(", "))
            }
            Self::Needed { kept, .. } => {
                write!(f, "its manifest would go too, and the kept {} it", needs(kept))
            }
            Self::Moved => f.write_str("the tag means something else by now"),
            Self::Absent => f.write_str("it is not there any more"),
            Self::Tagged { tags } => write!(f, "the {} it", means(tags)),
            Self::ByTagOnly => f.write_str("this registry deletes by tag only"),
        }
    }
}

fn means(tags: &[Tag]) -> String {
    if let [tag] = tags { format!("tag {tag} means") } else { format!("tags {} mean", listed(tags)) }
}

fn needs(tags: &[Tag]) -> String {
    if let [tag] = tags { format!("tag {tag} needs") } else { format!("tags {} need", listed(tags)) }
}

fn listed(tags: &[Tag]) -> String {
    tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", ")
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is deleted.
    Deleted,
    /// It is something else than when it was planned, and stays: another digest, other tags.
    Moved,
    /// Somebody else deleted it.
    AlreadyGone,
    /// The registry can't delete so. Nothing was deleted, and nothing more is sent to it.
    Unsupported(String),
    /// The registry, or a look at what is there now, says no to this one.
    Refused(String),
}

/// Sets up the adapter of the registry that is called `host` in image names; asks nobody yet. What `config` leaves out is as
/// `upstream`, the upstream of that host, has it.
///
/// # Errors
/// Certificates, a proxy or an address can't be used.
pub fn open(
    host: &str,
    config: &config::retention::Remote,
    upstream: Option<&config::Upstream>,
    deps: &Deps,
) -> Result<Arc<dyn Remote>> {
    let registry = registry::Registry::open(host, config, upstream, deps)?;
    let api = |default: &str| Api::open(host, default, config, upstream, deps);
    Ok(match config.adapter {
        Adapter::Oci => Arc::new(oci::Oci::new(registry)),
        Adapter::Ghcr => Arc::new(ghcr::Ghcr::new(registry, api(ghcr::API)?, config.owners.clone())),
        Adapter::DockerHub => {
            Arc::new(dockerhub::DockerHub::new(registry, api(dockerhub::API)?, config.owners.clone()))
        }
        Adapter::Ecr => Arc::new(ecr::Ecr::new(registry, api(&ecr::api_of(host))?)),
        Adapter::Gitlab => Arc::new(gitlab::Gitlab::new(registry, api(gitlab::API)?, config.owners.clone())),
        Adapter::Harbor => {
            let api = api(&registry.base())?;
            Arc::new(harbor::Harbor::new(registry, api, config.owners.clone()))
        }
        Adapter::Quay => {
            let api = api(&registry.base())?;
            Arc::new(quay::Quay::new(registry, api, config.owners.clone()))
        }
        Adapter::Gar => Arc::new(gar::Gar::new(registry, api(gar::API)?, config.owners.clone())),
    })
}
