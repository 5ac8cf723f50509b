//! The configuration as people write it: what is read from it, and what a wrong one is answered with.

#![expect(clippy::unwrap_used, reason = "helpers of a test may fail the test")]

use std::path::Path;
use std::time::Duration;

use larder::config;
use larder::config::Config;
use larder::config::Error;
use larder::config::Loaded;
use larder::config::Sources;

/// Loads a text as the file `larder.yaml` of a folder of its own; messages name it without the folder.
fn load_with(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    load_in(folder.path(), text, environment)
}

fn load_in(folder: &Path, text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, String> {
    let file = folder.join("larder.yaml");
    std::fs::write(&file, text).unwrap();
    let sources = Sources { file: Some(file), ..Sources::default() };
    config::load(&sources, environment)
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.display()), ""))
}

fn load(text: &str) -> Config {
    load_with(text, &|_| None).unwrap().config
}

fn refused(text: &str) -> String {
    load_with(text, &|_| None).expect_err(text)
}

#[test]
fn without_a_file_the_defaults_hold() {
    let loaded = config::load(&Sources::default(), &|_| None).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.upstreams.len(), 7);
    assert_eq!(loaded.config.upstreams["docker.io"].endpoints[0].as_str(), "https://registry-1.docker.io/");
    assert!(loaded.remarks.is_empty());
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "# nothing\n", "---\n", "{}\n"] {
        assert_eq!(load(text), Config::default(), "{text:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let sources = Sources { file: Some("/nonexistent.yaml".into()), ..Sources::default() };
    let error = config::load(&sources, &|_| None).unwrap_err();
    assert!(matches!(error, Error::Read { .. }) && error.to_string().contains("/nonexistent.yaml"), "{error}");
}

#[test]
fn json_is_read_too() {
    let config = load(
        r#"{"listen": "127.0.0.1:6000", "store": {"max_size": "40MiB"}, "upstreams": {"docker.io": {"endpoints": ["http://127.0.0.1:1"], "limits": {"stall": "2s"}}}}"#,
    );
    assert_eq!(config.listen, ["127.0.0.1:6000".parse().unwrap()]);
    assert_eq!(config.store.max_size, 40 << 20);
    assert_eq!(config.upstreams["docker.io"].limits.stall, Duration::from_secs(2));
    assert_eq!(config.upstreams["docker.io"].limits.retries, 5);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
    for (text, message) in [
        ("upstraems: {}\n", "larder.yaml:1:1: upstraems: unknown key `upstraems`; did you mean `upstreams`?"),
        ("listen: 127.0.0.1\n", "larder.yaml:1:9: listen: `127.0.0.1` has no port; write 127.0.0.1:5000"),
        (
            "listen: 5000\n",
            "larder.yaml:1:9: listen: `5000` has no address; write 127.0.0.1:5000, or 0.0.0.0:5000 for every interface",
        ),
        (
            "store:\n  max_size: 50 bananas\n",
            "larder.yaml:2:13: store.max_size: `50 bananas` is not a size; write a number with its unit (KiB MiB GiB TiB, kB MB GB TB), like 50GiB",
        ),
        (
            "upstreams:\n  docker.io:\n    endpoints: [ftp://x]\n",
            "larder.yaml:3:17: upstreams.docker.io.endpoints[0]: the scheme of `ftp://x` must be https or http",
        ),
        (
            "freshness:\n- { match: \"**\", fresh_for: soon }\n",
            "larder.yaml:2:29: freshness[0].fresh_for: `soon` is not a duration; write a number with its unit, like 30s, 10m, 1h30m or 30d",
        ),
        (
            "upstreams: { docker.io: { credential: { username: u, password_file: /nonexistent/secret } } }\n",
            "larder.yaml:1:69: upstreams.docker.io.credential.password_file: cannot read /nonexistent/secret: No such file or directory (os error 2)",
        ),
        ("warm: { sets: [] }\n", "larder.yaml:1:1: warm: `warm` is not supported by this version yet; remove it"),
        ("plain_http: yes\n", "larder.yaml:1:13: plain_http: `yes` is neither true nor false"),
        ("store: 5\n", "larder.yaml:1:8: store: expected a mapping of keys to values"),
        ("drain: [1s]\n", "larder.yaml:1:8: drain: expected one value, found a list"),
        (
            "gc: { lease: 1h, every: 1h }\n",
            "larder.yaml:1:18: gc.every: `every` is not supported by this version yet; remove it",
        ),
        (
            "hosted: [\"**\"]\n",
            "larder.yaml:1:10: hosted[0]: this would make every repository hosted, and no image would come from the default upstream",
        ),
        (
            "listen: 0.0.0.0:5000\n",
            "larder.yaml:1:9: listen: 0.0.0.0:5000 is not loopback: set tls, or plain_http: true to serve without encryption",
        ),
        (
            "default_upstream: dokcer.io\n",
            "larder.yaml:1:19: default_upstream: the default upstream `dokcer.io` is not among the upstreams: docker.io, gcr.io, ghcr.io, mcr.microsoft.com, public.ecr.aws, quay.io, registry.k8s.io",
        ),
    ] {
        assert_eq!(refused(text), message, "{text}");
    }
}

#[test]
fn what_is_no_yaml_is_said_with_its_place() {
    let message = refused("listen: [unclosed\n");
    assert!(message.starts_with("larder.yaml:"), "{message}");
    let message = refused("drain: 1s\ndrain: 2s\n");
    assert!(message.starts_with("larder.yaml:2:1: ") && message.contains("drain"), "{message}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let message = refused("lisen: x\ndrain: soon\nstore: { durability: strikt }\n");
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(message.contains("did you mean `listen`?") && message.contains("did you mean `strict`?"), "{message}");
}
