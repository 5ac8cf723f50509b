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
        (
            "build_caches: [{ match: \"cache/**\", fallback: [main], max_size_each: 1KiB }]\n",
            "larder.yaml:1:70: build_caches[0].max_size_each: must be at least 1MiB",
        ),
        (
            "build_caches:\n- { match: \"cache/**\", fallback: [\"{brnch|slug}\"] }\n",
            "larder.yaml:2:35: build_caches[0].fallback[0]: nothing says what `{brnch}` is; did you mean `branch`?",
        ),
        (
            "build_caches:\n- { match: \"cache/**\", tag: \"{branch|slag}\", fallback: [main] }\n",
            "larder.yaml:2:29: build_caches[0].tag: there is no filter `slag`; there are slug and ref_slug",
        ),
        (
            "build_caches:\n- { match: \"cache/**\", fallback: [\"a/b\"] }\n",
            "larder.yaml:2:35: build_caches[0].fallback[0]: `a/b` makes no tag: a tag has letters, digits, `_`, `.` and `-`",
        ),
        (
            "build_caches:\n- { match: \"ghcr.io/acme/**\", fallback: [main] }\n",
            "larder.yaml:2:12: build_caches[0].match: `ghcr.io` is a host: build caches live here, under names of `hosted`, without a host",
        ),
        (
            "build_caches:\n- { match: \"cache/**\", falback: [main] }\n",
            "larder.yaml:2:24: build_caches[0].falback: unknown key `falback`; did you mean `fallback`?",
        ),
        ("plain_http: yes\n", "larder.yaml:1:13: plain_http: `yes` is neither true nor false"),
        ("store: 5\n", "larder.yaml:1:8: store: expected a mapping of keys to values"),
        ("drain: [1s]\n", "larder.yaml:1:8: drain: expected one value, found a list"),
        (
            "gc: { lease: 1h, every: soon }\n",
            "larder.yaml:1:25: gc.every: `soon` is not a duration; write a number with its unit, like 30s, 10m, 1h30m or 30d",
        ),
        (
            "forges: { hub: { kind: gitlap } }\n",
            "larder.yaml:1:24: forges.hub.kind: `gitlap` is not known here; did you mean `gitlab`?",
        ),
        (
            "forges: { tea: { kind: gitea } }\n",
            "larder.yaml:1:16: forges.tea: `api` is missing: every Gitea has its own, like https://gitea.example.com/api/v1",
        ),
        (
            "notify: [{ url_file: /nonexistent/chat }]\n",
            "larder.yaml:1:22: notify[0].url_file: cannot read /nonexistent/chat: No such file or directory (os error 2)",
        ),
        (
            "timezone: Europe/Berln\n",
            "larder.yaml:1:11: timezone: `Europe/Berln` is not a time zone; write UTC, or a name of the IANA database like Europe/Berlin",
        ),
        (
            "retention: { policies: [{ name: all, repositories: [\"cache/**\"], select: [all], keep: [] }] }\n",
            "larder.yaml:1:87: retention.policies[0].keep: nothing would be kept: a policy needs at least one item of keep, like { newest: 3 }",
        ),
        (
            "retention: { policies: [{ name: all, repositories: [\"cache/**\"], select: [all], keep: [{}] }] }\n",
            "larder.yaml:1:88: retention.policies[0].keep[0]: an item of keep says what keeps a tag, like { newest: 3 } or { pushed_within: 7d }",
        ),
        (
            "retention: { policies: [{ name: all, repositories: [\"cache/**\"], keep: [{ newest: 0 }] }] }\n",
            "larder.yaml:1:25: retention.policies[0]: `select` is missing\nlarder.yaml:1:83: retention.policies[0].keep[0].newest: must be at least 1",
        ),
        (
            "retention: { policies: [{ name: all, repositories: [\"cache/**\"], select: [\"pr-*\"], keep: [{ newest: 1 }] }] }\n",
            "larder.yaml:1:75: retention.policies[0].select[0]: `pr-*` is a pattern, and select takes templates: write a name in braces for what varies, like pr-{number}",
        ),
        (
            "retention: { policies: [{ name: all, repositories: [\"cache/**\"], select: [all], count_by: brnch, keep: [{ newest: 1 }] }] }\n",
            "larder.yaml:1:91: retention.policies[0].count_by: no template of select says what `brnch` is; valid are repository",
        ),
        (
            "retention: { policies: [{ name: all, repositories: [\"cache/**\"], select: [all], keep: [{ branch_alive: { forge: github, repository: \"acme/{repo}\" } }] }] }\n",
            "larder.yaml:1:25: retention.policies[0]: nothing says what `{repo}` of the forge's repository is in `cache/**`; name it there, like cache/{repo}",
        ),
        (
            "retention: { policies: [{ name: all, repositories: [\"*.io/**\"], select: [all], keep: [{ newest: 1 }] }] }\n",
            "larder.yaml:1:53: retention.policies[0].repositories[0]: `*.io` is a pattern of hosts; write each registry out",
        ),
        (
            "retention: { remotes: { ghcr.example.com: { adapter: ghcr, owners: [acme] } } }\n",
            "larder.yaml:1:43: retention.remotes.ghcr.example.com: `api` is missing: of ghcr.io it is known, of ghcr.example.com not; write one like https://github.example.com/api/v3",
        ),
        (
            "retention: { remotes: { reg.example.com: { adapter: ecr } } }\n",
            "larder.yaml:1:42: retention.remotes.reg.example.com: `reg.example.com` is not <account>.dkr.ecr.<region>.amazonaws.com, so `api` must say where ECR's API is",
        ),
        (
            "retention: { remotes: { reg.example.com: { adapter: gar } } }\n",
            "larder.yaml:1:42: retention.remotes.reg.example.com: `reg.example.com` is not <location>-docker.pkg.dev, as Artifact Registry's hosts are called",
        ),
        (
            "retention: { remotes: { reg.example.com: { adapter: oci, api: \"https://reg.example.com\" } } }\n",
            "larder.yaml:1:42: retention.remotes.reg.example.com: `oci` has no API of its own at https://reg.example.com/; `endpoint` says where the registry is",
        ),
        (
            "retention: { remotes: { reg.example.com: { adapter: docker } } }\n",
            "larder.yaml:1:53: retention.remotes.reg.example.com.adapter: `docker` is not known here; did you mean `dockerhub`?",
        ),
        (
            "retention: { remotes: { ghcr.io: { adapter: ghcr, owners: [a//b] } } }\n",
            "larder.yaml:1:60: retention.remotes.ghcr.io.owners[0]: `a//b` is not the name of an organization, a namespace or a group",
        ),
        (
            "retention: { protect: [latest] }\n",
            "larder.yaml:1:24: retention.protect[0]: `latest` protects no tag: the pattern is compared with repository:tag; write latest:* for all tags of latest, or **:latest for the tag in every repository",
        ),
        (
            "retention: { price: { storage_gib_month: 0,10 } }\n",
            "larder.yaml:1:44: retention.price.10: unknown key `10`; valid are storage_gib_month, egress_gib",
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
fn a_remote_registry_takes_from_its_upstream_what_is_left_out() {
    let text = "retention: { remotes: { ghcr.io: { adapter: ghcr, credential: {}, price: {} }, reg.test: { adapter: oci, price: { egress_gib: 1 }, limits: { tags: 5 } } } }\n";
    let loaded = load_with(text, &|_| None).unwrap();
    let remotes = &loaded.config.retention.remotes;
    assert_eq!(remotes["ghcr.io"], config::retention::Remote::of(config::retention::Adapter::Ghcr));
    assert_eq!((remotes["reg.test"].price.is_some(), remotes["reg.test"].limits.tags), (true, 5));
    assert!(
        loaded.remarks.iter().any(|remark| remark.message.contains("a pattern over this registry reaches nothing"))
    );
}

#[test]
fn what_is_no_yaml_is_said_with_its_place() {
    for (text, message) in [
        ("listen: [unclosed\n", "larder.yaml:1:9: unclosed bracket '['"),
        ("drain: 1s\ndrain: 2s\n", "larder.yaml:2:1: the key `drain` stands here for the second time"),
        ("drain: 1s\n---\ndrain: 2s\n", "larder.yaml:3:1: a second document begins here; only one is read"),
        ("- a\n", "larder.yaml:1:1: expected a mapping of keys to values"),
    ] {
        assert_eq!(refused(text), message);
    }
    assert!(refused("listen: [::1]:5000\n").ends_with("; an address like \"[::1]:5000\" needs its quotes"));
    assert!(refused("store: { path: ${HOME} }\n").ends_with("; \"${NAME}\" needs its quotes within braces"));
}

#[test]
fn aliases_do_not_blow_a_file_up() {
    let nested = "bcdefghij".chars().zip("abcdefghi".chars());
    let lines = nested.map(|(this, last)| format!("{this}: &{this} [{}]", vec![format!("*{last}"); 9].join(",")));
    let text = format!("a: &a [x,x,x,x,x,x,x,x,x]\n{}\n", lines.collect::<Vec<_>>().join("\n"));
    let message = refused(&text);
    assert!(message.ends_with("the file is too large, or its aliases make it so"), "{message}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let message = refused("lisen: x\ndrain: soon\nstore: { durability: strikt }\n");
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(message.contains("did you mean `listen`?") && message.contains("did you mean `strict`?"), "{message}");
}

#[test]
fn the_environment_stands_in_values_and_is_never_printed() {
    let environment = |name: &str| (name == "HUB").then(|| "hunter2".to_owned());
    let loaded =
        load_with("upstreams: { quay.io: { credential: { username: ci, password: \"${HUB}\" } } }\n", &environment);
    let config = loaded.unwrap().config;
    let printed = format!("{config:?}");
    assert!(printed.contains("username: \"ci\"") && !printed.contains("hunter2"), "{printed}");

    let message = load_with("drain: \"${HUB}\"\n", &environment).unwrap_err();
    assert_eq!(message, "larder.yaml:1:8: drain: the value of `${HUB}` is not valid here");
    let message = load_with("drain: ${NOTHERE}\n", &environment).unwrap_err();
    assert_eq!(message, "larder.yaml:1:8: drain: the environment variable NOTHERE is not set");
}

#[test]
fn a_secret_written_into_the_file_is_refused_and_not_repeated() {
    let message = refused("upstreams: { quay.io: { credential: { username: ci, password: hunter2 } } }\n");
    assert!(
        message.contains("a secret is not written into the configuration") && !message.contains("hunter2"),
        "{message}"
    );
    let message = refused("upstreams: { quay.io: { proxy: \"http://ci:hunter2@proxy:3128\" } }\n");
    assert!(
        message.contains("a password is not written into the configuration") && !message.contains("hunter2"),
        "{message}"
    );
    let message = refused("upstreams: { quay.io: { endpoints: [\"https://ci:hunter2@quay.io\"] } }\n");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn secrets_come_from_files_without_their_last_line_break() {
    let folder = tempfile::tempdir().unwrap();
    for (content, secret) in
        [("hunter2", "hunter2"), ("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), (" a\n\n", " a\n")]
    {
        std::fs::write(folder.path().join("password"), content).unwrap();
        let text = "upstreams: { quay.io: { credential: { username: ci, password_file: password } } }\n";
        let loaded = load_in(folder.path(), text, &|_| None).unwrap();
        let Some(config::upstream::Credential::Basic { password, .. }) = &loaded.config.upstreams["quay.io"].credential
        else {
            panic!("the credential is not there")
        };
        assert_eq!(password.reveal(), secret);
        assert_eq!(loaded.remarks.len(), 1, "a file that others can read deserves a remark: {:?}", loaded.remarks);
    }
}

#[test]
fn a_policy_that_asks_a_forge_that_is_none_deserves_a_look() {
    let policies = "retention: { policies: [{ name: a, repositories: [\"cache/{repo}\"], select: [\"{branch|slug}\"], keep: [{ branch_alive: { forge: hub, repository: \"acme/{repo}\" } }, { pr_open: { forge: lab, repository: \"acme/{repo}\" } }] }] }\n";
    let loaded = load_with(&format!("forges: {{ lab: {{ kind: gitlab }} }}\n{policies}"), &|_| None).unwrap();
    let remarks: Vec<&str> = loaded.remarks.iter().map(|remark| remark.message.as_str()).collect();
    assert_eq!(remarks, ["the policy a asks `hub`, which forges does not name: it keeps what it asks for"]);
}

#[test]
fn a_url_that_is_a_secret_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let text = "notify: [{ url_file: chat, events: [store_full] }]\n";
    std::fs::write(folder.path().join("chat"), "htps://chat.test/hunter2\n").unwrap();
    let message = load_in(folder.path(), text, &|_| None).unwrap_err();
    assert_eq!(message, "larder.yaml:1:22: notify[0].url_file: the file holds no URL of http or https");
    std::fs::write(folder.path().join("chat"), "https://chat.test/hunter2\n").unwrap();
    let config = load_in(folder.path(), text, &|_| None).unwrap().config;
    assert_eq!(config.notify[0].events, [config::EventName::StoreFull]);
    assert!(!format!("{config:?}").contains("hunter2"));
    let message = load_in(folder.path(), "notify: [{ url_file: chat, events: [] }]\n", &|_| None).unwrap_err();
    assert!(message.contains("`events` names nothing to tell of"), "{message}");
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = load_in(folder.path(), "store: { path: data }\n", &|_| None).unwrap();
    assert_eq!(loaded.config.store.path, folder.path().join("data"));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.yaml");
    std::fs::write(&file, "listen: 127.0.0.1:6000\n").unwrap();
    let sources = Sources {
        file: Some(file),
        listen: vec!["127.0.0.1:7000".to_owned(), "[::1]:7000".to_owned()],
        store: Some("/elsewhere".into()),
        log: Some("debug".to_owned()),
    };
    let config = config::load(&sources, &|_| None).unwrap().config;
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.store.path, Path::new("/elsewhere"));
    assert_eq!(config.telemetry.log, "debug");

    let open = Sources { listen: vec!["0.0.0.0:7000".to_owned()], ..Sources::default() };
    let message = config::load(&open, &|_| None).unwrap_err().to_string();
    assert!(message.starts_with("--listen: listen: 0.0.0.0:7000 is not loopback"), "{message}");
}

#[test]
fn upstreams_are_merged_by_their_host_and_null_removes_one() {
    let config = load("upstreams:\n  ghcr.io: null\n  docker.io: { deny: [\"acme/secret-*\"] }\n  reg.test:5000: {}\n");
    assert!(!config.upstreams.contains_key("ghcr.io"));
    assert_eq!(config.upstreams["docker.io"].endpoints[0].as_str(), "https://registry-1.docker.io/");
    assert_eq!(config.upstreams["docker.io"].deny.len(), 1);
    assert_eq!(config.upstreams["reg.test:5000"].endpoints[0].as_str(), "https://reg.test:5000/");
}

#[test]
fn hosts_that_no_image_name_can_have_are_refused() {
    for (host, message) in [
        ("index.docker.io", "which the configuration calls docker.io"),
        ("https://ghcr.io", "URLs belong to `endpoints`"),
        ("GHCR.io", "must be in lower case"),
        ("registry", "needs a dot or a port"),
        ("a..b", "is not a host"),
        ("reg.test:99999", "is not a host"),
    ] {
        let said = refused(&format!("upstreams: {{ \"{host}\": {{}} }}\n"));
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn a_credential_is_exactly_one_of_its_kinds() {
    for text in ["{}", "{ username: ci }", "{ helper: x, docker_config: larder.yaml }", "{ helper: ../../bin/sh }"] {
        let said = refused(&format!("upstreams: {{ quay.io: {{ credential: {text} }} }}\n"));
        assert!(said.starts_with("larder.yaml:1:"), "{said}");
    }
    let config = load("upstreams: { quay.io: { credential: { helper: ecr-login } } }\n");
    assert_eq!(
        config.upstreams["quay.io"].credential,
        Some(config::upstream::Credential::Helper("ecr-login".to_owned()))
    );
}

#[test]
fn anonymous_rights_follow_the_address_unless_they_are_said() {
    use larder::config::Action::Delete;
    use larder::config::Action::Pull;
    use larder::config::Action::Push;
    assert_eq!(load("").access.anonymous, [Pull, Push, Delete]);
    assert_eq!(load("{ listen: \"0.0.0.0:5000\", plain_http: true }").access.anonymous, []);
    assert_eq!(load("access: null").access.anonymous, [Pull, Push, Delete]);
    assert_eq!(load("access: {}").access.anonymous, [], "a section that is there says what there is");
    assert_eq!(load("access: { networks: { runners: [10.20.0.0/16] } }").access.anonymous, []);
    assert_eq!(
        load("{ listen: \"0.0.0.0:5000\", plain_http: true, access: { anonymous: [pull] } }").access.anonymous,
        [Pull]
    );
}

#[test]
fn rules_name_networks_and_users_that_are_there() {
    let config = load(
        "access: { networks: { runners: [10.20.0.0/16, 10.1.2.3] }, rules: [{ who: \"net:runners\", may: [pull], repositories: [\"**\"] }] }\n",
    );
    assert_eq!(config.access.rules.len(), 1);
    for (who, message) in [
        ("net:runers", "access.networks has no `runers`; it has none"),
        ("gh:acme/*", "`gh:` is not supported by this version yet"),
        ("ci", "access.htpasswd is not set"),
    ] {
        let said =
            refused(&format!("access: {{ rules: [{{ who: \"{who}\", may: [pull], repositories: [\"**\"] }}] }}\n"));
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn a_password_file_holds_bcrypt_hashes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), "# ours\nci:$2y$05$abc\n").unwrap();
    assert!(load_in(folder.path(), "access: { htpasswd: users }\n", &|_| None).is_ok());
    let named = "access: { htpasswd: users, rules: [{ who: ci, may: [pull], repositories: [\"**\"] }, { who: cd, may: [pull], repositories: [\"**\"] }] }\n";
    let loaded = load_in(folder.path(), named, &|_| None).unwrap();
    let remarks: Vec<&str> = loaded.remarks.iter().map(|remark| remark.message.as_str()).collect();
    assert!(remarks.contains(&"no user of the htpasswd file is called `cd`") && remarks.len() == 2, "{remarks:?}");
    std::fs::write(folder.path().join("users"), "ci:$2y$05$abc\nold:{SHA}xyz\n").unwrap();
    let message = load_in(folder.path(), "access: { htpasswd: users }\n", &|_| None).unwrap_err();
    assert!(message.contains("line 2 is not user:hash with a bcrypt hash") && !message.contains("xyz"), "{message}");
}

#[test]
fn freshness_is_decided_by_the_first_rule_and_completed_by_the_upstream() {
    let config = load(
        "freshness: [{ match: \"docker.io/acme/**:main\", fresh_for: 0s }, { match: \"**:v*\", immutable: true }]\n",
    );
    let windows = |name: &str, credential| config.freshness.windows(&[name], credential);
    assert_eq!(windows("docker.io/acme/app:main", false).fresh_for, Duration::ZERO);
    assert_eq!(windows("docker.io/acme/app:main", false).stale_while_revalidate, Duration::from_mins(10));
    assert!(windows("ghcr.io/acme/app:v1.2", true).immutable);
    assert!(
        windows("ghcr.io/acme/app:sha-0123abc", true).immutable,
        "the default rule stands after the configured ones"
    );
    assert_eq!(windows("docker.io/library/alpine:3", false).fresh_for, Duration::from_mins(1));
    assert_eq!(windows("ghcr.io/acme/app:main", true).fresh_for, Duration::ZERO);
}

#[test]
fn build_caches_name_what_stands_in() {
    let config = load("build_caches: [{ match: \"cache/**\", fallback: [\"{base|slug}\", main] }]\n");
    let entry = &config.build_caches[0];
    assert_eq!((entry.tag.as_str(), entry.fallback.len()), ("{branch|slug}", 2));
    assert_eq!(entry.unknown().collect::<Vec<_>>(), ["base"]);
    let remarks =
        load_with("build_caches: [{ match: a, fallback: [\"{branch|slug}\"] }]\n", &|_| None).unwrap().remarks;
    assert!(remarks[0].message.contains("never stands in for itself"), "{remarks:?}");
}

#[tokio::test]
async fn a_reload_follows_the_files_and_keeps_the_old_configuration_when_they_are_bad() {
    use larder::config::reload::Outcome;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.yaml");
    std::fs::write(&file, "drain: 1s\n").unwrap();
    let sources = Sources { file: Some(file.clone()), ..Sources::default() };
    let loaded = config::load(&sources, &|_| None).unwrap();
    let (mut reload, current) = config::Reload::new(sources, |_| None, loaded);
    assert!(matches!(reload.look().await, Outcome::Unchanged));

    std::fs::write(&file, "drain: [broken").unwrap();
    assert!(matches!(reload.look().await, Outcome::Kept(_)));
    assert!(matches!(reload.look().await, Outcome::Unchanged), "a bad file is said once");
    assert_eq!(current.borrow().drain, Duration::from_secs(1));

    std::fs::write(&file, "{ drain: 3s, listen: \"127.0.0.1:6000\", upstreams: { quay.io: { credential: { username: u, password_file: p } } } }").unwrap();
    assert!(matches!(reload.look().await, Outcome::Kept(_)), "the password file is missing");
    std::fs::write(folder.path().join("p"), "one").unwrap();
    let Outcome::Reloaded { restart } = reload.look().await else { panic!("a file that appears is a change") };
    assert_eq!(restart, ["listen"]);
    assert_eq!(current.borrow().drain, Duration::from_secs(3));

    let before = current.borrow().clone();
    std::fs::write(folder.path().join("p"), "two").unwrap();
    assert!(matches!(reload.look().await, Outcome::Reloaded { .. }), "a secret's file is watched");
    assert_ne!(current.borrow().upstreams["quay.io"], before.upstreams["quay.io"]);
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(reload.look().await, Outcome::Kept(_)));
}

/// A file of the folder `config/`.
fn shipped(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

#[test]
fn every_shipped_file_loads() {
    let mut names: Vec<String> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    names.sort();
    assert!(names.contains(&"complete.yaml".to_owned()) && names.len() >= 3, "{names:?}");
    for name in names {
        if let Err(message) = load_with(&shipped(&name), &|_| None) {
            panic!("{name}: {message}");
        }
    }
}

#[test]
fn the_complete_file_is_the_defaults() {
    assert_eq!(load(&shipped("complete.yaml")), Config::default());
}

/// The complete file with its optional lines (`#key`) in effect, and the files that they name.
fn everything_set() -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let certificate = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    for (name, content) in [
        ("tls.crt", certificate),
        ("corp.pem", certificate),
        ("tls.key", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"),
        ("hub", "password\n"),
        ("forge", "token\n"),
        ("webhook", "secret\n"),
        ("chat", "https://chat.example.com/hooks/0123\n"),
        ("config.json", "{}"),
        ("htpasswd", "ci:$2y$05$abc\n"),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let uncommented = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => line.replacen('#', "", 1),
        _ => line.to_owned(),
    };
    let text: Vec<String> = shipped("complete.yaml").lines().map(uncommented).collect();
    let text = text.join("\n");
    let text = text.replace("/run/secrets/hub", "hub").replace("~/.docker/config.json", "config.json");
    let text = text.replace("/etc/larder/htpasswd", "htpasswd");
    let text = text.replace("/run/secrets/forge", "forge").replace("/run/secrets/webhook", "webhook");
    let text = text.replace("/run/secrets/chat", "chat");
    let environment = |name: &str| (name == "GHCR_TOKEN").then(|| "token".to_owned());
    load_in(folder.path(), &text, &environment).unwrap()
}

#[test]
fn the_complete_file_names_every_option() {
    assert_eq!(everything_set().unnamed, Vec::<String>::new());
}

#[test]
fn the_complete_file_says_a_sentence_about_each_option() {
    let text = shipped("complete.yaml");
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    // Names that the user chooses, and keys that were explained where they stand first.
    let known = ["docker.io:", "gcr.io:", "ghcr.io:", "mcr.microsoft.com:", "public.ecr.aws:", "quay.io:"];
    let known =
        known.into_iter().chain(["registry.k8s.io:", "visibility:", "credential:", "username:", "limits:", "{"]);
    let known: Vec<&str> = known.collect();
    for pair in lines.windows(2) {
        let key = pair[1].trim_start_matches(['#', '-', ' ']);
        let is_key = !pair[1].starts_with("# ") && key.contains(':');
        if is_key && !known.iter().any(|known| key.starts_with(known)) {
            assert!(pair[0].starts_with("# "), "no sentence before {:?}", pair[1]);
        }
    }
}

/// What a comment `# [matches a, b; not c]` says about the next pattern.
fn promises(comment: &str) -> Option<(Vec<&str>, Vec<&str>)> {
    let inside = comment.trim_start().strip_prefix("# [matches ")?.strip_suffix(']')?;
    let (does, does_not) = inside.split_once("; not ").unwrap_or((inside, ""));
    Some((does.split(", ").collect(), does_not.split(", ").filter(|name| !name.is_empty()).collect()))
}

#[test]
fn every_pattern_matches_what_its_comment_says() {
    let mut checked = 0;
    for name in ["complete.yaml", "docker-hub-mirror.yaml", "ci-cache.yaml", "air-gapped.yaml"] {
        let text = shipped(name);
        let mut promised = None;
        for line in text.lines() {
            if let Some(found) = promises(line) {
                promised = Some(found);
                continue;
            }
            // The pattern is the first quoted text with a star after the comment.
            let pattern = line.split('"').find(|part| part.contains('*'));
            let (Some((does, does_not)), Some(pattern)) = (&promised, pattern) else { continue };
            let glob: larder::pattern::Glob = pattern.parse().unwrap();
            assert!(does.iter().all(|one| glob.matches(one)), "{name}: {pattern} matches {does:?}");
            assert!(!does_not.iter().any(|one| glob.matches(one)), "{name}: {pattern} does not match {does_not:?}");
            promised = None;
            checked += 1;
        }
        assert!(promised.is_none(), "{name}: a promise without a pattern");
    }
    assert!(checked >= 7, "{checked} patterns were checked");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "(?s).{0,200}") {
        let _ = load_with(&text, &|_| None);
    }

    #[test]
    fn a_damaged_file_is_refused_or_read_and_never_panics(line in 0_usize..200, junk in "[ a-z:{}\\[\\]#&*!|>'\"%@`$-]{0,12}") {
        let text = shipped("complete.yaml");
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let at = line % lines.len();
        lines[at] = &junk;
        if let Err(message) = load_with(&lines.join("\n"), &|_| None) {
            proptest::prop_assert!(message.starts_with("larder.yaml:"), "{message}");
        }
    }
}

/// The blocks of YAML in a page of the documentation.
fn yaml_blocks(page: &str) -> Vec<String> {
    let parts = page.split("\n```yaml\n").skip(1);
    parts.filter_map(|part| Some(part.split_once("\n```")?.0.to_owned())).collect()
}

fn pages(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn the_configurations_in_the_documentation_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md")];
    pages(&root.join("docs"), &mut found);
    let environment = |name: &str| name.ends_with("_TOKEN").then(|| "token".to_owned());
    let mut loaded = 0;
    for page in found.into_iter().filter(|page| page.exists()) {
        for block in yaml_blocks(&std::fs::read_to_string(&page).unwrap()) {
            // Other programs' files have other keys at their top.
            if block.contains("apiVersion:") || block.starts_with("mirrors:") || block.starts_with("services:") {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            for secret in ["registry-token", "hub-token"] {
                std::fs::write(folder.path().join(secret), "token\n").unwrap();
            }
            std::fs::write(folder.path().join("htpasswd"), "alice:$2y$05$abc\n").unwrap();
            std::fs::write(folder.path().join("chat-url"), "https://chat.example.com/hooks/0123\n").unwrap();
            if let Err(message) = load_in(folder.path(), &block, &environment) {
                panic!("{}: {message}\n{block}", page.display());
            }
            loaded += 1;
        }
    }
    assert!(loaded >= 8, "{loaded} blocks were found");
}

const POLICY: &str = "
retention:
  policies:
  - name: branches
    repositories: [\"cache/{repo}\", \"ghcr.io/acme/{repo}\"]
    select: [\"{branch|slug}-{sha:7}\", buildcache]
    keep: [{ newest: 3, pushed_within: 10d }, { tags: [\"v*\"] }]
";

#[test]
fn a_policy_has_defaults_that_are_careful() {
    let config = load(POLICY);
    let [policy] = &config.retention.policies[..] else { panic!("one policy is there") };
    assert_eq!(policy.grace, Duration::from_hours(24));
    assert_eq!(policy.at_most, config::retention::AtMost { deletes: 500, share: 50 });
    assert_eq!(policy.count_by, config::retention::CountBy::Variable("branch".to_owned()));
    assert_eq!(config.retention.mode, config::retention::Mode::Report);
    assert_eq!(config.retention.schedule, None);
    let items: Vec<String> = policy.keep.iter().map(ToString::to_string).collect();
    assert_eq!(items, ["newest: 3, pushed_within: 10d", "tags: [v*]"]);
}

#[test]
fn a_policy_that_can_know_no_branch_deserves_a_remark() {
    let text = POLICY.replace("- name: branches", "- name: all").replace(
        "keep: [{ newest: 3, pushed_within: 10d }, { tags: [\"v*\"] }]",
        "keep: [{ branch_alive: { file: branches.txt } }]",
    );
    let loaded = load_with(&text.replace("buildcache", "\"sha-{sha}\""), &|_| None).unwrap();
    let said: Vec<&str> = loaded.remarks.iter().map(|remark| remark.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "the policy all asks for the branch, and of what `sha-{sha}` selects nothing says which it is: all of it is kept"
        ]
    );
}
