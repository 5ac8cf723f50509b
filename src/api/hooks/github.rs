//! What GitHub sends, and Gitea and Forgejo after it.

use serde_json::Value;

use crate::forge::Event;
use crate::forge::Pull;
use crate::forge::What;

use super::Malformed;
use super::Said;
use super::branch;
use super::is_zero;
use super::text;

/// What a delivery of that event says.
pub(super) fn read(event: &str, document: &Value) -> Result<Said, Malformed> {
    let what = match event {
        "ping" => return Ok(Said::Ping),
        "push" => push(document)?,
        "delete" => named(document)?.map(|branch| What::Deleted { branch }),
        "create" => named(document)?.map(|branch| What::Pushed { branch, sha: None }),
        "pull_request" => Some(pull(document)?),
        _ => None,
    };
    let Some(what) = what else { return Ok(Said::Nothing) };
    Ok(Said::Event(Event { repository: text(document, "/repository/full_name")?.to_owned(), what }))
}

/// A push to a branch, or its end: a push of nothing.
fn push(document: &Value) -> Result<Option<What>, Malformed> {
    let Some(branch) = branch(text(document, "/ref")?).map(str::to_owned) else { return Ok(None) };
    let sha = text(document, "/after")?;
    let is_gone = is_zero(sha) || document.pointer("/deleted").and_then(Value::as_bool) == Some(true);
    Ok(Some(if is_gone { What::Deleted { branch } } else { What::Pushed { branch, sha: Some(sha.to_owned()) } }))
}

/// The branch that came or went; none where it is a tag.
fn named(document: &Value) -> Result<Option<String>, Malformed> {
    let name = text(document, "/ref")?;
    Ok((text(document, "/ref_type")? == "branch").then(|| branch(name).unwrap_or(name).to_owned()))
}

fn pull(document: &Value) -> Result<What, Malformed> {
    let number = document.pointer("/pull_request/number").or(document.pointer("/number"));
    let pull = Pull {
        number: number.and_then(Value::as_u64).ok_or(Malformed("/number"))?,
        branch: text(document, "/pull_request/head/ref")?.to_owned(),
        sha: text(document, "/pull_request/head/sha")?.to_owned(),
    };
    let is_closed = text(document, "/pull_request/state")? == "closed";
    Ok(if is_closed { What::PullClosed(pull) } else { What::PullOpened(pull) })
}
