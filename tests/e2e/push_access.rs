//! Pushes with a credential, and without one that is needed: each client asks for its token in a way of its own.

use std::path::Path;

use serde_json::json;

use crate::docker;
use crate::docker::Dockerd;
use crate::support::buildkitd;
use crate::support::buildkitd::Buildkitd;
use crate::support::images;
use crate::support::images::Image;
use crate::support::larder;
use crate::support::larder::Larder;
use crate::support::parts;
use crate::support::parts::CRANE;
use crate::support::parts::SKOPEO;
use crate::support::parts::Scratch;
use crate::support::registry::Registry;

/// larder that lets everybody pull docker.io and `cache/open/**`, and `ci` push.
#[derive(Debug)]
struct Guarded {
    larder: Larder,
    _upstream: Registry,
    base: Image,
    scratch: Scratch,
}

impl Guarded {
    fn new() -> Self {
        let scratch = Scratch::new();
        let upstream = Registry::start(&scratch);
        let base = images::busybox("base");
        upstream.push("library/base", "1", &base);
        let hash = bcrypt::hash("secret", 4).expect("hashing a password");
        let htpasswd = scratch.file("htpasswd", &format!("ci:{hash}\n"));
        let access = json!({ "access": { "htpasswd": htpasswd, "rules": [
            { "who": "*", "may": ["pull"], "repositories": ["docker.io/**", "cache/open/**"] },
            { "who": "ci", "may": ["pull", "push"], "repositories": ["cache/**"] },
        ] } });
        let larder = Larder::with(&scratch, Some(upstream.url()), &access);
        Self { larder, _upstream: upstream, base, scratch }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.larder.address())
    }

    /// A folder with docker's `config.json`, which has the credential.
    fn credentials(&self) -> std::path::PathBuf {
        // ci:secret
        let auths = json!({ "auths": { self.larder.address(): { "auth": "Y2k6c2VjcmV0" } } });
        let file = self.scratch.file("credentials/config.json", &auths.to_string());
        file.parent().expect("a file lies in a folder").to_owned()
    }
}

#[test]
fn docker_pushes_after_a_login_and_not_before() {
    if !docker::is_here() || larder::is_peer() {
        return;
    }
    let guarded = Guarded::new();
    let dockerd = Dockerd::start(&guarded.scratch, "{}");
    let docker = |arguments: &[&str]| parts::run(dockerd.docker().args(arguments));
    let (base, image) = (guarded.at("docker.io/library/base:1"), guarded.at("cache/open/app:1"));
    let pulled = docker(&["pull", &base]).expect("docker pull without a login").out;
    assert!(pulled.contains(&guarded.base.digest()), "{pulled}");
    docker(&["tag", &base, &image]).expect("docker tag");
    assert!(!docker(&["push", &image]).succeeded, "a push without a login");
    let login = ["login", "--username", "ci", "--password", "secret", guarded.larder.address()];
    docker(&login).expect("docker login");
    docker(&["push", &image]).expect("docker push");
    docker(&["push", &image]).expect("docker push of what is there");
    docker(&["logout", guarded.larder.address()]).expect("docker logout");
    docker(&["pull", &image]).expect("docker pull of what everybody may pull");
}

#[test]
fn buildkit_exports_its_cache_with_the_credential_of_its_client() {
    if !buildkitd::is_here() || larder::is_peer() {
        return;
    }
    let guarded = Guarded::new();
    let dockerfile = format!("FROM {}\nRUN echo built > /built\n", guarded.at("docker.io/library/base:1"));
    let file = guarded.scratch.file("context/Dockerfile", &dockerfile);
    let context = file.parent().expect("a file lies in a folder");
    let registries = guarded.larder.client_config("buildkit", &guarded.larder.url());
    let buildkitd = Buildkitd::start(&guarded.scratch, "buildkitd", &registries);
    let build = |credentials: &Path| {
        let cache = format!("type=registry,ref={}", guarded.at("cache/app:main"));
        let (to, image) = (format!("{cache},mode=max"), guarded.at("run/1/cache/image:1"));
        let output = format!("type=image,name={image},push=true");
        let arguments = ["--export-cache", &to, "--import-cache", &cache, "--output", &output];
        buildkitd.build_as(credentials, context, &arguments)
    };
    assert!(!build(context).succeeded, "an export without a credential");
    build(&guarded.credentials()).expect("buildctl build");
    build(&guarded.credentials()).expect("buildctl build of what is there");
}

#[test]
fn skopeo_and_crane_copy_between_repositories_with_a_credential() {
    if !parts::are_here(&[SKOPEO, CRANE, parts::REGISTRY, parts::BUSYBOX]) || larder::is_peer() {
        return;
    }
    let guarded = Guarded::new();
    let policy = guarded.scratch.file("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
    let skopeo = |credential: &[&str], to: &str| {
        let mut command = SKOPEO.command();
        command.arg("--policy").arg(&policy).args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        let from = format!("docker://{}", guarded.at("docker.io/library/base:1"));
        parts::run(command.args(credential).arg(from).arg(format!("docker://{}", guarded.at(to))))
    };
    assert!(!skopeo(&[], "cache/open/app:1").succeeded, "a push without a credential");
    assert!(!skopeo(&["--dest-creds", "ci:wrong"], "cache/open/app:1").succeeded, "a push with a wrong password");
    skopeo(&["--dest-creds", "ci:secret"], "cache/open/app:1").expect("skopeo copy");
    let crane = |credentials: &Path, to: &str| {
        let mut command = CRANE.command();
        command.env("DOCKER_CONFIG", credentials).args(["copy", "--insecure", &guarded.at("cache/open/app:1")]);
        parts::run(command.arg(guarded.at(to)))
    };
    assert!(!crane(guarded.scratch.path(), "cache/crane:1").succeeded, "a push without a credential");
    crane(&guarded.credentials(), "cache/crane:1").expect("crane copy");
    assert!(!crane(&guarded.credentials(), "elsewhere/crane:1").succeeded, "a push to what is not hosted");
}
