//! `larder status [--watch]`: how the server is.

use std::time::Duration;

use serde_json::Value;

use crate::config::duration;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::console::columns;
use super::console::size;
use super::ls::list;
use super::ls::text;

/// How often `--watch` asks.
const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ask again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    loop {
        let answer = server.get("/api/v1/status").await?;
        let clear = if arguments.watch && Console::is_interactive() { "\u{1b}[2J\u{1b}[H" } else { "" };
        match (console.json, arguments.watch) {
            (true, true) => console.result(&answer.to_string()),
            (true, false) => console.document(&answer),
            (false, _) => console.result(&format!("{clear}{}", describe(&answer))),
        }
        if !arguments.watch {
            return Ok(Outcome::Done);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The status as people read it; what an answer lacks is left out.
fn describe(status: &Value) -> String {
    let mut lines = Vec::new();
    let uptime = status.get("uptime_seconds").and_then(Value::as_u64).map(Duration::from_secs).map(duration::show);
    let ready = match status.get("ready").and_then(Value::as_bool) {
        Some(false) => "not ready",
        _ => "ready",
    };
    lines.push(format!("larder {}, {ready}, up for {}", text(status, "version"), uptime.unwrap_or_default()));
    let listen: Vec<&str> = list(status, "listen").filter_map(Value::as_str).collect();
    if !listen.is_empty() {
        lines.push(format!("listens on {}", listen.join(", ")));
    }
    if let Some(store) = status.get("store") {
        lines.push(about_store(store));
    }
    for key in ["requests", "fills"] {
        if let Some(figures) = status.get(key).filter(|figures| !figures.is_null()) {
            lines.push(format!("{key}: {}", figures_of(figures)));
        }
    }
    let rows: Vec<[String; 5]> = list(status, "upstreams").map(upstream).collect();
    if !rows.is_empty() {
        lines.push(String::new());
        lines.push(columns(["UPSTREAM", "REGISTRY", "TOKEN", "CDN", "BUDGET"], &rows));
    }
    for one in list(status, "upstreams") {
        let (host, cause) = (text(one, "host"), text(one, "cause"));
        if !cause.is_empty() {
            lines.push(format!("{host} does not answer: {cause}"));
        }
        if one.get("credential_refused").and_then(Value::as_bool) == Some(true) {
            lines.push(format!("{host} refuses the configured credential"));
        }
    }
    lines.join("\n")
}

fn about_store(store: &Value) -> String {
    let number = |key: &str| store.get(key).and_then(Value::as_u64);
    let figure = |key: &str| number(key).map_or_else(|| "?".to_owned(), size);
    let mut line = format!("store {}: {} of {}", text(store, "path"), figure("bytes"), figure("max_bytes"));
    if let Some(hosted) = number("hosted_bytes").filter(|bytes| *bytes > 0) {
        line = format!("{line}, {} hosted", size(hosted));
    }
    let state = text(store, "state");
    if !state.is_empty() {
        line = format!("{line}, {state}");
    }
    if store.get("complete").and_then(Value::as_bool) == Some(false) {
        line.push_str(", its index is being rebuilt");
    }
    line
}

fn upstream(one: &Value) -> [String; 5] {
    let part = |name: &str| match one.get("up").and_then(|up| up.get(name)) {
        Some(Value::Bool(true)) => "up".to_owned(),
        Some(Value::Bool(false)) => "down".to_owned(),
        Some(Value::String(word)) => word.clone(),
        _ => "-".to_owned(),
    };
    [text(one, "host"), part("registry"), part("token"), part("cdn"), text(one, "budget_remaining")]
}

/// Figures in one line: `hit 12, miss 3, sent 1.0 GiB`.
fn figures_of(figures: &Value) -> String {
    let Value::Object(map) = figures else { return figures.to_string() };
    let told = |(name, figure): (&String, &Value)| match (name.strip_suffix("_bytes"), figure.as_u64()) {
        (Some(name), Some(bytes)) => format!("{} {}", name.replace('_', " "), size(bytes)),
        _ => format!("{} {figure}", name.replace('_', " ")),
    };
    map.iter().map(told).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::describe;
    use serde_json::json;

    #[test]
    fn a_status_is_told_in_lines() {
        let status = json!({
            "version": "0.1.0", "uptime_seconds": 90, "ready": true, "listen": ["127.0.0.1:5000"],
            "store": { "path": "/data", "bytes": 1024, "max_bytes": 1 << 30, "state": "open" },
            "requests": { "hit": 3, "miss": 1, "sent_bytes": 2048, "saved_pulls": 2 }, "fills": 0,
            "upstreams": [{
                "host": "docker.io", "up": { "registry": true, "token": null, "cdn": false }, "budget_remaining": 90,
                "cause": "no connection", "credential_refused": false,
            }],
        });
        assert_eq!(
            describe(&status),
            "larder 0.1.0, ready, up for 1m30s\nlistens on 127.0.0.1:5000\nstore /data: 1.0 KiB of 1.0 GiB, open\n\
             requests: hit 3, miss 1, saved pulls 2, sent 2.0 KiB\nfills: 0\n\nUPSTREAM   REGISTRY  TOKEN  CDN   BUDGET\n\
             docker.io  up        -      down  90\n\ndocker.io does not answer: no connection"
        );
    }

    #[test]
    fn an_answer_that_lacks_everything_is_told_all_the_same() {
        assert_eq!(describe(&json!({})), "larder , ready, up for ");
    }
}
