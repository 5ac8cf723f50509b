//! Holds the documentation to the program: links lead somewhere, configurations load, the picture is the one that the
//! layering test holds, and every dependency has its reason.

#![expect(clippy::unwrap_used, reason = "what can't be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use larder::config;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs")];
    let mut files: Vec<PathBuf> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for path in files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&path).unwrap();
        found.push((path, text));
    }
    assert!(found.len() > 5, "the pages were looked for in the wrong place");
    found
}

/// The blocks of that language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut inside: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut inside, line.strip_prefix("```")) {
            (None, Some(named)) => inside = Some((named == language, String::new())),
            (Some(_), Some(_)) => {
                blocks.extend(inside.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block));
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn links_lead_somewhere() {
    for (page, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with('#') {
                continue;
            }
            let target = page.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
}

#[test]
fn configurations_in_the_pages_load() {
    let mut seen = 0;
    for (page, text) in pages() {
        for block in blocks(&text, "yaml") {
            let folder = tempfile::tempdir().unwrap();
            let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
            // A hash as `htpasswd -B` makes it; nobody's password.
            write("htpasswd", "alice:$2y$05$abcdefghijklmnopqrstuuJ5u5l8F3d1mYpUQ0dC6gPq3eP8mPzUe\n");
            write("hub-token", "secret\n");
            write("chat-url", "https://chat.example.com/hooks/0123\n");
            write("registry-token", "secret\n");
            write("larder.yaml", &block);
            let sources =
                config::Sources { file: Some(folder.path().join("larder.yaml")), ..config::Sources::default() };
            let loaded = config::load(&sources, &|name| (name == "GHCR_TOKEN").then(|| "secret".to_owned()));
            if let Err(error) = loaded {
                panic!("{}:\n{block}\n{error}", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 5, "no configurations were found");
}

#[test]
fn the_picture_is_the_one_that_is_held() {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_lowercase()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let held = fs::read_to_string(root().join("tests/layering.rs")).unwrap();
    let (_, held) = held.split_once("const LINES").unwrap();
    let (_, held) = held.split_once('=').unwrap();
    let (held, _) = held.split_once("];\n").unwrap();
    let mut lines: Vec<Vec<String>> = held.lines().map(words).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.pop().unwrap(), ["main"]);
    lines.reverse();
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let drawn = blocks(&page, "").into_iter().find(|block| block.starts_with("13  cli")).unwrap();
    let drawn: Vec<Vec<String>> = drawn.lines().map(words).collect();
    assert_eq!(drawn, lines);
}

#[test]
fn every_dependency_has_its_reason() {
    let package = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, reasons) = page.split_once("## Dependencies").unwrap();
    let named: Vec<&str> = reasons.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).collect();
    let mut inside = false;
    for line in package.lines() {
        if line.starts_with('[') {
            inside = matches!(line, "[dependencies]" | "[dev-dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(" = ")) {
            assert!(named.contains(&name), "ARCHITECTURE.md does not say what {name} is for");
        }
    }
}

#[test]
fn every_metric_is_explained_and_no_other() {
    let page = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let explained: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `larder_"))
        .filter_map(|line| line.split(['`', '{']).next())
        .collect();
    let used = larder::telemetry::Metrics::new();
    // A metric with labels shows once it was used.
    used.request("manifest", "GET", 200, "hit");
    used.sent("hit", 1);
    used.upstream_request("docker.io", "manifest", 200);
    used.upstream_received("docker.io", 1);
    used.upstream_up("docker.io", "registry", true);
    used.budget("docker.io", 1);
    used.budget_limit("docker.io", 1);
    used.fills("running", 1);
    used.store_bytes("proxied", 1);
    used.denied("hidden");
    used.connection_refused("limit");
    used.run_refused("runs");
    used.missing_cells("here", 1);
    used.forge_request("github", "branches", 200);
    used.forge_budget("github", 1);
    used.hook("github", "news");
    used.notification("store_full", "sent");
    used.pruned("branches", "deleted");
    used.prune_run("reported");
    let told = used.encode();
    let mut metrics = BTreeSet::new();
    for line in told.lines().filter_map(|line| line.strip_prefix("# TYPE larder_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        // As they are scraped.
        metrics.insert(match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        });
    }
    assert_eq!(explained, metrics.iter().map(String::as_str).collect());
}

#[test]
fn nothing_names_the_place_where_it_was_written() {
    // Put together here, else this file would be the one that names them.
    let words = [["/wo", "rk/"].concat(), ["sub", "agent"].concat()];
    let mut folders: Vec<PathBuf> =
        ["src", "docs", "config", "tests", "benches", "fuzz"].map(|f| root().join(f)).into();
    let mut files: Vec<PathBuf> = pages().into_iter().map(|(path, _)| path).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let built = path.file_name().is_some_and(|name| name == "target");
            match path.is_dir() {
                true if !built => folders.push(path),
                true => {}
                false => files.push(path),
            }
        }
    }
    for file in files {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        for word in &words {
            assert!(!text.contains(word.as_str()), "{}: {word}", shown(&file));
        }
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
