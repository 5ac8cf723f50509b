//! Build caches of the builders that keep them in images: dockerd's with an inline cache, docker's classic builder, and
//! buildah, which pushes one image a step.

use std::process::Command;

use serde_json::json;

use crate::docker;
use crate::docker::Dockerd;
use crate::support::buildkitd::Step;
use crate::support::content;
use crate::support::images;
use crate::support::larder::Larder;
use crate::support::parts;
use crate::support::parts::BUILDAH;
use crate::support::parts::BUSYBOX;
use crate::support::parts::Outcome;
use crate::support::parts::Scratch;

/// The step that nobody wants to run twice. It says when it runs.
const COSTLY: &str = "RUN echo running; cat /proc/sys/kernel/random/uuid > /costly";

/// A project that is built on an image of larder's.
#[derive(Debug)]
struct Project {
    larder: Larder,
    scratch: Scratch,
}

impl Project {
    fn new() -> Self {
        let scratch = Scratch::new();
        let larder = Larder::hosting(&scratch, &json!({}));
        content::push(&larder.url(), "cache/base", "1", &images::busybox("base"));
        let dockerfile = format!("FROM {}/cache/base:1\n{COSTLY}\nCOPY file /file\n", larder.address());
        scratch.file("context/Dockerfile", &dockerfile);
        let project = Self { larder, scratch };
        project.change("first");
        project
    }

    /// A change that leaves the costly step as it is.
    fn change(&self, content: &str) {
        self.scratch.file("context/file", content);
    }

    /// `HOST:PORT/cache/NAME`.
    fn at(&self, name: &str) -> String {
        format!("{}/cache/{name}", self.larder.address())
    }

    /// `docker build` by a runner that has nothing yet, followed by a push.
    fn builds_and_pushes(&self, image: &str, prepare: impl Fn(&mut Command), pull: bool) -> Outcome {
        let scratch = Scratch::new();
        let dockerd = Dockerd::start(&scratch, "{}");
        if pull {
            parts::run(dockerd.docker().args(["pull", image])).expect("docker pull of the last image");
        }
        let mut build = dockerd.docker();
        build.args(["build", "--network", "none", "--tag", image, "--cache-from", image]);
        prepare(&mut build);
        let built = parts::run(build.arg(self.scratch.path().join("context"))).expect("docker build");
        parts::run(dockerd.docker().args(["push", image])).expect("docker push");
        built
    }
}

#[test]
fn an_inline_cache_of_dockerds_buildkit_serves_the_next_runner() {
    if !docker::is_here() {
        return;
    }
    let project = Project::new();
    let image = project.at("inline:main");
    let inline = |build: &mut Command| {
        build.args(["--progress", "plain", "--build-arg", "BUILDKIT_INLINE_CACHE=1"]);
    };
    for (content, step) in [("first", Step::Ran), ("second", Step::Cached)] {
        project.change(content);
        let progress = project.builds_and_pushes(&image, inline, false).err;
        assert_eq!(Step::of(&progress, COSTLY), step, "{progress}");
        content::assert_whole(&project.larder.url(), "cache/inline", "main");
    }
}

#[test]
fn the_last_image_pulled_is_the_cache_of_dockers_classic_builder() {
    if !docker::is_here() {
        return;
    }
    let project = Project::new();
    let image = project.at("classic:main");
    let classic = |build: &mut Command| {
        build.env("DOCKER_BUILDKIT", "0");
    };
    let first = project.builds_and_pushes(&image, classic, false).out;
    assert!(first.contains("\nrunning\n"), "{first}");
    project.change("second");
    let second = project.builds_and_pushes(&image, classic, true).out;
    assert!(!second.contains("\nrunning\n") && second.contains("Using cache"), "{second}");
    content::assert_whole(&project.larder.url(), "cache/classic", "main");
}

#[test]
fn buildah_finds_each_step_that_another_pushed() {
    if !parts::are_here_with_root(&[BUILDAH, BUSYBOX]) {
        return;
    }
    let project = Project::new();
    let policy = project.scratch.file("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
    let steps = project.at("steps");
    let build = |runner: &str| {
        let folder = project.scratch.folder(runner);
        let mut buildah = BUILDAH.command();
        buildah.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
        buildah.args(["--storage-driver", "vfs", "build", "--layers", "--isolation", "chroot", "--tls-verify=false"]);
        buildah.args(["--cache-from", &steps, "--cache-to", &steps, "--signature-policy"]).arg(&policy);
        parts::run(buildah.arg(project.scratch.path().join("context"))).expect("buildah build").out
    };
    let first = build("first");
    assert!(first.contains("\nrunning\n") && first.contains("Pushing cache"), "{first}");
    project.change("second");
    let second = build("second");
    assert!(!second.contains("\nrunning\n") && second.contains("Cache pulled from remote"), "{second}");
}
