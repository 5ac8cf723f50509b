//! `larder gc`: the server collects what nothing names any more, now; what it freed is the result.

use serde_json::Value;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::console::size;
use super::ls::text;

pub(super) async fn run(global: &Global, console: &Console) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    let mut last = Value::Null;
    server
        .lines("/api/v1/gc", |line| {
            if console.json {
                console.result(&line.to_string());
            } else if !is_done(line) {
                console.progress(&format!("{} looked at, {} freed", text(line, "looked_at"), freed(line)), false);
            }
            last = line.clone();
        })
        .await?;
    if !console.json {
        console.progress("", true);
        if let Some(remark) = last.get("remark").and_then(Value::as_str) {
            console.warning(remark);
        }
    }
    if let Some(why) = last.get("failed").and_then(Value::as_str) {
        return Err(Error::Refused(format!("the collection broke off: {why}; what it freed until then is free")));
    }
    if !is_done(&last) {
        return Err(Error::Refused("larder was stopped before the collection ended; the next one goes on".to_owned()));
    }
    if !console.json {
        console.result(&result(&last));
    }
    Ok(Outcome::Done)
}

fn is_done(line: &Value) -> bool {
    line.get("done").and_then(Value::as_bool) == Some(true)
}

fn freed(line: &Value) -> String {
    size(count(line, "freed"))
}

fn count(line: &Value, key: &str) -> u64 {
    line.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn result(line: &Value) -> String {
    let (manifests, blobs) = (text(line, "manifests"), text(line, "blobs"));
    let gone = ["manifests", "blobs", "freed"].iter().any(|key| count(line, key) > 0);
    let freed = format!("{} freed: {manifests} manifests and {blobs} blobs that nothing names any more", freed(line));
    let mut said = vec![if gone { freed } else { "nothing to free: what is here is kept".to_owned() }];
    if count(line, "cache_tags") > 0 {
        said.push(format!("{} tags of build caches went", text(line, "cache_tags")));
    }
    if count(line, "waiting") > 0 {
        said.push(format!("{} more wait for their time, a run or a client", text(line, "waiting")));
    }
    said.join("; ")
}
