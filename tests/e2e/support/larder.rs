//! larder as the built program, with a configuration of its own.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use super::client;
use super::parts;
use super::parts::Program;
use super::parts::REGISTRY;
use super::parts::Scratch;
use super::parts::free_port;

#[derive(Debug)]
pub(crate) struct Larder {
    program: Program,
    address: String,
    config: PathBuf,
}

impl Larder {
    /// Serves `docker.io` and `other.test` from the endpoint. Every pull of a tag looks at the upstream first, so that
    /// the pulls after its end are those of a tag past its freshness.
    pub(crate) fn start(scratch: &Scratch, endpoint: &str) -> Self {
        Self::with(scratch, Some(endpoint), &json!({}))
    }

    /// Takes pushes to `cache/**`, and knows no upstream that is there. The keys are added to its configuration.
    pub(crate) fn hosting(scratch: &Scratch, keys: &Value) -> Self {
        Self::with(scratch, None, keys)
    }

    /// The same in front of an upstream, where there is one.
    pub(crate) fn with(scratch: &Scratch, endpoint: Option<&str>, keys: &Value) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let store = scratch.folder("store").display().to_string();
        // Nothing listens on port 9, where packets used to be discarded.
        let mut config = configuration(&address, &store, endpoint.unwrap_or("http://127.0.0.1:9"));
        for (key, value) in keys.as_object().expect("keys are an object") {
            config[key] = value.clone();
        }
        let config = scratch.file("larder.yaml", &config.to_string());
        let mut command = if is_peer() {
            peer(scratch, &address, endpoint)
        } else {
            let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
            command.arg("serve").arg("--config").arg(&config);
            command
        };
        let mut program = Program::start(scratch, "larder", &mut command);
        let ready = if is_peer() { "/v2/" } else { "/readyz" };
        let ready = format!("http://{address}{ready}");
        program.wait_until("ready", || client::get(&ready).is_ok_and(|answer| answer.status == 200));
        Self { program, address, config }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it, as its machine's restart would.
    pub(crate) fn stop(&mut self) {
        self.program.stop();
    }

    /// What a command of larder's prints that asks this server.
    pub(crate) fn asked(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.args(arguments).arg("--config").arg(&self.config);
        parts::run(&mut command).expect("a command of larder's").out
    }

    /// The file that makes a client pull from this URL, as larder writes it for people.
    pub(crate) fn client_config(&self, kind: &str, url: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.args(["client-config", kind, "--url", url, "--config"]).arg(&self.config);
        parts::run(&mut command).expect("larder client-config").out
    }

    /// What stands in front of a repository of this upstream where clients know no mirrors.
    pub(crate) fn prefix(&self, host: &str) -> String {
        if is_peer() { self.address.clone() } else { format!("{}/{host}", self.address) }
    }
}

/// A whole configuration, as JSON, which is YAML.
pub(crate) fn configuration(address: &str, store: &str, endpoint: &str) -> Value {
    json!({
        "listen": address,
        "admin": { "listen": format!("127.0.0.1:{}", free_port()) },
        "store": { "path": store },
        "upstreams": { "docker.io": { "endpoints": [endpoint] }, "other.test": { "endpoints": [endpoint] } },
        "freshness": [{ "match": "**", "fresh_for": "0s", "stale_while_revalidate": "0s" }],
    })
}

/// Whether docker-registry stands in larder's place.
pub(crate) fn is_peer() -> bool {
    std::env::var_os("LARDER_E2E_PEER").is_some()
}

/// A mirror of the endpoint, or, without one, a registry that takes pushes: it can't be both.
fn peer(scratch: &Scratch, address: &str, endpoint: Option<&str>) -> Command {
    let proxy = endpoint.map_or_else(String::new, |endpoint| format!("proxy: {{remoteurl: '{endpoint}'}}\n"));
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\n\
         storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n\
         http: {{addr: '{address}'}}\n{proxy}",
        scratch.folder("store").display()
    );
    let mut command = REGISTRY.command();
    command.arg("serve").arg(scratch.file("peer.yml", &config)).env("OTEL_TRACES_EXPORTER", "none");
    command
}
