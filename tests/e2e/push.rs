//! Pushes: what each client says to a registry when it pushes, and whether all of it is there afterwards.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use crate::docker;
use crate::docker::Dockerd;
use crate::support::client;
use crate::support::content;
use crate::support::content::assert_whole;
use crate::support::images;
use crate::support::images::Image;
use crate::support::images::digest;
use crate::support::larder;
use crate::support::larder::Larder;
use crate::support::parts;
use crate::support::parts::BUILDAH;
use crate::support::parts::BUSYBOX;
use crate::support::parts::CRANE;
use crate::support::parts::ORAS;
use crate::support::parts::Outcome;
use crate::support::parts::Part;
use crate::support::parts::REGCTL;
use crate::support::parts::SKOPEO;
use crate::support::parts::Scratch;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// larder with an image `cache/app:1` and an index `cache/multi:1`.
#[derive(Debug)]
struct Hosted {
    larder: Larder,
    app: Image,
    multi: Image,
    scratch: Scratch,
}

impl Hosted {
    fn new() -> Self {
        let scratch = Scratch::new();
        let larder = Larder::hosting(&scratch, &json!({}));
        let (app, multi) = (images::large("app", 3 << 20), images::index("multi"));
        content::push(&larder.url(), "cache/app", "1", &app);
        content::push(&larder.url(), "cache/multi", "1", &multi);
        Self { larder, app, multi, scratch }
    }

    /// `HOST:PORT/cache/NAME:TAG`.
    fn at(&self, name: &str) -> String {
        format!("{}/cache/{name}", self.larder.address())
    }

    /// Everything under the tag is there, and the manifest is this one.
    #[track_caller]
    fn assert_holds(&self, name: &str, tag: &str, digest: &str) {
        assert_eq!(assert_whole(&self.larder.url(), &format!("cache/{name}"), tag), digest, "cache/{name}:{tag}");
    }

    fn media_type(&self, name: &str, tag: &str) -> String {
        content::manifest(&self.larder.url(), &format!("cache/{name}"), tag).header("content-type").to_owned()
    }

