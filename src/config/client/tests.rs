use super::Kind;
use super::Placing;
use super::Target;
use super::generate;
use super::merge_daemon_json;

fn target(url: &str) -> Target {
    Target {
        url: url.parse().expect("a URL"),
        upstreams: vec!["docker.io".to_owned(), "ghcr.io".to_owned()],
        default_upstream: "docker.io".to_owned(),
    }
}

#[test]
fn dockerd_is_given_a_mirror_of_docker_hub() {
    for url in ["https://larder.example.com", "http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"] {
        let file = generate(Kind::Docker, &target(url));
        assert_eq!(file.content, format!("{{\n  \"registry-mirrors\": [\n    \"{url}\"\n  ]\n}}\n"));
    }
}

#[test]
fn dockerd_may_push_without_tls_to_a_server_that_has_none() {
    let file = generate(Kind::Docker, &target("http://10.0.0.1:5000"));
    let value: serde_json::Value = serde_json::from_str(&file.content).expect("JSON");
    let wanted =
        serde_json::json!({ "registry-mirrors": ["http://10.0.0.1:5000"], "insecure-registries": ["10.0.0.1:5000"] });
    assert_eq!(value, wanted);
}

#[test]
fn builders_are_told_of_their_cache() {
    for (kind, said) in [
        (Kind::Docker, "--cache-from 10.0.0.1:5000/cache/NAME:BRANCH"),
        (Kind::Buildkit, "type=registry,ref=10.0.0.1:5000/cache/NAME:BRANCH,mode=max,ignore-error=true"),
        (Kind::Podman, "--cache-to 10.0.0.1:5000/cache/NAME "),
        (Kind::Kaniko, "--cache-repo=10.0.0.1:5000/cache/NAME`"),
    ] {
        let then = generate(kind, &target("http://10.0.0.1:5000")).then;
        assert!(then.contains(said), "{kind:?}: {then}");
    }
}

#[test]
fn dockerd_names_the_hub_where_another_upstream_is_the_default() {
    let target = Target { default_upstream: "ghcr.io".to_owned(), ..target("https://larder.example.com") };
    assert!(generate(Kind::Docker, &target).content.contains("\"https://larder.example.com/docker.io\""));
    assert!(generate(Kind::Kaniko, &target).content.starts_with("--registry-mirror=larder.example.com/docker.io "));
}

#[test]
fn containerd_is_given_one_file_for_every_registry() {
    let file = generate(Kind::Containerd, &target("https://larder.example.com"));
    assert!(
        file.content.starts_with("[host.\"https://larder.example.com\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
    );
    assert!(!file.content.contains("server ="), "the image's own registry stays the last resort");
}

#[test]
fn buildkit_is_told_that_the_mirror_is_plain() {
    let file = generate(Kind::Buildkit, &target("http://10.0.0.1:5000"));
    assert_eq!(
        file.content,
        "[registry.\"docker.io\"]\n  mirrors = [\"10.0.0.1:5000\"]\n[registry.\"ghcr.io\"]\n  mirrors = [\"10.0.0.1:5000\"]\n\
         [registry.\"10.0.0.1:5000\"]\n  http = true\n"
    );
}

#[test]
fn podman_and_crio_are_given_a_prefix_for_each_upstream() {
    let file = generate(Kind::Podman, &target("http://10.0.0.1:5000"));
    assert_eq!(
        file.content,
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"10.0.0.1:5000/docker.io\"\ninsecure = true\n\n\
         [[registry]]\nprefix = \"ghcr.io\"\nlocation = \"ghcr.io\"\n[[registry.mirror]]\nlocation = \"10.0.0.1:5000/ghcr.io\"\ninsecure = true\n"
    );
    let encrypted = generate(Kind::Crio, &target("https://larder.example.com"));
    assert!(!encrypted.content.contains("insecure"));
}

#[test]
fn k3s_and_kaniko_are_given_theirs() {
    let file = generate(Kind::K3s, &target("http://10.0.0.1:5000"));
    assert_eq!(file.content, "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://10.0.0.1:5000\"\n");
    let line = generate(Kind::Kaniko, &target("http://10.0.0.1:5000"));
    assert_eq!(
        line.content,
        "--registry-mirror=10.0.0.1:5000 \\\n--registry-map=ghcr.io=10.0.0.1:5000/ghcr.io \\\n--insecure-registry=10.0.0.1:5000\n"
    );
    assert_eq!(line.placing, Placing::Printed);
}

#[test]
fn every_kind_has_a_name_and_says_what_comes_next() {
    for (name, kind) in Kind::ALL {
        assert_eq!(Kind::named(name), Some(kind));
        assert!(!generate(kind, &target("http://10.0.0.1:5000")).then.is_empty());
    }
    assert_eq!(Kind::named("rkt"), None);
}

#[test]
fn an_existing_daemon_json_keeps_what_it_says() {
    let target = target("http://10.0.0.1:5000");
    let merged = merge_daemon_json(
        "{\"debug\": true, \"registry-mirrors\": [\"https://old.example.com\", \"http://10.0.0.1:5000/\"]}",
        &target,
    );
    let value: serde_json::Value = serde_json::from_str(&merged.expect("merged")).expect("JSON");
    assert_eq!(
        value,
        serde_json::json!({
            "debug": true,
            "registry-mirrors": ["http://10.0.0.1:5000", "https://old.example.com"],
            "insecure-registries": ["10.0.0.1:5000"],
        })
    );
    let again = merge_daemon_json(&value.to_string(), &target).expect("merged");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&again).expect("JSON"),
        value,
        "merging twice changes nothing"
    );
}

#[test]
fn a_daemon_json_that_is_not_one_is_left_alone() {
    let target = target("http://10.0.0.1:5000");
    assert!(merge_daemon_json("", &target).is_ok());
    for text in ["{", "[]", "{\"registry-mirrors\": \"x\"}", "{\"insecure-registries\": {}}"] {
        assert!(merge_daemon_json(text, &target).is_err(), "{text}");
    }
}
