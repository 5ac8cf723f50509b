//! The image of the Dockerfile, built and run by a real dockerd.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::docker;
use crate::docker::Dockerd;
use crate::support::client;
use crate::support::images;
use crate::support::larder;
use crate::support::parts;
use crate::support::parts::Scratch;
use crate::support::parts::free_port;
use crate::support::registry::Registry;

const TREE: &str = env!("CARGO_MANIFEST_DIR");

/// Builds the image with a static binary of this tree, from no base at all.
fn build(dockerd: &Dockerd, scratch: &Scratch) {
    let binary = Path::new(TREE).join("target/static/larder");
    assert!(binary.is_file(), "the image needs a static binary: `make target/static/larder` makes it");
    let context = scratch.path().join("image");
    parts::run(Command::new(Path::new(TREE).join("tests/parts/context")).arg(&binary).arg(&context))
        .expect("preparing the image's context");
    let mut command = dockerd.docker();
    command.args(["build", "--progress", "plain", "--tag", "larder", "--file"]);
    parts::run(command.arg(Path::new(TREE).join("Dockerfile")).arg(&context)).expect("docker build of larder's image");
}

#[test]
fn the_image_is_built_from_nothing_serves_a_pull_is_healthy_and_drains_on_stop() {
    if !docker::is_here() || larder::is_peer() {
        return;
    }
    let scratch = Scratch::new();
    let upstream = Registry::start(&scratch);
    let image = images::busybox("base");
    upstream.push("library/base", "1", &image);
    let dockerd = Dockerd::start(&scratch, "{}");
    build(&dockerd, &scratch);
    let docker = |arguments: &[&str]| parts::run(dockerd.docker().args(arguments));

    let meaning = docker(&["run", "--rm", "--network", "none", "larder", "check"]);
    meaning.expect("`larder check` of the configuration that the image brings");

    let address = format!("127.0.0.1:{}", free_port());
    let config = larder::configuration(&address, "/var/lib/larder", upstream.url());
    let file = scratch.file("in-container.json", &config.to_string());
    let mount = format!("{}:/etc/larder/larder.yaml:ro", file.display());
    docker(
        &["run", "--detach", "--name", "one", "--network", "host", "--read-only", "--health-interval", "1s"]
            .iter()
            .copied()
            .chain(["--volume", &mount, "larder"])
            .collect::<Vec<_>>(),
    )
    .expect("docker run of larder's image");

    let url = format!("http://{address}/v2/library/base/manifests/1");
    let pulls = || client::get(&url).is_ok_and(|a| a.status == 200 && images::digest(&a.body) == image.digest());
    let served = parts::within(Duration::from_secs(30), pulls);
    assert!(served.is_ok(), "a pull through the container: {:?}\n{:?}", client::get(&url), docker(&["logs", "one"]));
    let health = || docker(&["inspect", "--format", "{{json .State.Health}}", "one"]).out;
    let healthy = parts::within(Duration::from_mins(1), || health().contains(r#""Status":"healthy""#));
    assert!(healthy.is_ok(), "the container's health: {}", health());
    let user = docker(&["inspect", "--format", "{{.Config.User}}", "one"]).out;
    assert_eq!(user.trim(), "65532:65532", "it does not run as root");

    docker(&["stop", "--time", "30", "one"]).expect("docker stop");
    let ended = docker(&["inspect", "--format", "{{.State.ExitCode}}", "one"]).out;
    assert_eq!(ended.trim(), "0", "SIGTERM drains and ends it: {:?}", docker(&["logs", "one"]));
}
