//! One view for the stages of one run: its tags stay where they were when the run first saw them.

use crate::docker;
use crate::docker::Dockerd;
use crate::support::buildkitd;
use crate::support::buildkitd::Buildkitd;
use crate::support::content;
use crate::support::images;
use crate::support::larder;
use crate::support::parts;
use crate::support::stage::Stage;

/// A runner whose BuildKit pulls docker.io through this view of larder, which is a path below its address.
fn runner(stage: &Stage, name: &str, view: &str) -> Buildkitd {
    let address = stage.larder.address();
    let registries = stage.larder.client_config("buildkit", &stage.larder.url());
    let through = registries.replace(&format!("[\"{address}\"]"), &format!("[\"{address}{view}\"]"));
    assert!(view.is_empty() || through != registries, "no mirror in {registries}");
    Buildkitd::start(&stage.scratch, name, &through)
}

#[test]
fn build_and_test_of_one_run_stand_on_one_base_while_its_tag_moves() {
    if !buildkitd::is_here() || larder::is_peer() {
        return;
    }
    let stage = Stage::new();
    let file = stage.scratch.file("context/Dockerfile", "FROM docker.io/library/base:1\nRUN echo built > /built\n");
    let context = file.parent().expect("a file lies in a folder");
    let assert_stands_on = |runner: Buildkitd, digest: &str| {
        let progress = runner.build(context, &[]).expect("buildctl build").err;
        assert!(progress.contains(&format!("@{digest}")), "not on {digest}: {progress}");
    };
    assert_stands_on(runner(&stage, "build", "/run/4711"), &stage.base.digest());
    let moved = images::busybox("moved");
    stage.upstream.push("library/base", "1", &moved);
    assert_stands_on(runner(&stage, "outside", ""), &moved.digest());
    assert_stands_on(runner(&stage, "test", "/run/4711"), &stage.base.digest());
    assert_stands_on(runner(&stage, "next", "/run/4712"), &moved.digest());
}

#[test]
fn docker_pulls_one_digest_of_a_tag_in_every_stage_of_a_run() {
    if !docker::is_here() || larder::is_peer() {
        return;
    }
    let stage = Stage::new();
    let dockerd = Dockerd::start(&stage.scratch, "{}");
    let assert_pulls = |view: &str, digest: &str| {
        let image = format!("{}{view}/docker.io/library/base:1", stage.larder.address());
        let pulled = dockerd.pull(&image).expect("docker pull").out;
        assert!(pulled.contains(&format!("Digest: {digest}")), "not {digest}: {pulled}");
    };
    assert_pulls("/run/4711", &stage.base.digest());
    let moved = images::busybox("moved");
    stage.upstream.push("library/base", "1", &moved);
    assert_pulls("", &moved.digest());
    assert_pulls("/run/4711", &stage.base.digest());
}

#[test]
fn a_run_builds_on_the_image_that_it_pushed_also_when_another_run_has_moved_the_tag() {
    if !docker::is_here() || larder::is_peer() {
        return;
    }
    let stage = Stage::new();
    let dockerd = Dockerd::start(&stage.scratch, "{}");
    let docker = |arguments: &[&str]| parts::run(dockerd.docker().args(arguments));
    let address = stage.larder.address();
    let file = stage.scratch.file("context/Dockerfile", &format!("FROM {address}/docker.io/library/base:1\n"));
    let context = file.parent().expect("a file lies in a folder").display().to_string();
    content::push(&stage.larder.url(), "cache/app", "ci", &stage.tool);
    let (image, outside) = (format!("{address}/run/4711/cache/app:ci"), format!("{address}/cache/app:ci"));

    docker(&["pull", &image]).expect("docker pull of the last run's image");
    docker(&["build", "--tag", &image, &context]).expect("docker build");
    let pushed = docker(&["push", &image]).expect("docker push").out;
    let (_, digest) = pushed.rsplit_once("digest: ").expect("docker says what it pushed");
    let (digest, _) = digest.split_once(' ').expect("a size follows the digest");
    docker(&["rmi", "--force", &image]).expect("docker rmi");

    let shown = docker(&["run", "--rm", "--network", "none", &outside, "/bin/cat", "/etc/marker"]);
    assert_eq!(shown.expect("docker run").out, "base", "what a run pushes is everybody's");
    content::push(&stage.larder.url(), "cache/app", "ci", &stage.tool);
    let pulled = docker(&["pull", &image]).expect("docker pull in the run").out;
    assert!(pulled.contains(&format!("Digest: {digest}")), "the run has lost what it pushed: {pulled}");
    let pulled = docker(&["pull", &outside]).expect("docker pull outside of the run").out;
    assert!(pulled.contains(&stage.tool.digest()), "outside the tag has moved: {pulled}");
}
