//! Programs that the tests start, where they are found, and how they end.

use std::fmt;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

/// A program of somebody else's, by the name under which it is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    name: &'static str,
    from: From,
}

/// Where a part comes from, which is the argument of `tests/parts/install` that brings it.
#[derive(Clone, Copy, Debug)]
enum From {
    /// Debian's package of this name.
    Apt(&'static str),
    /// Built with Go, in this folder of the parts.
    Go(&'static str),
}

pub(crate) const BUILDAH: Part = Part { name: "buildah", from: From::Apt("buildah") };
pub(crate) const BUILDCTL: Part = Part { name: "buildctl", from: From::Go("bin") };
pub(crate) const BUILDKITD: Part = Part { name: "buildkitd", from: From::Go("bin") };
pub(crate) const BUILDX: Part = Part { name: "buildx", from: From::Go("bin") };
pub(crate) const BUSYBOX: Part = Part { name: "busybox", from: From::Apt("busybox-static") };
pub(crate) const CONTAINERD: Part = Part { name: "containerd", from: From::Apt("containerd") };
pub(crate) const CONTAINERD_2: Part = Part { name: "containerd", from: From::Go("containerd-2") };
pub(crate) const CRANE: Part = Part { name: "crane", from: From::Go("bin") };
pub(crate) const CTR: Part = Part { name: "ctr", from: From::Apt("containerd") };
pub(crate) const CTR_2: Part = Part { name: "ctr", from: From::Go("containerd-2") };
pub(crate) const DOCKER: Part = Part { name: "docker", from: From::Apt("docker.io") };
pub(crate) const DOCKERD: Part = Part { name: "dockerd", from: From::Apt("docker.io") };
pub(crate) const ORAS: Part = Part { name: "oras", from: From::Go("bin") };
pub(crate) const PODMAN: Part = Part { name: "podman", from: From::Apt("podman") };
pub(crate) const REGCTL: Part = Part { name: "regctl", from: From::Go("bin") };
pub(crate) const REGISTRY: Part = Part { name: "docker-registry", from: From::Apt("docker-registry") };
pub(crate) const RUNC: Part = Part { name: "runc", from: From::Apt("runc") };
pub(crate) const SKOPEO: Part = Part { name: "skopeo", from: From::Apt("skopeo") };

impl Part {
    /// The program's path, when it is on this machine. What a package brings is looked for where packages put it
    /// before the PATH: another docker or containerd in front of Debian's may lack what the tests rely on.
    fn find(self) -> Option<PathBuf> {
        let folders: Vec<PathBuf> = match self.from {
            From::Apt(_) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
                    .iter()
                    .map(PathBuf::from)
                    .chain(std::env::split_paths(&path))
                    .collect()
            }
            From::Go(folder) => vec![folder_of_parts().join(folder)],
        };
        folders.into_iter().map(|folder| folder.join(self.name)).find(|path| path.is_file())
    }

    /// The program's path; [`are_here`] was asked first.
    pub(crate) fn path(self) -> PathBuf {
        self.find().unwrap_or_else(|| panic!("{self}"))
    }

    pub(crate) fn command(self) -> Command {
        Command::new(self.path())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            From::Apt(package) => {
                write!(f, "{} of the package {package} is missing: `tests/parts/install apt` installs it", self.name)
            }
            From::Go(folder) => write!(
                f,
                "{} is missing in {}: `tests/parts/install go` builds it",
                self.name,
                folder_of_parts().join(folder).display()
            ),
        }
    }
}

fn folder_of_parts() -> PathBuf {
    match std::env::var_os("LARDER_PARTS") {
        Some(folder) => folder.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/larder-parts"),
    }
}

/// Whether a test that needs these can run. Where one is missing the test fails, for it would show nothing; with
/// `LARDER_E2E_SKIP_MISSING=1` it says so and passes.
pub(crate) fn are_here(parts: &[Part]) -> bool {
    let missing: Vec<String> = parts.iter().filter(|part| part.find().is_none()).map(Part::to_string).collect();
    demand(missing.is_empty(), &missing.join("; "))
}

