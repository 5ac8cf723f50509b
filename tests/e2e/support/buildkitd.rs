//! buildkitd on its own, driven by buildctl: a runner with a store of its own.

use std::path::Path;
use std::process::Command;

use super::parts;
use super::parts::BUILDCTL;
use super::parts::BUILDKITD;
use super::parts::BUSYBOX;
use super::parts::Outcome;
use super::parts::Program;
use super::parts::REGISTRY;
use super::parts::RUNC;
use super::parts::Scratch;

#[derive(Debug)]
pub(crate) struct Buildkitd {
    _program: Program,
    address: String,
}

/// Whether a test with buildkitd can run.
pub(crate) fn is_here() -> bool {
    parts::are_here_with_root(&[BUILDKITD, BUILDCTL, RUNC, REGISTRY, BUSYBOX])
}

impl Buildkitd {
    /// Its store is an empty folder of this name. What the registries are is larder's own text for buildkitd.toml.
    pub(crate) fn start(scratch: &Scratch, name: &str, registries: &str) -> Self {
        let folder = scratch.folder(name);
        let address = format!("unix://{}/bk.sock", folder.display());
        let config = format!(
            "root = \"{root}\"\n[grpc]\n  address = [\"{address}\"]\n\
             [worker.oci]\n  enabled = true\n  gc = false\n[worker.containerd]\n  enabled = false\n{registries}",
            root = folder.join("root").display(),
        );
        let mut command = BUILDKITD.command();
        command.arg("--config").arg(scratch.file(&format!("{name}.toml"), &config));
        let mut program = Program::start(scratch, name, &mut command);
        let mut workers = buildctl(&address);
        workers.args(["debug", "workers"]);
        program.wait_until("answering", || parts::run(&mut workers).succeeded);
        Self { _program: program, address }
    }

    /// `unix://…`, for others that drive it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Builds the folder's Dockerfile; the progress is on standard error.
    pub(crate) fn build(&self, context: &Path, arguments: &[&str]) -> Outcome {
        // A folder without credentials.
        self.build_as(context, context, arguments)
    }

    /// The same with the credentials of docker's `config.json` in a folder.
    pub(crate) fn build_as(&self, credentials: &Path, context: &Path, arguments: &[&str]) -> Outcome {
        let local = |name: &str| format!("{name}={}", context.display());
        let mut command = buildctl(&self.address);
        command.env("DOCKER_CONFIG", credentials).args(["build", "--progress", "plain", "--frontend", "dockerfile.v0"]);
        command.args(["--local", &local("context"), "--local", &local("dockerfile")]);
        parts::run(command.args(arguments))
    }

    pub(crate) fn forget(&self) {
        parts::run(buildctl(&self.address).args(["prune", "--all"])).expect("buildctl prune");
    }
}

fn buildctl(address: &str) -> Command {
    let mut command = BUILDCTL.command();
    command.args(["--addr", address]);
    command
}

/// What BuildKit's plain progress says became of the one step whose line holds this text, and which says `running` when
/// it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Ran,
    /// It did not: its files came from the cache, if a later step needed them.
    Cached,
    /// It is not in the progress, or did not end.
    Unknown,
}

impl Step {
    /// Reads `#7 [2/3] RUN …`, `#7 0.061 running`, `#7 CACHED`, `#7 DONE 2.1s`.
    pub(crate) fn of(progress: &str, text: &str) -> Self {
        let numbered = || progress.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' '));
        let Some((step, _)) = numbered().find(|(_, said)| said.starts_with('[') && said.contains(text)) else {
            return Self::Unknown;
        };
        let said = |holds: &dyn Fn(&str) -> bool| numbered().any(|(number, said)| number == step && holds(said));
        if said(&|said| said.ends_with(" running")) {
            Self::Ran
        } else if said(&|said| said.starts_with("CACHED") || said.starts_with("DONE")) {
            Self::Cached
        } else {
            Self::Unknown
        }
    }
}
