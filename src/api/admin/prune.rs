//! `POST /api/v1/prune/plan`, `/prune/apply` and `/prune/replay`: what policies let go now, its carrying out, and what they
//! would have let go.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Sent;
use crate::api::failure::Failure;
use crate::api::receive;
use crate::config::duration;
use crate::retention::Document;
use crate::retention::Kept;
use crate::retention::PlanFile;
use crate::retention::Scope;

use super::document;

/// How far one may look back: each day is a plan.
const REPLAY_MAX: Duration = Duration::from_hours(365 * 24);

/// What a plan is to cover; an empty body means everything.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    policy: Option<String>,
    remote: Option<String>,
    /// Whether what stays is to be named too, each with its reason.
    kept: bool,
}

/// The answer: written as it stands, because a plan may be large.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    plan: &'a Document,
    mac: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'a [Kept]>,
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
    let kept = wanted.kept.then_some(made.kept.as_slice());
    let answer = Planned { plan: &made.file.plan, mac: &made.file.mac, kept };
    document(&answer)
}

/// How far back, and what of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    since: String,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    remote: Option<String>,
}

/// What policies would have done in the past.
pub(super) async fn replay<B: Sent>(api: &Api, asked: &Asked<'_>, body: &mut B) -> Answer {
    let bytes = receive::whole(api, asked, body).await?;
    let back: Back = serde_json::from_slice(&bytes)
        .map_err(|_| Failure::bad_request("the body says since, and may say policy and remote, and nothing else"))?;
    let window = duration::parse(&back.since).ok().filter(|window| *window <= REPLAY_MAX);
    let window = window.ok_or_else(|| Failure::bad_request("since is a duration of at most 365d, like 30d or 12h"))?;
    let scope = Scope::new(back.policy, back.remote);
    document(&api.prune.replay(&scope, window).await.map_err(|error| Failure::from(&error))?)
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
