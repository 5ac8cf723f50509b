//! Media types of manifests and of what they name.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

/// A media type as it was sent, without parameters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(Arc<str>);

impl MediaType {
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// Docker's image manifest, schema 2.
    pub const DOCKER_MANIFEST: &'static str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &'static str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// The manifest of ORAS artifacts, which some registries still hold.
    pub const OCI_ARTIFACT: &'static str = "application/vnd.oci.artifact.manifest.v1+json";
    /// The configuration of an OCI image.
    pub const OCI_CONFIG: &'static str = "application/vnd.oci.image.config.v1+json";
    /// The configuration of one of Docker's.
    pub const DOCKER_CONFIG: &'static str = "application/vnd.docker.container.image.v1+json";
    /// The configuration that marks a BuildKit cache.
    pub const BUILDKIT_CACHE: &'static str = "application/vnd.buildkit.cacheconfig.v0";

    /// Takes a `Content-Type` value: parameters are dropped, letters taken as lower case.
    pub fn new(text: &str) -> Self {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self(essence.to_ascii_lowercase().into())
    }

    /// The type in writing.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names a manifest of any kind: what lives under `/manifests/`, not under `/blobs/`.
    pub fn is_manifest(&self) -> bool {
        self.is_index() || self.is_image() || &*self.0 == Self::OCI_ARTIFACT
    }

    /// Whether it may name a manifest: one of those, or one that is not known yet. General words for any JSON and any
    /// bytes don't, nor does schema 1, whose digests are not those of its bytes.
    pub fn may_be_manifest(&self) -> bool {
        let kind = self.0.strip_prefix("application/vnd.");
        kind.is_some_and(|kind| kind.ends_with("+json") && !kind.starts_with("docker.distribution.manifest.v1+"))
    }

    /// Whether it names a layer that registries need not have (image-spec, "Non-Distributable Layers").
    pub fn is_nondistributable(&self) -> bool {
        self.0.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self.0.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }

    /// Whether it names a list of manifests.
    pub fn is_index(&self) -> bool {
        matches!(&*self.0, Self::OCI_INDEX | Self::DOCKER_LIST)
    }

    /// Whether it names the manifest of one image: config and layers.
    pub fn is_image(&self) -> bool {
        matches!(&*self.0, Self::OCI_MANIFEST | Self::DOCKER_MANIFEST)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        let parsed = MediaType::new("Application/vnd.oci.image.index.v1+JSON; charset=utf-8");
        assert_eq!(parsed.as_str(), MediaType::OCI_INDEX);
        assert!(parsed.is_index() && parsed.is_manifest() && !parsed.is_image());
    }
}