    fn tags(&self, name: &str) -> Vec<String> {
        let listed = client::get(&format!("{}/v2/cache/{name}/tags/list", self.larder.url())).expect("listing tags");
        let listed: Value = serde_json::from_slice(&listed.body).expect("a list of tags is JSON");
        let tags = listed["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    }

    fn policy(&self) -> PathBuf {
        self.scratch.file("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
    }

    fn skopeo(&self, arguments: &[&str]) -> Outcome {
        let mut command = SKOPEO.command();
        command.arg("--policy").arg(self.policy());
        command.args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        parts::run(command.args(arguments))
    }

    fn regctl(&self, arguments: &[&str]) -> Outcome {
        let host = format!("reg={},tls=disabled", self.larder.address());
        parts::run(REGCTL.command().env("HOME", self.scratch.path()).arg("--host").arg(host).args(arguments))
    }

    fn oras(&self, arguments: &[&str]) -> Outcome {
        let mut command = ORAS.command();
        command.current_dir(self.scratch.path()).env("DOCKER_CONFIG", self.scratch.path());
        parts::run(command.args(arguments))
    }
}

fn is_here(part: Part) -> bool {
    parts::are_here(&[part, parts::REGISTRY, BUSYBOX])
}

fn crane(arguments: &[&str]) -> Outcome {
    parts::run(CRANE.command().arg(arguments[0]).arg("--insecure").args(&arguments[1..]))
}

#[test]
fn docker_pushes_an_image_mounts_its_layers_into_another_repository_and_pulls_it_again() {
    if !docker::is_here() {
        return;
    }
    let hosted = Hosted::new();
    let dockerd = Dockerd::start(&hosted.scratch, "{}");
    let docker = |arguments: &[&str]| parts::run(dockerd.docker().args(arguments));
    let (app, pushed, other) = (hosted.at("app:1"), hosted.at("docker:main"), hosted.at("other:main"));
    let file = hosted.scratch.file("context/Dockerfile", &format!("FROM {app}\nCOPY Dockerfile /dockerfile\n"));
    let context = file.parent().expect("a file lies in a folder").display().to_string();
    docker(&["build", "--tag", &pushed, "--tag", &other, &context]).expect("docker build");
    let said = docker(&["push", &pushed]).expect("docker push").out;
    assert!(said.contains("Mounted from cache/app"), "the base's layers are not uploaded again: {said}");
    let said = docker(&["push", &other]).expect("docker push to a second repository").out;
    assert!(!said.contains("Pushed"), "no layer is uploaded again: {said}");

    let own = assert_whole(&hosted.larder.url(), "cache/docker", "main");
    hosted.assert_holds("other", "main", &own);
    assert_eq!(hosted.media_type("docker", "main"), DOCKER_MANIFEST);
    let said = docker(&["push", &pushed]).expect("docker push of what is there").out;
    assert!(said.contains(&own), "a second push gives the same digest: {said}");

    docker(&["rmi", "--force", &pushed, &other, &app]).expect("docker rmi");
    let said = docker(&["pull", &pushed]).expect("docker pull").out;
    assert!(said.contains(&own), "docker pulled something else than {own}: {said}");
    let said = docker(&["run", "--rm", "--network", "none", &pushed, "/bin/cat", "/etc/marker", "/dockerfile"]);
    assert!(said.expect("docker run").out.starts_with("appFROM"), "the image runs");
}

#[test]
fn skopeo_copies_an_index_whole_and_converts_to_dockers_types() {
    if !is_here(SKOPEO) {
        return;
    }
    let hosted = Hosted::new();
    let docker = |name: &str| format!("docker://{}", hosted.at(name));
    let (from, copy) = (docker("multi:1"), docker("skopeo:1"));
    hosted.skopeo(&["--all", "--preserve-digests", &from, &copy]).expect("skopeo copy within larder");
    hosted.assert_holds("skopeo", "1", &hosted.multi.digest());

    let folder = format!("oci:{}:1", hosted.scratch.folder("layout").display());
    hosted.skopeo(&[&docker("app:1"), &folder]).expect("skopeo copy to a layout");
    let laid = fs::read_to_string(hosted.scratch.path().join("layout/index.json")).expect("reading the layout");
    let laid: Value = serde_json::from_str(&laid).expect("the layout's index is JSON");
    assert_eq!(laid["manifests"][0]["digest"], hosted.app.digest(), "the manifest's bytes survive");
    hosted.skopeo(&["--preserve-digests", &folder, &docker("skopeo:2")]).expect("skopeo copy from a layout");
    hosted.assert_holds("skopeo", "2", &hosted.app.digest());

    let converted = docker("skopeo:docker");
    hosted.skopeo(&["--format", "v2s2", &docker("app:1"), &converted]).expect("skopeo copy --format v2s2");
    assert_whole(&hosted.larder.url(), "cache/skopeo", "docker");
    assert_eq!(hosted.media_type("skopeo", "docker"), DOCKER_MANIFEST);
    hosted.skopeo(&["--all", "--format", "v2s2", &from, &docker("skopeo:list")]).expect("skopeo copy --all");
    assert_whole(&hosted.larder.url(), "cache/skopeo", "list");
    assert_eq!(hosted.media_type("skopeo", "list"), DOCKER_LIST);
    let mut tags = hosted.tags("skopeo");
    tags.sort();
    assert_eq!(tags, ["1", "2", "docker", "list"]);
}

#[test]
fn buildah_builds_on_an_image_of_larders_and_pushes() {
    if !parts::are_here_with_root(&[BUILDAH, BUSYBOX]) {
        return;
    }
    let hosted = Hosted::new();
    let folder = hosted.scratch.folder("buildah");
    let policy = hosted.policy();
    let buildah = |command: &str, arguments: &[&str]| {
        let mut buildah = BUILDAH.command();
        buildah.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
        buildah.args(["--storage-driver", "vfs", command, "--tls-verify=false", "--signature-policy"]).arg(&policy);
        parts::run(buildah.args(arguments))
    };
    let dockerfile = format!("FROM {}\nRUN echo built > /built\n", hosted.at("app:1"));
    let file = hosted.scratch.file("context/Dockerfile", &dockerfile);
    let context = file.parent().expect("a file lies in a folder").display().to_string();
    let image = hosted.at("buildah:main");
    buildah("build", &["--isolation", "chroot", "--tag", &image, &context]).expect("buildah build");
    buildah("push", &[&image]).expect("buildah push");
    let own = assert_whole(&hosted.larder.url(), "cache/buildah", "main");
    assert_eq!(hosted.media_type("buildah", "main"), images::MANIFEST);
    buildah("push", &["--format", "docker", &image, &format!("docker://{}", hosted.at("buildah:docker"))])
        .expect("buildah push --format docker");
    assert_eq!(hosted.media_type("buildah", "docker"), DOCKER_MANIFEST);
    assert_ne!(assert_whole(&hosted.larder.url(), "cache/buildah", "docker"), own);
}

#[test]
fn crane_copies_appends_tags_lists_and_deletes() {
    if !is_here(CRANE) {
        return;
    }
    let hosted = Hosted::new();
    crane(&["copy", &hosted.at("multi:1"), &hosted.at("crane:1")]).expect("crane copy");
    hosted.assert_holds("crane", "1", &hosted.multi.digest());
    crane(&["validate", "--remote", &hosted.at("crane:1")]).expect("crane validate");

    let layer = hosted.scratch.path().join("layer.tar.gz");
    fs::write(&layer, hosted.app.top_layer()).expect("writing a layer");
    let layer = layer.display().to_string();
    let (base, appended) = (hosted.at("app:1"), hosted.at("crane:2"));
    crane(&["append", "--base", &base, "--new_layer", &layer, "--new_tag", &appended]).expect("crane append");
    let own = assert_whole(&hosted.larder.url(), "cache/crane", "2");
    crane(&["tag", &appended, "3"]).expect("crane tag");
    hosted.assert_holds("crane", "3", &own);
    let listed = crane(&["ls", &hosted.at("crane")]).expect("crane ls").out;
    let mut listed: Vec<&str> = listed.split_whitespace().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["1", "2", "3"]);

    crane(&["delete", &format!("{}@{own}", hosted.at("crane"))]).expect("crane delete of a digest");
    assert_eq!(hosted.tags("crane"), ["1"], "with the manifest go the tags that name it");
    assert_eq!(content::manifest(&hosted.larder.url(), "cache/crane", "2").status, 404);
    hosted.assert_holds("app", "1", &hosted.app.digest());
}

#[test]
fn regctl_copies_deletes_a_tag_alone_and_pushes_a_blob_in_chunks() {
    if !is_here(REGCTL) {
        return;
    }
    let hosted = Hosted::new();
    hosted.regctl(&["image", "copy", &hosted.at("multi:1"), &hosted.at("regctl:1")]).expect("regctl image copy");
    hosted.assert_holds("regctl", "1", &hosted.multi.digest());
    hosted.regctl(&["image", "copy", &hosted.at("app:1"), &hosted.at("regctl:2")]).expect("regctl image copy");
    hosted.regctl(&["image", "copy", &hosted.at("regctl:2"), &hosted.at("regctl:3")]).expect("regctl image copy");
    hosted.regctl(&["tag", "delete", &hosted.at("regctl:2")]).expect("regctl tag delete");
    let listed = hosted.regctl(&["tag", "ls", &hosted.at("regctl")]).expect("regctl tag ls").out;
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["1", "3"], "the other tag of the digest stays");
    hosted.assert_holds("regctl", "3", &hosted.app.digest());

    let size = hosted.app.top_layer().len();
    let file = hosted.scratch.path().join("blob");
    fs::write(&file, hosted.app.top_layer()).expect("writing a blob");
    let chunked = format!("reg={},tls=disabled,blobChunk=1000000,blobMax=1", hosted.larder.address());
    let mut command = std::process::Command::new("sh");
    command.env("HOME", hosted.scratch.path()).arg("-c").arg(r#"exec "$0" --host "$1" blob put "$2" <"$3""#);
    command.arg(REGCTL.path()).arg(chunked).arg(hosted.at("chunks")).arg(&file);
    let put = parts::run(&mut command).expect("regctl blob put").out;
    let named = digest(hosted.app.top_layer());
    assert_eq!(put.trim(), named);
    let got = client::get(&format!("{}/v2/cache/chunks/blobs/{named}", hosted.larder.url())).expect("asking for it");
    assert_eq!((got.status.as_u16(), got.body.len()), (200, size));
}

/// docker-registry 2.8 has no referrers: clients keep a list under a tag there.
#[test]
fn oras_pushes_an_artifact_attaches_a_referrer_and_copies_both() {
    if !is_here(ORAS) {
        return;
    }
    let hosted = Hosted::new();
    hosted.scratch.file("file.txt", "an artifact");
    hosted.scratch.file("signature.txt", "a signature");
    let (artifact, copy) = (hosted.at("oras:1"), hosted.at("copied:1"));
    let kind = "application/vnd.test.artifact";
    hosted
        .oras(&["push", "--plain-http", "--artifact-type", kind, &artifact, "file.txt:text/plain"])
        .expect("oras push");
    let own = assert_whole(&hosted.larder.url(), "cache/oras", "1");
    let signature = "application/vnd.test.signature";
    hosted
        .oras(&["attach", "--plain-http", "--artifact-type", signature, &artifact, "signature.txt:text/plain"])
        .expect("oras attach");
    let arguments = ["copy", "--recursive", "--from-plain-http", "--to-plain-http", artifact.as_str(), copy.as_str()];
    hosted.oras(&arguments).expect("oras copy --recursive");
    hosted.assert_holds("copied", "1", &own);
    for repository in ["oras", "copied"] {
        let image = hosted.at(&format!("{repository}:1"));
        let found = hosted.oras(&["discover", "--plain-http", "--output", "json", &image]).expect("oras discover").out;
        assert!(found.contains(signature), "the referrer of {image}: {found}");
        if !larder::is_peer() {
            let url = format!("{}/v2/cache/{repository}/referrers/{own}", hosted.larder.url());
            let listed = client::get(&url).expect("asking for referrers");
            let listed: Value = serde_json::from_slice(&listed.body).expect("referrers are JSON");
            assert_eq!(listed["manifests"][0]["artifactType"], signature, "{listed}");
            assert_eq!(hosted.tags(repository), ["1"], "no client had to keep a list under a tag");
        }
    }
    let folder = hosted.scratch.folder("pulled").display().to_string();
    hosted.oras(&["pull", "--plain-http", "--output", &folder, &copy]).expect("oras pull");
    let pulled = fs::read_to_string(hosted.scratch.path().join("pulled/file.txt")).expect("oras leaves the file");
    assert_eq!(pulled, "an artifact");
}
