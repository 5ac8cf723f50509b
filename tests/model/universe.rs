//! What there is: a few blobs and manifests that share, name and refer to each other in every way.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use larder::oci::Digest;
use larder::oci::Manifest;
use larder::oci::MediaType;
use larder::oci::RepositoryKey;
use larder::oci::Tag;

pub(crate) const REPOSITORIES: usize = 2;
pub(crate) const TAGS: usize = 3;
pub(crate) const RUNS: usize = 2;

pub(crate) static UNIVERSE: LazyLock<Universe> = LazyLock::new(Universe::new);

#[derive(Debug)]
pub(crate) struct Universe {
    pub(crate) blobs: Vec<String>,
    pub(crate) manifests: Vec<Known>,
}

/// A manifest, and what it is to others.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) manifest: Manifest,
    pub(crate) digest: Digest,
    pub(crate) blobs: BTreeSet<Digest>,
    pub(crate) children: BTreeSet<Digest>,
    pub(crate) subject: Option<Digest>,
}

pub(crate) fn hosted(at: usize) -> RepositoryKey {
    RepositoryKey::from_path(["_hosted/cache/a", "_hosted/cache/b"][at]).unwrap()
}

pub(crate) fn proxied() -> RepositoryKey {
    RepositoryKey::from_path("docker.io/library/x").unwrap()
}

pub(crate) fn tag(at: usize) -> Tag {
    format!("t{at}").parse().unwrap()
}

impl Universe {
    fn new() -> Self {
        let blobs: Vec<String> = (0..5).map(|n| format!("blob {n}")).collect();
        let mut manifests = Vec::new();
        for layers in [&[0][..], &[0, 1], &[1, 2, 3], &[3], &[2, 4]] {
            manifests.push(image(&blobs, layers, None));
        }
        for (layer, subject) in [(4, 0), (3, 1), (1, 5)] {
            let subject = manifests[subject].digest;
            manifests.push(image(&blobs, &[layer], Some(subject)));
        }
        // The last of them names an index, and one names a referrer.
        for children in [&[0, 1][..], &[1, 2, 5], &[3, 8], &[4]] {
            let children: Vec<Digest> = children.iter().map(|at| manifests[*at].digest).collect();
            manifests.push(index(&children));
        }
        let of_index = manifests[8].digest;
        manifests.push(image(&blobs, &[0], Some(of_index)));
        Self { blobs, manifests }
    }

    pub(crate) fn known(&self, digest: &Digest) -> Option<&Known> {
        self.manifests.iter().find(|known| known.digest == *digest)
    }

    /// Everything that a repository can have.
    pub(crate) fn all(&self) -> impl Iterator<Item = Digest> {
        self.blobs.iter().map(|text| Digest::of(text.as_bytes())).chain(self.manifests.iter().map(|known| known.digest))
    }
}

fn described(digest: &Digest, media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":6}}"#)
}

fn image(blobs: &[String], layers: &[usize], subject: Option<Digest>) -> Known {
    let layers: BTreeSet<Digest> = layers.iter().map(|at| Digest::of(blobs[*at].as_bytes())).collect();
    let written: Vec<String> = layers.iter().map(|layer| described(layer, "application/x")).collect();
    let of = subject.map(|of| format!(r#""subject":{},"#, described(&of, MediaType::OCI_MANIFEST))).unwrap_or_default();
    let media_type = MediaType::OCI_MANIFEST;
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}",{of}"layers":[{}]}}"#, written.join(","));
    let manifest = Manifest::parse(text.into(), media_type).unwrap();
    Known { digest: manifest.digest(), manifest, blobs: layers, children: BTreeSet::new(), subject }
}

fn index(children: &[Digest]) -> Known {
    let written: Vec<String> = children.iter().map(|child| described(child, MediaType::OCI_MANIFEST)).collect();
    let media_type = MediaType::OCI_INDEX;
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#, written.join(","));
    let manifest = Manifest::parse(text.into(), media_type).unwrap();
    let children = children.iter().copied().collect();
    Known { digest: manifest.digest(), manifest, blobs: BTreeSet::new(), children, subject: None }
}
