//! BuildKit on its own: buildkitd with a mirror, driven by buildctl.

use std::path::Path;
use std::process::Command;

use crate::support::parts;
use crate::support::parts::BUILDCTL;
use crate::support::parts::BUILDKITD;
use crate::support::parts::BUSYBOX;
use crate::support::parts::Outcome;
use crate::support::parts::Program;
use crate::support::parts::REGISTRY;
use crate::support::parts::RUNC;
use crate::support::stage::Stage;

#[derive(Debug)]
struct Buildkitd {
    _program: Program,
    address: String,
}

impl Buildkitd {
    /// What the registries are is larder's own text for buildkitd.toml.
    fn start(stage: &Stage) -> Self {
        let scratch = &stage.scratch;
        let folder = scratch.folder("buildkitd");
        let address = format!("unix://{}/bk.sock", folder.display());
        let config = format!(
            "root = \"{root}\"\n[grpc]\n  address = [\"{address}\"]\n\
             [worker.oci]\n  enabled = true\n  gc = false\n[worker.containerd]\n  enabled = false\n{registries}",
            root = folder.join("root").display(),
            registries = stage.larder.client_config("buildkit", &stage.larder.url()),
        );
        let mut command = BUILDKITD.command();
        command.arg("--config").arg(scratch.file("buildkitd.toml", &config));
        let mut program = Program::start(scratch, "buildkitd", &mut command);
        let mut workers = buildctl(&address);
        workers.args(["debug", "workers"]);
        program.wait_until("answering", || parts::run(&mut workers).succeeded);
        Self { _program: program, address }
    }

    fn build(&self, context: &Path) -> Outcome {
        let local = |name: &str| format!("{name}={}", context.display());
        let mut command = buildctl(&self.address);
        command.args(["build", "--progress", "plain", "--no-cache", "--frontend", "dockerfile.v0"]);
        parts::run(command.args(["--local", &local("context"), "--local", &local("dockerfile")]))
    }

    fn forget(&self) {
        parts::run(buildctl(&self.address).args(["prune", "--all"])).expect("buildctl prune");
    }
}

fn buildctl(address: &str) -> Command {
    let mut command = BUILDCTL.command();
    command.args(["--addr", address]);
    command
}

#[test]
fn buildkit_builds_on_bases_that_come_through_larder_and_again_when_the_upstream_is_gone() {
    if !parts::are_here_with_root(&[BUILDKITD, BUILDCTL, RUNC, REGISTRY, BUSYBOX]) {
        return;
    }
    let mut stage = Stage::new();
    let buildkitd = Buildkitd::start(&stage);
    let dockerfile = "FROM docker.io/library/base:1 AS first\n\
                      RUN [\"/bin/sh\", \"-c\", \"echo hi > /y\"]\n\
                      FROM other.test/team/tool:2\n\
                      COPY --from=first /y /y\n";
    stage.scratch.file("context/Dockerfile", dockerfile);
    let context = stage.scratch.path().join("context");
    let assert_builds = || {
        let progress = buildkitd.build(&context).expect("buildctl build").err;
        for image in [&stage.base, &stage.tool] {
            let digest = image.digest();
            assert!(
                progress.contains(&format!("@{digest}")),
                "BuildKit resolved something else than {digest}: {progress}"
            );
        }
    };
    assert_builds();
    stage.upstream.stop();
    buildkitd.forget();
    assert_builds();
}
