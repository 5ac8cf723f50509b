//! `POST /api/v1/prune/plan` and `/prune/apply`: what policies let go now, and its carrying out.

use serde::Deserialize;

use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Sent;
use crate::api::failure::Failure;
use crate::api::receive;
use crate::retention::Document;
use crate::retention::PlanFile;
use crate::retention::Scope;

use super::document;

/// What a plan is to cover; an empty body means everything.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    policy: Option<String>,
    remote: Option<String>,
    /// Whether what stays is to be named too, each with its reason.
    kept: bool,
}

/// A plan as it was answered, and how many deletions somebody allows by hand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    plan: Document,
    mac: String,
    #[serde(default)]
    at_most: Option<u64>,
}

/// The plan with its code, and what stays where that was asked for.
pub(super) async fn plan<B: Sent>(api: &Api, asked: &Asked<'_>, body: &mut B) -> Answer {
    let bytes = receive::whole(api, asked, body).await?;
    let wanted: Wanted = if bytes.is_empty() {
        Wanted::default()
    } else {
        serde_json::from_slice(&bytes)
            .map_err(|_| Failure::bad_request("the body may say policy, remote and kept, and nothing else"))?
    };
    let scope = Scope::new(wanted.policy, wanted.remote);
    let made = api.prune.plan(&scope, wanted.kept).await.map_err(|error| Failure::from(&error))?;
    let mut answer = serde_json::to_value(&made.file).map_err(|_| Failure::internal())?;
    if let (true, Some(fields)) = (wanted.kept, answer.as_object_mut()) {
        fields.insert("kept".to_owned(), serde_json::to_value(&made.kept).map_err(|_| Failure::internal())?);
    }
    document(&answer)
}

/// What became of each thing that the plan names.
pub(super) async fn apply<B: Sent>(api: &Api, asked: &Asked<'_>, body: &mut B) -> Answer {
    let bytes = receive::bounded(api, asked, body, api.limits.plan_bytes).await?;
    let order: Order = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::bad_request("this is no plan as prune/plan answers it, or it was edited: nothing was deleted")
            .because(&error)
    })?;
    let file = PlanFile { plan: order.plan, mac: order.mac };
    let applied = api.prune.apply(file, order.at_most).await.map_err(|error| Failure::from(&error))?;
    document(&applied)
}
