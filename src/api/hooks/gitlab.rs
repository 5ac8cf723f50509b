//! What GitLab sends. The document says of which kind it is; the header's words differ between hooks of projects, of
//! groups and of the whole system.

use serde_json::Value;

use crate::forge::Event;
use crate::forge::Pull;
use crate::forge::What;

use super::Malformed;
use super::Said;
use super::branch;
use super::is_zero;
use super::text;

/// What a delivery says.
pub(super) fn read(document: &Value) -> Result<Said, Malformed> {
    let kind = document.pointer("/object_kind").or(document.pointer("/event_name"));
    let what = match kind.and_then(Value::as_str) {
        Some("push") => push(document)?,
        Some("merge_request") => Some(merge_request(document)?),
        _ => None,
    };
    let Some(what) = what else { return Ok(Said::Nothing) };
    Ok(Said::Event(Event { repository: text(document, "/project/path_with_namespace")?.to_owned(), what }))
}

fn push(document: &Value) -> Result<Option<What>, Malformed> {
    let Some(branch) = branch(text(document, "/ref")?).map(str::to_owned) else { return Ok(None) };
    let sha = text(document, "/after")?;
    Ok(Some(if is_zero(sha) { What::Deleted { branch } } else { What::Pushed { branch, sha: Some(sha.to_owned()) } }))
}

fn merge_request(document: &Value) -> Result<What, Malformed> {
    let number = document.pointer("/object_attributes/iid").and_then(Value::as_u64);
    let sha = document.pointer("/object_attributes/last_commit/id").and_then(Value::as_str);
    let pull = Pull {
        number: number.ok_or(Malformed("/object_attributes/iid"))?,
        branch: text(document, "/object_attributes/source_branch")?.to_owned(),
        sha: sha.unwrap_or_default().to_owned(),
    };
    let is_closed = matches!(text(document, "/object_attributes/state")?, "closed" | "merged");
    Ok(if is_closed { What::PullClosed(pull) } else { What::PullOpened(pull) })
}
