//! Images made here: a static busybox as root file system, so that they also run, and an index over two platforms.

use std::fs;
use std::process::Command;

use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

use super::parts;
use super::parts::BUSYBOX;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image or an index, with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) media_type: &'static str,
    pub(crate) manifest: Vec<u8>,
    /// Config and layers; none of an index.
    pub(crate) blobs: Vec<Vec<u8>>,
    /// The images of an index.
    pub(crate) images: Vec<Image>,
}

impl Image {
    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Its last layer, as it is pulled.
    pub(crate) fn top_layer(&self) -> &[u8] {
        self.blobs.last().expect("an image has a layer")
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// An image that runs: `/bin/sh` and a file `/etc/marker` that tells it from others.
pub(crate) fn busybox(marker: &str) -> Image {
    image("amd64", &[root(marker)])
}

/// The same with a second layer of so many bytes that do not compress.
pub(crate) fn large(marker: &str, size: usize) -> Image {
    let mut filler = vec![0; size];
    fastrand::Rng::with_seed(7).fill(&mut filler);
    let mut layer = Tar::default();
    layer.file("filler", 0o644, &filler);
    image("amd64", &[root(marker), layer.finish()])
}

/// An index of an image for this machine and one for another.
pub(crate) fn index(marker: &str) -> Image {
    let images = vec![busybox(marker), image("arm64", &[root(&format!("{marker} for arm64"))])];
    let entries: Vec<Value> = images
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(image, architecture)| {
            let mut entry = descriptor(MANIFEST, &image.manifest);
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry
        })
        .collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    Image { media_type: INDEX, manifest: spaced(&manifest), blobs: Vec::new(), images }
}

fn image(architecture: &str, trees: &[Vec<u8>]) -> Image {
    let diff_ids: Vec<String> = trees.iter().map(|tree| digest(tree)).collect();
    let history: Vec<Value> = trees.iter().map(|_| json!({ "created_by": "a test" })).collect();
    let layers: Vec<Vec<u8>> = trees.iter().map(|tree| gzip(tree)).collect();
    let config = serde_json::to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    }))
    .expect("JSON values serialise");
    let described: Vec<Value> = layers.iter().map(|layer| descriptor(LAYER, layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config), "layers": described,
    });
    let blobs = std::iter::once(config).chain(layers).collect();
    Image { media_type: MANIFEST, manifest: spaced(&manifest), blobs, images: Vec::new() }
}

/// An unusual form on purpose: whoever serialises a manifest anew changes its digest.
fn spaced(manifest: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(manifest).expect("JSON values serialise");
    bytes.extend_from_slice(b"\n \n");
    bytes
}

/// Compressed as layers usually are: crane takes each for gzip.
fn gzip(tree: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("making a file for a layer");
    fs::write(file.path(), tree).expect("writing a layer");
    let path = file.path().with_extension("gz");
    let mut command = Command::new("gzip");
    parts::run(command.args(["-1", "--no-name", "--keep", "--force", "--suffix", ".gz"]).arg(file.path()))
        .expect("gzip");
    let compressed = fs::read(&path).expect("reading a compressed layer");
    fs::remove_file(&path).expect("removing a compressed layer");
    compressed
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

fn root(marker: &str) -> Vec<u8> {
    let busybox = fs::read(BUSYBOX.path()).expect("reading busybox");
    let mut tar = Tar::default();
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
        tar.entry(folder, 0o755, b'5', b"");
    }
    for name in ["bin/sh", "bin/cat"] {
        tar.file(name, 0o755, &busybox);
    }
    tar.file("etc/marker", 0o644, marker.as_bytes());
    tar.finish()
}

/// A tar archive (POSIX ustar) of plain files and folders.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, mode, b'0', content);
    }

    fn entry(&mut self, name: &str, mode: u32, kind: u8, content: &[u8]) {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].copy_from_slice(b"        ");
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
