//! podman and skopeo, through a mirror in registries.conf.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::images;
use crate::support::larder;
use crate::support::parts;
use crate::support::parts::BUSYBOX;
use crate::support::parts::PODMAN;
use crate::support::parts::REGISTRY;
use crate::support::parts::SKOPEO;
use crate::support::stage::Stage;

/// registries.conf with larder as the mirror of every upstream.
fn conf(stage: &Stage) -> PathBuf {
    let mut conf = stage.larder.client_config("podman", &stage.larder.url());
    if larder::is_peer() {
        for host in ["docker.io", "other.test"] {
            conf = conf.replace(&format!("{}/{host}", stage.larder.address()), stage.larder.address());
        }
    }
    stage.scratch.file("registries.conf", &conf)
}

#[test]
fn podman_pulls_through_a_mirror_and_again_when_the_upstream_is_gone() {
    if !parts::are_here_with_root(&[PODMAN, REGISTRY, BUSYBOX]) {
        return;
    }
    let mut stage = Stage::new();
    let conf = conf(&stage);
    let folder = stage.scratch.folder("podman");
    let podman = || {
        let mut command: Command = PODMAN.command();
        command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
        command.env("CONTAINERS_REGISTRIES_CONF", &conf);
        command
    };
    let images = [("docker.io/library/base:1", stage.base.digest()), ("other.test/team/multi:3", stage.multi.digest())];
    let assert_pulls = |image: &str, digest: &str| {
        parts::run(podman().args(["pull", image])).expect("podman pull");
        let shown = parts::run(podman().args(["image", "inspect", "--format", "{{.RepoDigests}}", image]));
        let shown = shown.expect("podman image inspect").out;
        assert!(shown.contains(digest), "podman has something else than {digest}: {shown}");
    };
    for (image, digest) in &images {
        assert_pulls(image, digest);
    }
    stage.upstream.stop();
    parts::run(podman().args(["rmi", "--all", "--force"])).expect("podman rmi");
    for (image, digest) in &images {
        assert_pulls(image, digest);
    }
}

#[test]
fn skopeo_copies_the_exact_manifest_and_again_when_the_upstream_is_gone() {
    if !parts::are_here(&[SKOPEO, REGISTRY, BUSYBOX]) {
        return;
    }
    let mut stage = Stage::new();
    let conf = conf(&stage);
    let policy = stage.scratch.file("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
    let assert_copies = |into: &str| {
        let copy = stage.scratch.folder(into);
        let mut command = SKOPEO.command();
        // Unlike podman, skopeo 1.9 does not read CONTAINERS_REGISTRIES_CONF.
        command.arg("--policy").arg(&policy).arg("--registries-conf").arg(&conf);
        command.args(["copy", "docker://other.test/team/tool:2"]).arg(format!("dir:{}", copy.display()));
        parts::run(&mut command).expect("skopeo copy");
        let manifest = fs::read(copy.join("manifest.json")).expect("skopeo leaves the manifest");
        assert_eq!(images::digest(&manifest), stage.tool.digest(), "the manifest's bytes are the upstream's");
    };
    assert_copies("first");
    stage.upstream.stop();
    assert_copies("second");
}
