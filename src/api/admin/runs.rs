//! `GET /api/v1/runs`, `GET` and `DELETE /api/v1/runs/<id>`: the runs that live, and what they saw.
//!
//! On the registry's listener a caller sees of a run what it may pull, and a run of which it may pull nothing is none.

use std::collections::HashMap;

use http::StatusCode;
use serde::Serialize;

use crate::access::Action;
use crate::access::Refusal;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Door;
use crate::api::failure::Failure;
use crate::oci::ErrorCode;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::views::Pin;
use crate::views::Shown;

use super::document;

#[derive(Debug, Serialize)]
struct Listed {
    id: String,
    began_at: String,
    used_at: String,
    expires_at: String,
    tags: usize,
}

#[derive(Debug, Serialize)]
struct Seen {
    repository: String,
    tag: String,
    digest: String,
    at: String,
}

/// The runs that live, those that were used last first, as many as a page has.
pub(super) async fn list(api: &Api, door: Door, asked: &Asked<'_>) -> Answer {
    let page = usize::try_from(api.limits.page).unwrap_or(usize::MAX);
    let mut eyes = Eyes::new(api, door, asked);
    let (mut listed, mut more) = (Vec::new(), false);
    for run in api.views.runs.list().await? {
        let Some(run) = eyes.see(run).await? else { continue };
        more = listed.len() >= page;
        if more {
            break;
        }
        listed.push(Listed {
            id: run.id.to_string(),
            began_at: run.began.to_string(),
            used_at: run.used.to_string(),
            expires_at: run.expires.to_string(),
            tags: run.pins.len(),
        });
    }
    if listed.is_empty() && door == Door::Registry {
        // As for a run that is not there: who could say who it is learns nothing before it does.
        if let refusal @ Refusal::Unauthenticated = api.access.unknown(&asked.caller(None)).await {
            return Err(refusal.into());
        }
    }
    document(&serde_json::json!({ "runs": listed, "more": more }))
}

/// What one run saw.
pub(super) async fn show(api: &Api, door: Door, asked: &Asked<'_>, id: &str) -> Answer {
    let run = match api.views.runs.show(id).await? {
        Some(found) => Eyes::new(api, door, asked).see(found).await?,
        None => None,
    };
    let Some(run) = run else { return Err(unknown(api, door, asked).await) };
    let tags: Vec<Seen> = run.pins.iter().map(seen).collect();
    document(&serde_json::json!({
        "id": *run.id,
        "began_at": run.began.to_string(),
        "used_at": run.used.to_string(),
        "expires_at": run.expires.to_string(),
        "tags": tags,
    }))
}

fn seen(pin: &Pin) -> Seen {
    Seen {
        repository: pin.repository.to_string(),
        tag: pin.tag.to_string(),
        digest: pin.digest.to_string(),
        at: pin.at.to_string(),
    }
}

/// Ends a run. From the registry's listener it needs the right to pull all that the run saw.
pub(super) async fn end(api: &Api, door: Door, asked: &Asked<'_>, id: &str) -> Answer {
    if door == Door::Registry {
        let Some(found) = api.views.runs.show(id).await? else { return Err(unknown(api, door, asked).await) };
        let all = found.pins.len();
        let mut eyes = Eyes::new(api, door, asked);
        let Some(run) = eyes.see(found).await? else { return Err(unknown(api, door, asked).await) };
        if run.pins.len() < all {
            return Err(if eyes.unnamed { Refusal::Unauthenticated } else { Refusal::Denied }.into());
        }
    }
    if !api.views.runs.end(id).await? {
        return Err(unknown(api, door, asked).await);
    }
    document(&serde_json::json!({ "id": id, "outcome": "ended" }))
}

/// There is no such run, or none that the caller may know of: one answer.
async fn unknown(api: &Api, door: Door, asked: &Asked<'_>) -> Failure {
    if door == Door::Registry {
        let refusal = api.access.unknown(&asked.caller(None)).await;
        if !matches!(refusal, Refusal::Hidden) {
            return refusal.into();
        }
    }
    Failure::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, "there is no such run")
}

/// Who looks, and what it was found to see.
struct Eyes<'a> {
    api: &'a Api,
    door: Door,
    asked: &'a Asked<'a>,
    sees: HashMap<(RepositoryKey, Tag), bool>,
    /// Something was not seen that a credential might show.
    unnamed: bool,
}

impl<'a> Eyes<'a> {
    fn new(api: &'a Api, door: Door, asked: &'a Asked<'_>) -> Self {
        Self { api, door, asked, sees: HashMap::new(), unnamed: false }
    }

    /// The run with what may be seen of it; none where that is nothing.
    async fn see(&mut self, mut run: Shown) -> Result<Option<Shown>, Failure> {
        if self.door == Door::Admin {
            return Ok(Some(run));
        }
        let mut pins = Vec::with_capacity(run.pins.len());
        for pin in run.pins {
            if self.may_see(&pin).await? {
                pins.push(pin);
            }
        }
        run.pins = pins;
        Ok(Some(run).filter(|run| !run.pins.is_empty()))
    }

    async fn may_see(&mut self, pin: &Pin) -> Result<bool, Failure> {
        let key = (pin.repository.clone(), pin.tag.clone());
        if let Some(known) = self.sees.get(&key) {
            return Ok(*known);
        }
        let target = Target::Manifest(Reference::Tag(pin.tag.clone()));
        let considered =
            self.api.access.consider(&self.asked.caller(None), Action::Pull, &pin.repository, &target).await;
        let may = match considered {
            Ok(_) => true,
            Err(refusal @ Refusal::Busy) => return Err(refusal.into()),
            // What can't be decided now is not shown.
            Err(refusal) => {
                self.unnamed |= matches!(refusal, Refusal::Unauthenticated);
                false
            }
        };
        self.sees.insert(key, may);
        Ok(may)
    }
}
