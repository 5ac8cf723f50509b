//! Replays the seeds of every fuzz target: what once was found stays found.

#![expect(clippy::unwrap_used, reason = "what can't be read fails the test")]
#![expect(clippy::expect_used, reason = "the targets say what must be true")]

use std::fs;
use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(std::panic::catch_unwind(|| target(&bytes)).is_ok(), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 5, "the seeds of {name} are not there");
}

#[test]
fn digests() {
    replay("digest", targets::digest);
}

#[test]
fn globs() {
    replay("glob", targets::glob);
}

#[test]
fn manifests() {
    replay("manifest", targets::manifest);
}

#[test]
fn names() {
    replay("name", targets::name);
}

#[test]
fn ranges() {
    replay("range", targets::range);
}

#[test]
fn references() {
    replay("reference", targets::reference);
}

#[test]
fn routes() {
    replay("route", targets::route);
}

#[test]
fn templates() {
    replay("template", targets::template);
}

#[test]
fn every_target_is_wrapped_and_replayed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
    let replayed = fs::read_to_string(root.join("tests/fuzz.rs")).unwrap();
    let targets = fs::read_to_string(root.join("fuzz/targets.rs")).unwrap();
    for line in targets.lines().filter(|line| line.starts_with("pub(crate) fn ")) {
        let name = line.trim_start_matches("pub(crate) fn ").split('(').next().unwrap();
        assert!(package.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
        assert!(root.join(format!("fuzz/fuzz_targets/{name}.rs")).exists(), "{name} is not wrapped");
        assert!(replayed.contains(&format!("replay(\"{name}\"")), "{name} is not replayed");
    }
}
