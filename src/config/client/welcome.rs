//! What the server says when it begins to listen: where, and the lines to paste into the clients.

use std::net::SocketAddr;

use url::Url;

use crate::config::Config;

use super::Target;

/// How clients of this machine, or of others where `external_url` says so, reach a server that listens there.
///
/// `None` where the addresses make no URL.
pub fn target(config: &Config, listen: &[SocketAddr]) -> Option<Target> {
    let url = match (&config.external_url, listen.first()) {
        (Some(url), _) => url.clone(),
        (None, Some(address)) => {
            let scheme = if config.tls.is_some() { "https" } else { "http" };
            Url::parse(&format!("{scheme}://{}", reachable(*address))).ok()?
        }
        (None, None) => return None,
    };
    Some(Target {
        url,
        upstreams: config.upstreams.keys().cloned().collect(),
        default_upstream: config.default_upstream.clone(),
    })
}

/// An address to connect to: what listens everywhere is reached on loopback.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The text; `listen` and `admin` are the addresses as they were bound, with the ports that the system chose.
pub fn welcome(config: &Config, listen: &[SocketAddr], admin: SocketAddr) -> String {
    let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let mut text = format!("larder listens on {}; the admin API on {admin}\n", addresses.join(", "));
    let Some(target) = target(config, listen) else { return text };
    let (base, authority) = (target.base(), target.authority());
    let plain = target.is_plain();
    let lines = [
        format!("  dockerd     daemon.json       {{\"registry-mirrors\": [\"{}\"]}}", target.hub_mirror()),
        format!("  containerd  hosts.toml        [host.\"{base}\"]"),
        "                                  capabilities = [\"pull\", \"resolve\"]".to_owned(),
        format!("  BuildKit    buildkitd.toml    [registry.\"docker.io\"]\n{:32}  mirrors = [\"{authority}\"]", ""),
        format!("{:32}[registry.\"{authority}\"]\n{:32}  http = {plain}", "", ""),
        format!(
            "  podman      registries.conf   [[registry]]\n{:32}prefix = \"docker.io\"\n{:32}location = \"docker.io\"",
            "", ""
        ),
        format!(
            "{:32}[[registry.mirror]]\n{:32}location = \"{authority}/docker.io\"\n{:32}insecure = {plain}",
            "", "", ""
        ),
    ];
    text.push_str(&lines.join("\n"));
    text.push_str(
        "\nThe whole files: larder client-config docker | containerd | buildkit | podman | crio | k3s | kaniko\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::welcome;
    use crate::config::Config;

    #[test]
    fn the_welcome_names_the_addresses_and_what_to_paste() {
        let config = Config::default();
        let text = welcome(&config, &config.listen, config.admin.listen);
        let wanted = "\
larder listens on 127.0.0.1:5000; the admin API on 127.0.0.1:5001
  dockerd     daemon.json       {\"registry-mirrors\": [\"http://127.0.0.1:5000\"]}
  containerd  hosts.toml        [host.\"http://127.0.0.1:5000\"]
                                  capabilities = [\"pull\", \"resolve\"]
  BuildKit    buildkitd.toml    [registry.\"docker.io\"]
                                  mirrors = [\"127.0.0.1:5000\"]
                                [registry.\"127.0.0.1:5000\"]
                                  http = true
  podman      registries.conf   [[registry]]
                                prefix = \"docker.io\"
                                location = \"docker.io\"
                                [[registry.mirror]]
                                location = \"127.0.0.1:5000/docker.io\"
                                insecure = true
The whole files: larder client-config docker | containerd | buildkit | podman | crio | k3s | kaniko
";
        assert_eq!(text, wanted);
    }
}
