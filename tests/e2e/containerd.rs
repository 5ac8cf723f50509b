//! containerd with a hosts directory and `?ns=`: Debian's 1.6, and 2.4, which fetches a layer in parallel ranges.

use std::path::PathBuf;
use std::process::Command;

use crate::support::images;
use crate::support::images::digest;
use crate::support::parts;
use crate::support::parts::BUSYBOX;
use crate::support::parts::CONTAINERD;
use crate::support::parts::CONTAINERD_2;
use crate::support::parts::CTR;
use crate::support::parts::CTR_2;
use crate::support::parts::Outcome;
use crate::support::parts::Part;
use crate::support::parts::Program;
use crate::support::parts::REGISTRY;
use crate::support::parts::RUNC;
use crate::support::stage::Stage;
use crate::support::wire::Wire;

/// A chunk of containerd 2.4's parallel fetch; the layer of the test has eight of them.
const CHUNK: usize = 1 << 20;

/// What the two lines of containerd do not share.
#[derive(Debug)]
struct Line {
    daemon: Part,
    ctr: Part,
    config: String,
}

/// Plugins that the test has no use for, and which would write outside of its folder.
const LEFT_OUT: &str = "\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"";

fn debians() -> Line {
    Line { daemon: CONTAINERD, ctr: CTR, config: format!("version = 2\ndisabled_plugins = [{LEFT_OUT}]\n") }
}

/// With what makes the transfer service, which `ctr` uses, fetch a layer by several requests: a chunk of at least 512
/// bytes, more than one download at a time, and a layer larger than a chunk.
fn second() -> Line {
    let config = format!(
        "version = 3\ndisabled_plugins = [{LEFT_OUT}, \"io.containerd.nri.v1.nri\"]\n\
         [plugins.\"io.containerd.transfer.v1.local\"]\n\
         max_concurrent_downloads = 4\nconcurrent_layer_fetch_buffer = {CHUNK}\n"
    );
    Line { daemon: CONTAINERD_2, ctr: CTR_2, config }
}

#[derive(Debug)]
struct Containerd {
    program: Program,
    ctr: Part,
    folder: PathBuf,
}

impl Containerd {
    /// One file for every registry, larder's own text for hosts.toml, which leads to the relay.
    fn start(stage: &Stage, line: &Line, wire: &Wire) -> Self {
        let scratch = &stage.scratch;
        let folder = scratch.folder("containerd");
        scratch.file("containerd/certs.d/_default/hosts.toml", &stage.larder.client_config("containerd", &wire.url()));
        // Keys of the top come before the first table of TOML.
        let (top, tables) = line.config.split_once("[plugins").map_or((line.config.as_str(), ""), |split| split);
        let tables = if tables.is_empty() { String::new() } else { format!("[plugins{tables}") };
        let at = folder.display();
        let config =
            format!("{top}root = \"{at}/root\"\nstate = \"{at}/state\"\n[grpc]\naddress = \"{at}/c.sock\"\n{tables}");
        let mut command = line.daemon.command();
        command.arg("--config").arg(scratch.file("containerd.toml", &config));
        let program = Program::start(scratch, "containerd", &mut command);
        let mut started = Self { program, ctr: line.ctr, folder };
        let mut version = started.command();
        version.arg("version");
        started.program.wait_until("answering", || parts::run(&mut version).succeeded);
        started
    }

    fn command(&self) -> Command {
        let mut command = self.ctr.command();
        command.arg("--address").arg(self.folder.join("c.sock"));
        command
    }

    fn pull(&self, image: &str) -> Outcome {
        parts::run(self.command().args(["image", "pull", "--hosts-dir"]).arg(self.folder.join("certs.d")).arg(image))
    }

    #[track_caller]
    fn assert_pulls(&self, image: &str, digest: &str) {
        self.pull(image).expect("ctr image pull");
        let listed = parts::run(self.command().args(["image", "ls", &format!("name=={image}")])).expect("ctr image ls");
        assert!(listed.out.contains(digest), "containerd has something else than {digest}: {}", listed.out);
    }

    /// Forgets an image and, before it returns, what only that one held.
    fn forget(&self, image: &str) {
        parts::run(self.command().args(["image", "rm", "--sync", image])).expect("ctr image rm");
    }
}

fn is_here(line: &Line) -> bool {
    parts::are_here_with_root(&[line.daemon, line.ctr, RUNC, REGISTRY, BUSYBOX])
}

#[test]
fn containerd_1_6_pulls_any_registry_by_ns_and_again_when_the_upstream_is_gone() {
    let line = debians();
    if is_here(&line) {
        pulls_twice(&line);
    }
}

#[test]
fn containerd_2_4_pulls_any_registry_by_ns_and_again_when_the_upstream_is_gone() {
    let line = second();
    if is_here(&line) {
        pulls_twice(&line);
    }
}

fn pulls_twice(line: &Line) {
    let mut stage = Stage::new();
    let wire = Wire::to(stage.larder.address());
    let containerd = Containerd::start(&stage, line, &wire);
    let images = [
        ("docker.io/library/base:1", stage.base.digest()),
        ("other.test/team/tool:2", stage.tool.digest()),
        ("other.test/team/multi:3", stage.multi.digest()),
    ];
    for (image, digest) in &images {
        containerd.assert_pulls(image, digest);
    }
    let requests = wire.requests();
    for host in ["docker.io", "other.test"] {
        assert!(requests.iter().any(|r| r.contains(&format!("ns={host}"))), "containerd names {host}: {requests:#?}");
    }
    stage.upstream.stop();
    for (image, digest) in &images {
        containerd.forget(image);
        wire.forget();
        containerd.assert_pulls(image, digest);
        assert!(wire.requests().iter().any(|r| r.contains("/blobs/")), "{image} was pulled whole once more");
    }
}

#[test]
fn containerd_2_4_fetches_a_layer_in_parallel_ranges_cold_and_held() {
    let line = second();
    if !is_here(&line) {
        return;
    }
    let mut stage = Stage::new();
    let large = images::large("large", 8 * CHUNK);
    stage.upstream.push("team/large", "4", &large);
    let wire = Wire::to(stage.larder.address());
    let containerd = Containerd::start(&stage, &line, &wire);
    let image = "other.test/team/large:4";
    let layer = digest(large.top_layer());
    let size = large.top_layer().len();
    let ranges = || {
        let asked = wire.requests();
        let of_layer = asked.iter().filter(|r| r.starts_with("GET ") && r.contains(&layer));
        of_layer.filter(|r| r.to_ascii_lowercase().contains("\r\nrange: bytes=")).count()
    };

    containerd.assert_pulls(image, &large.digest());
    assert!(ranges() >= 8, "one range a chunk, cold: {:#?}", wire.requests());
    let sent = stage.upstream.sent(&format!("/v2/team/large/blobs/{layer}"));
    assert!(sent < 2 * size, "ranges of one layer share one transfer: {sent} bytes came for one of {size}");

    stage.upstream.stop();
    containerd.forget(image);
    wire.forget();
    containerd.assert_pulls(image, &large.digest());
    assert!(ranges() >= 8, "one range a chunk, held: {:#?}", wire.requests());
}
