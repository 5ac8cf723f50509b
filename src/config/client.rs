//! What the clients' own configuration must say to pull through here: one file, or one command line, for each kind.
//!
//! Pure: the command line prints or writes it, the API answers with it.

mod docker;
mod welcome;

use std::fmt::Write as _;

use url::Url;

pub use docker::merge_daemon_json;
pub use welcome::reachable;
pub use welcome::target;
pub use welcome::welcome;

/// The clients that files are made for, by their names on the command line and in `/client-config/<kind>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// dockerd.
    Docker,
    /// containerd: ctr, nerdctl, Kubernetes through CRI.
    Containerd,
    /// `buildkitd`, and buildx's docker-container driver.
    Buildkit,
    /// podman, buildah, skopeo.
    Podman,
    /// CRI-O.
    Crio,
    /// k3s and rke2.
    K3s,
    /// kaniko's command line.
    Kaniko,
}

impl Kind {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("docker", Self::Docker),
        ("containerd", Self::Containerd),
        ("buildkit", Self::Buildkit),
        ("podman", Self::Podman),
        ("crio", Self::Crio),
        ("k3s", Self::K3s),
        ("kaniko", Self::Kaniko),
    ];

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// Which server the clients shall use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How the clients reach it: scheme, host and port.
    pub url: Url,
    /// The hosts that it knows.
    pub upstreams: Vec<String>,
    /// The host that names without one mean there.
    pub default_upstream: String,
}

/// How a file is put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placing {
    /// It is ours alone; a different one is kept beside it and replaced.
    Ours,
    /// It belongs to the client and holds other settings: ours are merged by [`merge_daemon_json`].
    Merged,
    /// It belongs to the client and can't be merged: it is written only where there is none.
    Theirs,
    /// It is no file but a command line.
    Printed,
}

/// One client's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFile {
    /// Where the client looks for it.
    pub path: &'static str,
    /// What it holds.
    pub content: String,
    /// How it is put there.
    pub placing: Placing,
    /// What makes the client take it up, and what else there is to know; sentences.
    pub then: String,
}

impl Target {
    /// The URL without a slash at its end, as clients want it.
    fn base(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Host and port alone.
    fn authority(&self) -> &str {
        self.base().split_once("://").map_or(self.base(), |(_, authority)| authority)
    }

    fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// A build cache here, as it stands in the commands of builders.
    fn cache(&self) -> String {
        format!("{}/cache/NAME:BRANCH", self.authority())
    }

    /// The mirror of Docker Hub for clients that name no host: dockerd sends neither `ns` nor a prefix of its own.
    fn hub_mirror(&self) -> String {
        if self.default_upstream == "docker.io" { self.base().to_owned() } else { format!("{}/docker.io", self.base()) }
    }
}

/// The configuration of one kind of client.
pub fn generate(kind: Kind, target: &Target) -> ClientFile {
    match kind {
        Kind::Docker => docker::daemon_json(target),
        Kind::Containerd => containerd(target),
        Kind::Buildkit => buildkit(target),
        Kind::Podman => {
            let then = format!(
                "Podman, buildah and skopeo read it at each start; there is nothing to reload. A build cache: `buildah \
                 build --layers --cache-from {cache} --cache-to {cache} .`",
                cache = format_args!("{}/cache/NAME", target.authority())
            );
            containers(target, &then)
        }
        Kind::Crio => containers(target, "CRI-O takes it up with `systemctl reload crio`."),
        Kind::K3s => k3s(target),
        Kind::Kaniko => kaniko(target),
    }
}

fn containerd(target: &Target) -> ClientFile {
    // Without `server` the registry of the image's own name is asked last, when this server is away or does not know it.
    let content = format!(
        "[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n  # ca = \"/etc/containerd/larder-ca.pem\"\n  # [host.\"{}\".header]\n  #   Authorization = [\"Basic …\"]\n",
        target.base(),
        target.base(),
    );
    ClientFile {
        path: "/etc/containerd/certs.d/_default/hosts.toml",
        content,
        placing: Placing::Ours,
        then: "It is read at each pull. For Kubernetes (CRI) /etc/containerd/config.toml must name the folder once, \
               followed by `systemctl restart containerd`: [plugins.\"io.containerd.cri.v1.images\".registry] \
               config_path = \"/etc/containerd/certs.d\" (containerd 1.x: [plugins.\"io.containerd.grpc.v1.cri\".registry]). \
               ctr wants --hosts-dir /etc/containerd/certs.d."
            .to_owned(),
    }
}

fn buildkit(target: &Target) -> ClientFile {
    let mut content = String::new();
    for host in &target.upstreams {
        let _ = writeln!(content, "[registry.\"{host}\"]\n  mirrors = [\"{}\"]", target.authority());
    }
    let _ = writeln!(content, "[registry.\"{}\"]", target.authority());
    content.push_str(if target.is_plain() {
        "  http = true\n"
    } else {
        "  # ca = [\"/etc/buildkit/larder-ca.pem\"]\n"
    });
    ClientFile {
        path: "/etc/buildkit/buildkitd.toml",
        content,
        placing: Placing::Theirs,
        then: format!(
            "buildkitd reads it at its start. With buildx: `docker buildx create --use --buildkitd-config FILE`; with \
             setup-buildx-action it is the input `buildkitd-config-inline`. The `docker` driver uses dockerd's mirrors \
             instead. A build cache: `docker buildx build --cache-to \
             type=registry,ref={cache},mode=max,ignore-error=true --cache-from type=registry,ref={cache} .`",
            cache = target.cache()
        ),
    }
}

fn containers(target: &Target, then: &str) -> ClientFile {
    let mut content = String::new();
    for host in &target.upstreams {
        let _ = write!(
            content,
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n[[registry.mirror]]\nlocation = \"{}/{host}\"\n",
            target.authority()
        );
        if target.is_plain() {
            content.push_str("insecure = true\n");
        }
        content.push('\n');
    }
    content.truncate(content.trim_end().len());
    content.push('\n');
    ClientFile {
        path: "/etc/containers/registries.conf.d/50-larder.conf",
        content,
        placing: Placing::Ours,
        then: then.to_owned(),
    }
}

fn k3s(target: &Target) -> ClientFile {
    ClientFile {
        path: "/etc/rancher/k3s/registries.yaml",
        content: format!("mirrors:\n  \"*\":\n    endpoint:\n      - \"{}\"\n", target.base()),
        placing: Placing::Theirs,
        then: "k3s takes it up with `systemctl restart k3s` (agents: k3s-agent). For rke2 the file is \
               /etc/rancher/rke2/registries.yaml."
            .to_owned(),
    }
}

fn kaniko(target: &Target) -> ClientFile {
    let mut words = Vec::new();
    if target.default_upstream == "docker.io" {
        words.push(format!("--registry-mirror={}", target.authority()));
    } else {
        words.push(format!("--registry-mirror={}/docker.io", target.authority()));
    }
    for host in target.upstreams.iter().filter(|host| *host != "docker.io") {
        words.push(format!("--registry-map={host}={}/{host}", target.authority()));
    }
    if target.is_plain() {
        words.push(format!("--insecure-registry={}", target.authority()));
    }
    ClientFile {
        path: "the command line of kaniko's executor",
        content: words.join(" \\\n") + "\n",
        placing: Placing::Printed,
        then: format!(
            "Add these flags to the executor. A build cache: `--cache=true --cache-repo={}/cache/NAME`.",
            target.authority()
        ),
    }
}

#[cfg(test)]
mod tests;