/// Whether a test that starts an engine can run: those need root.
pub(crate) fn are_here_with_root(parts: &[Part]) -> bool {
    demand(rustix::process::geteuid().is_root(), "this test starts a container engine, which needs root")
        && are_here(parts)
}

fn demand(holds: bool, otherwise: &str) -> bool {
    if !holds {
        assert!(std::env::var_os("LARDER_E2E_SKIP_MISSING").is_some(), "{otherwise}");
        eprintln!("skipped: {otherwise}");
    }
    holds
}

/// A folder for all that one test writes, removed at its end with what engines left mounted in it.
#[derive(Debug)]
pub(crate) struct Scratch(TempDir);

impl Scratch {
    /// Short, because the engines' sockets lie in it and their paths have 108 bytes at most.
    pub(crate) fn new() -> Self {
        let mut folder = TempDir::with_prefix("larder-e2e-").expect("making a folder for the test");
        if std::env::var_os("LARDER_E2E_KEEP").is_some() {
            folder.disable_cleanup(true);
            eprintln!("keeping {}", folder.path().display());
        }
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A new folder in this one.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path().join(name);
        fs::create_dir_all(&folder).expect("making a folder for a part");
        folder
    }

    /// A new file in this folder.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.path().join(name);
        fs::create_dir_all(file.parent().expect("a file lies in a folder")).expect("making a folder for a file");
        fs::write(&file, content).expect("writing a file of the test");
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|target| Path::new(target).starts_with(self.path()))
            .collect();
        for target in ours.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(target).output();
        }
    }
}

/// A running program of a test: ended when this is dropped, by its own pid.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts the command with its output in `NAME.log` of the folder.
    pub(crate) fn start(scratch: &Scratch, name: &str, command: &mut Command) -> Self {
        let log = scratch.path().join(format!("{name}.log"));
        let out = fs::File::options().create(true).append(true).open(&log).expect("opening a program's log");
        let err = out.try_clone().expect("sharing a program's log");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|e| panic!("starting {name}: {e}"));
        Self { name: name.to_owned(), child, log }
    }

    /// Waits until the condition holds; a program that ended before fails the test at once.
    pub(crate) fn wait_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_mins(1);
        while !condition() {
            let gone = self.child.try_wait().expect("asking after a program").is_some();
            assert!(!gone, "{} ended before it was {what}", self.name);
            assert!(Instant::now() < end, "{} was not {what} within 60 s", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Asks it to end and waits until it has; one that does not is killed.
    pub(crate) fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        if within(Duration::from_secs(10), || matches!(self.child.try_wait(), Ok(Some(_)))).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("-- the last lines of {}:", self.name);
            for line in &lines[lines.len().saturating_sub(25)..] {
                eprintln!("   {line}");
            }
        }
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// Its standard output, when it succeeded; the test fails otherwise.
    #[track_caller]
    pub(crate) fn expect(self, what: &str) -> Self {
        assert!(self.succeeded, "{what} failed:\n{}\n{}", self.out, self.err);
        self
    }
}

/// Runs a command to its end, for two minutes at most.
pub(crate) fn run(command: &mut Command) -> Outcome {
    run_for(Duration::from_mins(2), command)
}

/// Runs a command to its end, for so long at most.
pub(crate) fn run_for(limit: Duration, command: &mut Command) -> Outcome {
    let out = tempfile::NamedTempFile::new().expect("making a file for a command's output");
    let err = tempfile::NamedTempFile::new().expect("making a file for a command's output");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.reopen().expect("opening a command's output"))
        .stderr(err.reopen().expect("opening a command's output"))
        .spawn()
        .unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
    let mut succeeded = false;
    let ended = within(limit, || match child.try_wait() {
        Ok(Some(status)) => {
            succeeded = status.success();
            true
        }
        _ => false,
    });
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let late = if ended.is_err() { format!("{command:?} was not done within {limit:?}\n") } else { String::new() };
    Outcome { succeeded, out: text(out.path()), err: late + &text(err.path()) }
}

/// Polls the condition until it holds, for so long at most.
pub(crate) fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> io::Result<()> {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binding a port of this machine");
    listener.local_addr().expect("a bound listener has an address").port()
}
