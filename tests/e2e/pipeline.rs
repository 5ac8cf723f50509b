//! `tests/pipeline`, with the binary of the tests: what becomes of a slow step of a project's CI.

use std::process::Command;
use std::time::Duration;

use crate::docker;
use crate::support::larder;
use crate::support::parts;

#[test]
fn a_project_runs_its_slow_step_once_with_larder_and_no_stage_fails_when_it_is_stopped() {
    if !docker::is_here() || larder::is_peer() {
        return;
    }
    let mut pipeline = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pipeline"));
    pipeline.env("LARDER", env!("CARGO_BIN_EXE_larder")).env("SLOW", "1");
    // It starts thirteen engines, one after another.
    let shown = parts::run_for(Duration::from_mins(5), &mut pipeline).expect("tests/pipeline").out;
    let became = |run: &str| {
        let rows = shown.lines().filter_map(|line| line.strip_prefix(&format!("{run}  ")));
        let cells = rows.map(|row| row.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        cells.filter(|row| !row.starts_with("all")).collect::<Vec<_>>()
    };
    assert_eq!(became("without larder"), ["build ran", "test ran", "package ran"], "{shown}");
    assert_eq!(became("with larder"), ["build ran", "test pulled", "package pulled"], "{shown}");
    assert_eq!(became("its next run"), ["build CACHED", "test pulled", "package pulled"], "{shown}");
    assert_eq!(became("larder stopped"), ["build ran", "test ran", "package ran"], "{shown}");
}
