//! Manifests: their exact bytes, and the links read from them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use super::Descriptor;
use super::Digest;
use super::MediaType;

/// A manifest or index. The bytes are what its digest covers: they are served as they came, never written anew.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The exact bytes.
    pub bytes: Bytes,
    /// The type that it is served with.
    pub media_type: MediaType,
    /// What it names.
    pub links: Links,
}

/// What a manifest names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The configuration of an image manifest.
    pub config: Option<Descriptor>,
    /// Its layers, or the blobs of an artifact.
    pub layers: Vec<Descriptor>,
    /// The entries of an index. BuildKit's older caches list blobs here: the descriptor's type tells which.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// The artifact's type, else the configuration's media type: what a list of referrers says of it.
    pub artifact_type: Option<String>,
    /// The manifest's notes.
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Links {
    /// Everything that it needs to be whole, the subject excepted.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers).chain(&self.manifests)
    }
}

/// What a manifest is, in the words of the image specification and of BuildKit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// An image manifest: a configuration and layers of an image.
    Image,
    /// An image index, or Docker's list of manifests.
    Index,
    /// A cache that BuildKit exported: an image manifest with the cache's configuration, or, as older versions write it,
    /// an index whose entries are the cache's blobs and that configuration.
    BuildCache,
    /// An artifact: an image manifest that says what else it is (image-spec, "Guidelines for Artifact Usage").
    Artifact,
    /// A manifest of a type that is not known here.
    Unknown,
}

impl Class {
    /// The word for it in lists and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Index => "index",
            Self::BuildCache => "buildcache",
            Self::Artifact => "artifact",
            Self::Unknown => "unknown",
        }
    }

    /// The class of a manifest of this type that has this [`Links::artifact_type`]. None for an index: its entries decide.
    pub fn of_single(media_type: &MediaType, artifact_type: Option<&str>) -> Option<Self> {
        if media_type.is_index() {
            return None;
        }
        Some(match artifact_type {
            Some(MediaType::BUILDKIT_CACHE) => Self::BuildCache,
            _ if media_type.as_str() == MediaType::OCI_ARTIFACT => Self::Artifact,
            _ if !media_type.is_image() => Self::Unknown,
            None | Some(MediaType::OCI_CONFIG | MediaType::DOCKER_CONFIG) => Self::Image,
            Some(_) => Self::Artifact,
        })
    }
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not JSON, or not an object with the fields of a manifest.
    #[error("not a manifest")]
    Json(#[source] serde_json::Error),
    /// The bytes do not begin as a JSON object does: HTML, UTF-16, an empty body.
    #[error("not a manifest: no JSON object")]
    NotAnObject,
    /// The document says another type than it was sent with [CVE-2021-41190].
    #[error("the manifest says {inside} and was sent as {outside}")]
    MediaType {
        /// What the document says.
        inside: String,
        /// What it was sent with.
        outside: String,
    },
    /// The document is an image and an index at once [CVE-2021-41190].
    #[error("the manifest has both layers and manifests")]
    Ambiguous,
    /// The type is not one that larder keeps: schema 1, HTML, plain text.
    #[error("{0} is not a manifest's media type")]
    NotOne(String),
}

