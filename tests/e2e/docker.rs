//! dockerd 20.10 with `registry-mirrors`, and the BuildKit inside it.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::support::parts;
use crate::support::parts::BUSYBOX;
use crate::support::parts::DOCKER;
use crate::support::parts::DOCKERD;
use crate::support::parts::Outcome;
use crate::support::parts::Program;
use crate::support::parts::REGISTRY;
use crate::support::parts::RUNC;
use crate::support::parts::Scratch;
use crate::support::stage::Stage;

/// Two dockerds at once would quarrel over the bridge `docker0` and its rules.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a test with dockerd needs on the machine.
pub(crate) fn is_here() -> bool {
    parts::are_here_with_root(&[DOCKERD, DOCKER, RUNC, REGISTRY, BUSYBOX])
}

#[derive(Debug)]
pub(crate) struct Dockerd {
    _program: Program,
    folder: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Dockerd {
    /// `daemon_json` is its whole configuration file.
    pub(crate) fn start(scratch: &Scratch, daemon_json: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = scratch.folder("dockerd");
        let mut command = DOCKERD.command();
        command
            .arg("--config-file")
            .arg(scratch.file("daemon.json", daemon_json))
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--host")
            .arg(socket(&folder));
        let mut program = Program::start(scratch, "dockerd", &mut command);
        let asked = folder.clone();
        program.wait_until("answering", || parts::run(client(&asked).arg("info")).succeeded);
        Self { _program: program, folder, _turn: turn }
    }

    /// A command of Debian's client, which has BuildKit's protocol built in.
    pub(crate) fn docker(&self) -> Command {
        client(&self.folder)
    }

    pub(crate) fn pull(&self, image: &str) -> Outcome {
        parts::run(self.docker().args(["pull", image]))
    }
}

fn client(folder: &Path) -> Command {
    let mut command = DOCKER.command();
    command.arg("--host").arg(socket(folder)).env("DOCKER_CONFIG", folder.join("config")).env("DOCKER_BUILDKIT", "1");
    command
}

fn socket(folder: &Path) -> String {
    format!("unix://{}/docker.sock", folder.display())
}

/// daemon.json with larder as the mirror of Docker Hub.
fn mirror(stage: &Stage) -> String {
    stage.larder.client_config("docker", &stage.larder.url())
}

#[track_caller]
fn assert_pulls(dockerd: &Dockerd, image: &str, digest: &str) {
    let pulled = dockerd.pull(image).expect("docker pull");
    assert!(
        pulled.out.contains(&format!("Digest: {digest}")),
        "docker pulled something else than {digest}: {}",
        pulled.out
    );
}

#[test]
fn dockerd_pulls_through_its_mirror_and_again_when_the_upstream_is_gone() {
    if !is_here() {
        return;
    }
    let mut stage = Stage::new();
    let dockerd = Dockerd::start(&stage.scratch, &mirror(&stage));
    let images =
        [("base:1", stage.base.digest()), ("team/tool:2", stage.tool.digest()), ("team/multi:3", stage.multi.digest())];
    for (image, digest) in &images {
        assert_pulls(&dockerd, image, digest);
    }
    stage.upstream.stop();
    for (image, digest) in &images {
        parts::run(dockerd.docker().args(["rmi", "-f", image])).expect("docker rmi");
        assert_pulls(&dockerd, image, digest);
    }
}

#[test]
fn a_second_dockerd_costs_the_upstream_no_blob() {
    if !is_here() {
        return;
    }
    let stage = Stage::new();
    let blobs = || stage.upstream.asked("GET", "/v2/team/tool/blobs/");
    let first = Dockerd::start(&stage.scratch, &mirror(&stage));
    assert_pulls(&first, "team/tool:2", &stage.tool.digest());
    drop(first);
    let fetched = blobs();
    let other = Scratch::new();
    let second = Dockerd::start(&other, &mirror(&stage));
    assert_pulls(&second, "team/tool:2", &stage.tool.digest());
    assert_eq!(fetched, stage.tool.blobs.len(), "the first pull fetches each blob once");
    assert_eq!(blobs(), fetched, "the second pull fetches none");
}

#[test]
fn docker_builds_on_a_base_that_comes_through_larder_and_the_image_runs() {
    if !is_here() {
        return;
    }
    let mut stage = Stage::new();
    let dockerd = Dockerd::start(&stage.scratch, &mirror(&stage));
    stage.scratch.file("context/Dockerfile", "FROM base:1\nRUN [\"/bin/sh\", \"-c\", \"echo built > /x\"]\n");
    let context = stage.scratch.path().join("context");
    let build = |no_cache: bool| {
        let mut command = dockerd.docker();
        command.args(["build", "--progress", "plain", "--network", "none", "--tag", "built"]);
        if no_cache {
            command.arg("--no-cache");
        }
        parts::run(command.arg(&context))
    };
    build(false).expect("docker build");
    let shown = parts::run(dockerd.docker().args([
        "run",
        "--rm",
        "--network",
        "none",
        "built",
        "/bin/cat",
        "/x",
        "/etc/marker",
    ]));
    assert_eq!(shown.expect("docker run").out, "built\nbase");

    stage.upstream.stop();
    parts::run(dockerd.docker().args(["rmi", "-f", "built", "base:1"])).expect("docker rmi");
    parts::run(dockerd.docker().args(["builder", "prune", "--all", "--force"])).expect("docker builder prune");
    build(true).expect("docker build with the upstream gone");
}
