//! `make demo`, with the binary of the tests.

use std::process::Command;

use crate::support::larder;
use crate::support::parts;
use crate::support::parts::BUSYBOX;
use crate::support::parts::REGISTRY;
use crate::support::parts::SKOPEO;

#[test]
fn the_demo_shows_that_the_second_pull_costs_the_upstream_no_blob() {
    if !parts::are_here(&[REGISTRY, SKOPEO, BUSYBOX]) || larder::is_peer() {
        return;
    }
    let mut demo = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo"));
    let shown = parts::run(demo.env("LARDER", env!("CARGO_BIN_EXE_larder"))).expect("tests/demo");
    let row = |start: &str| {
        let line = shown.out.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("the demo has no row '{start}': {}", shown.out));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("first pull").last().expect("a row has columns"), "2", "config and layer came from the upstream");
    assert_eq!(row("second pull").last().expect("a row has columns"), "0", "nothing came from the upstream");
    assert_eq!(row("upstream gone").last().expect("a row has columns"), "0");
}