/// The form of the document, lenient where the Go world writes `null` for an empty list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest that was sent as `content_type`. A document's own `mediaType` decides where the sender had
    /// only a general word (`application/json`, none at all); where both are manifests' types they must agree.
    pub fn parse(bytes: Bytes, content_type: &str) -> Result<Self, ManifestError> {
        let outside = MediaType::new(content_type);
        // A list would be read as a document that has its fields in order, all of them absent.
        if bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
            return Err(ManifestError::NotAnObject);
        }
        let document: Document = serde_json::from_slice(&bytes).map_err(ManifestError::Json)?;
        let media_type = Self::agreed(outside, document.media_type.as_deref(), &document)?;
        let has = |list: &Option<Vec<Descriptor>>| list.as_ref().is_some_and(|l| !l.is_empty());
        if has(&document.manifests) && (has(&document.layers) || document.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        let artifact_type = document.artifact_type.filter(|t| !t.is_empty());
        let links = Links {
            artifact_type: artifact_type.or_else(|| document.config.as_ref().map(|c| c.media_type.to_string())),
            config: document.config,
            layers: document.layers.or(document.blobs).unwrap_or_default(),
            manifests: document.manifests.unwrap_or_default(),
            subject: document.subject,
            annotations: document.annotations,
        };
        Ok(Self { bytes, media_type, links })
    }

    /// Reads a manifest as [`Manifest::parse`] does, and refuses what two readers could understand differently: an object
    /// that has a key twice.
    pub fn parse_strictly(bytes: Bytes, content_type: &str) -> Result<Self, ManifestError> {
        super::json::check_keys(&bytes).map_err(ManifestError::Json)?;
        Self::parse(bytes, content_type)
    }

    fn agreed(outside: MediaType, inside: Option<&str>, document: &Document) -> Result<MediaType, ManifestError> {
        let general = matches!(outside.as_str(), "" | "application/json" | "application/octet-stream" | "text/plain");
        match inside.map(MediaType::new) {
            Some(inside) if inside.is_manifest() && general => Ok(inside),
            Some(inside) if inside != outside => {
                Err(ManifestError::MediaType { inside: inside.to_string(), outside: outside.to_string() })
            }
            None if general && document.manifests.is_some() => Ok(MediaType::new(MediaType::OCI_INDEX)),
            None if general && document.config.is_some() && document.layers.is_some() => {
                Ok(MediaType::new(MediaType::OCI_MANIFEST))
            }
            _ if outside.may_be_manifest() => Ok(outside),
            _ => Err(ManifestError::NotOne(outside.to_string())),
        }
    }

    /// What it is.
    pub fn class(&self) -> Class {
        let single = Class::of_single(&self.media_type, self.links.artifact_type.as_deref());
        single.unwrap_or_else(|| {
            let entries = &self.links.manifests;
            let configured = entries.iter().any(|entry| entry.media_type.as_str() == MediaType::BUILDKIT_CACHE);
            let has_manifests = entries.iter().any(|entry| entry.media_type.is_manifest());
            if configured && !has_manifests { Class::BuildCache } else { Class::Index }
        })
    }

    /// The digest of the bytes by SHA-256.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, content_type: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(Bytes::copy_from_slice(text.as_bytes()), content_type)
    }

    #[test]
    fn lists_that_are_null_are_empty() {
        let manifest =
            parse(r#"{"schemaVersion":2,"layers":null,"annotations":null}"#, MediaType::OCI_MANIFEST).unwrap();
        assert_eq!(manifest.links, Links::default());
    }

    #[test]
    fn an_image_and_an_index_at_once_is_refused() {
        let d = r#"{"mediaType":"x/y","size":1,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
        let text = format!(r#"{{"layers":[{d}],"manifests":[{d}]}}"#);
        assert!(matches!(parse(&text, MediaType::OCI_INDEX), Err(ManifestError::Ambiguous)));
    }

    #[test]
    fn types_must_agree() {
        let text = format!(r#"{{"mediaType":"{}"}}"#, MediaType::OCI_INDEX);
        assert!(matches!(parse(&text, MediaType::OCI_MANIFEST), Err(ManifestError::MediaType { .. })));
        assert_eq!(parse(&text, "application/json").unwrap().media_type.as_str(), MediaType::OCI_INDEX);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for (text, content_type) in [
            ("<html>", "text/html"),
            ("{}", "text/html"),
            ("{}", "application/json"),
            ("[]", MediaType::OCI_MANIFEST),
            (r#"{"layers":"#, MediaType::OCI_MANIFEST),
            (r#"{"layers":[{"digest":"sha256:xyz","size":1,"mediaType":"a/b"}]}"#, MediaType::OCI_MANIFEST),
            ("{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
            ("{}", "application/vnd.docker.distribution.manifest.v1+json"),
            ("{}", "application/octet-stream"),
            ("{}", "application/problem+json"),
            ("{}", "application/xhtml+xml"),
        ] {
            assert!(parse(text, content_type).is_err(), "{text} as {content_type}");
        }
    }

    #[test]
    fn a_manifest_says_what_it_is() {
        let entry =
            |kind: &str| format!(r#"{{"mediaType":"{kind}","size":1,"digest":"{}"}}"#, Digest::of(kind.as_bytes()));
        let image = |config: &str, more: &str| format!(r#"{{{more}"config":{},"layers":[]}}"#, entry(config));
        let index = |entries: &[&str]| {
            let entries: Vec<String> = entries.iter().map(|kind| entry(kind)).collect();
            format!(r#"{{"manifests":[{}]}}"#, entries.join(","))
        };
        let (layer, cache) = ("application/vnd.oci.image.layer.v1.tar+gzip", MediaType::BUILDKIT_CACHE);
        for (text, media_type, class) in [
            (image(MediaType::OCI_CONFIG, ""), MediaType::OCI_MANIFEST, Class::Image),
            (image(MediaType::DOCKER_CONFIG, ""), MediaType::DOCKER_MANIFEST, Class::Image),
            (image(cache, ""), MediaType::OCI_MANIFEST, Class::BuildCache),
            (image(cache, ""), MediaType::DOCKER_MANIFEST, Class::BuildCache),
            (image("application/vnd.cncf.helm.config.v1+json", ""), MediaType::OCI_MANIFEST, Class::Artifact),
            (
                image("application/vnd.oci.empty.v1+json", r#""artifactType":"a/b","#),
                MediaType::OCI_MANIFEST,
                Class::Artifact,
            ),
            (image(MediaType::OCI_CONFIG, r#""artifactType":"a/b","#), MediaType::OCI_MANIFEST, Class::Artifact),
            (image(MediaType::OCI_CONFIG, r#""artifactType":"","#), MediaType::OCI_MANIFEST, Class::Image),
            (r#"{"blobs":[]}"#.to_owned(), MediaType::OCI_ARTIFACT, Class::Artifact),
            (index(&[MediaType::OCI_MANIFEST]), MediaType::OCI_INDEX, Class::Index),
            (index(&[]), MediaType::DOCKER_LIST, Class::Index),
            (index(&[layer, layer, cache]), MediaType::OCI_INDEX, Class::BuildCache),
            (index(&[layer, cache]), MediaType::DOCKER_LIST, Class::BuildCache),
            (index(&[layer]), MediaType::OCI_INDEX, Class::Index),
            // A list of images that mentions a cache is a list of images.
            (index(&[MediaType::OCI_MANIFEST, cache]), MediaType::OCI_INDEX, Class::Index),
            ("{}".to_owned(), "application/vnd.acme.thing.v1+json", Class::Unknown),
        ] {
            assert_eq!(parse(&text, media_type).unwrap().class(), class, "{text} as {media_type}");
        }
    }

    #[test]
    fn unknown_types_are_kept_as_they_are() {
        assert_eq!(
            parse("{}", "application/vnd.acme.thing.v1+json").unwrap().media_type.as_str(),
            "application/vnd.acme.thing.v1+json"
        );
    }
}
