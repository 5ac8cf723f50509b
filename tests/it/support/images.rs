//! Images made by code, with bytes that nobody else has.

use larder::oci::Digest;
use larder::oci::MediaType;

use super::random::bytes;

/// An image manifest with its blobs.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
    pub blobs: Vec<(Digest, Vec<u8>)>,
    /// The images of an index.
    pub children: Vec<Image>,
}

impl Image {
    /// The same configuration over these layers.
    pub fn with_layers(&self, layers: Vec<Vec<u8>>) -> Self {
        let config = self.blobs.first().unwrap().1.clone();
        described(MediaType::OCI_CONFIG, std::iter::once(config).chain(layers).collect())
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, Digest::of(content), content.len())
}

/// An image whose layers have these sizes. The document has an unusual form on purpose: its bytes must survive.
pub fn image(seed: u64, layers: &[usize]) -> Image {
    let layers: Vec<Vec<u8>> = layers.iter().enumerate().map(|(i, n)| bytes(seed * 1000 + i as u64 + 1, *n)).collect();
    let config = format!(r#"{{"architecture":"amd64","os":"linux","config":{{}},"of":{seed}}}"#).into_bytes();
    let listed: Vec<String> = layers.iter().map(|l| descriptor("application/vnd.oci.image.layer.v1.tar", l)).collect();
    let manifest = format!(
        "{{ \"schemaVersion\": 2,\n \"mediaType\":\"{}\",\n  \"config\":{},\"layers\":[{}] }}\n",
        MediaType::OCI_MANIFEST,
        descriptor("application/vnd.oci.image.config.v1+json", &config),
        listed.join(",")
    )
    .into_bytes();
    let blobs = std::iter::once(config).chain(layers).map(|b| (Digest::of(&b), b)).collect();
    Image {
        digest: Digest::of(&manifest),
        manifest,
        media_type: MediaType::OCI_MANIFEST.into(),
        blobs,
        children: Vec::new(),
    }
}

/// An index of these images.
pub fn index(children: &[Image]) -> Image {
    let listed: Vec<String> = children
        .iter()
        .zip(["amd64", "arm64", "s390x"])
        .map(|(c, arch)| {
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
                c.media_type,
                c.digest,
                c.manifest.len()
            )
        })
        .collect();
    let manifest =
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#, MediaType::OCI_INDEX, listed.join(","))
            .into_bytes();
    Image {
        digest: Digest::of(&manifest),
        manifest,
        media_type: MediaType::OCI_INDEX.into(),
        blobs: Vec::new(),
        children: children.to_vec(),
    }
}

/// The document of a manifest with these blobs, the first of them its configuration.
fn described(config_type: &str, blobs: Vec<Vec<u8>>) -> Image {
    let listed: Vec<String> =
        blobs.iter().skip(1).map(|l| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", l)).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        MediaType::OCI_MANIFEST,
        descriptor(config_type, &blobs[0]),
        listed.join(",")
    );
    of_document(manifest, MediaType::OCI_MANIFEST, blobs)
}

fn of_document(manifest: String, media_type: &str, blobs: Vec<Vec<u8>>) -> Image {
    let manifest = manifest.into_bytes();
    let blobs = blobs.into_iter().map(|b| (Digest::of(&b), b)).collect();
    Image { digest: Digest::of(&manifest), manifest, media_type: media_type.into(), blobs, children: Vec::new() }
}

/// A cache as BuildKit exports it: an image manifest.
pub fn build_cache(seed: u64) -> Image {
    let config = format!(r#"{{"layers":[],"records":[],"of":{seed}}}"#).into_bytes();
    described(MediaType::BUILDKIT_CACHE, vec![config, bytes(seed, 500)])
}

/// A cache as BuildKit exported it before: an index of blobs.
pub fn build_cache_index(seed: u64) -> Image {
    let config = format!(r#"{{"layers":[],"records":[],"of":{seed}}}"#).into_bytes();
    let layer = bytes(seed, 500);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{}]}}"#,
        MediaType::OCI_INDEX,
        descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer),
        descriptor(MediaType::BUILDKIT_CACHE, &config),
    );
    of_document(manifest, MediaType::OCI_INDEX, vec![config, layer])
}

/// An image with its build cache in its configuration.
pub fn image_with_cache(seed: u64) -> Image {
    let config = format!(r#"{{"architecture":"amd64","os":"linux","of":{seed},"moby.buildkit.cache.v0":"e30="}}"#);
    described("application/vnd.oci.image.config.v1+json", vec![config.into_bytes(), bytes(seed, 500)])
}

/// What refers to `subject`.
pub fn referrer(seed: u64, subject: &Image, artifact_type: &str) -> Image {
    let empty = b"{}".to_vec();
    let layer = bytes(seed, 100);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"{artifact_type}","config":{},"layers":[{}],"subject":{{"mediaType":"{}","digest":"{}","size":{}}},"annotations":{{"of":"{seed}"}}}}"#,
        MediaType::OCI_MANIFEST,
        descriptor("application/vnd.oci.empty.v1+json", &empty),
        descriptor("application/octet-stream", &layer),
        subject.media_type,
        subject.digest,
        subject.manifest.len()
    )
    .into_bytes();
    let blobs = vec![(Digest::of(&empty), empty), (Digest::of(&layer), layer)];
    Image {
        digest: Digest::of(&manifest),
        manifest,
        media_type: MediaType::OCI_MANIFEST.into(),
        blobs,
        children: Vec::new(),
    }
}

impl Image {
    /// The n-th blob: 0 is the configuration.
    pub fn blob(&self, n: usize) -> (Digest, Vec<u8>) {
        self.blobs[n].clone()
    }
}
