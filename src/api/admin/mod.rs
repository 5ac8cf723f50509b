//! The API for whoever runs the server (docs/api.md), one file a noun. Of it, the registry's listener has `refresh`,
//! `runs` and `missing`.

mod evict;
mod inventory;
mod missing;
mod progress;
mod prune;
mod refresh;
mod report;
mod request;
mod runs;
mod status;

use http::Response;
use http::header;
use serde::Serialize;

use crate::access::Refusal;

use super::Answer;
use super::Api;
use super::Asked;
use super::Body;
use super::Door;
use super::Sent;
use super::failure::Failure;
use super::route;
use super::route::Problem;
use super::with_body;

/// Answers a request to the API.
pub(super) async fn answer<B: Sent>(
    api: &Api,
    door: Door,
    asked: &mut Asked<'_>,
    route: &route::Api,
    body: &mut B,
) -> Answer {
    let of_jobs = matches!(
        route,
        route::Api::Refresh
            | route::Api::Missing
            | route::Api::Runs
            | route::Api::Run { .. }
            | route::Api::EndRun { .. }
    );
    if door == Door::Registry && !of_jobs {
        return Err(Problem::Nowhere.into());
    }
    // A page in a browser can make it send requests to addresses of this machine; it can't leave out `Origin`.
    let writes = matches!(
        route,
        route::Api::Refresh
            | route::Api::Evict
            | route::Api::Missing
            | route::Api::Scrub
            | route::Api::Gc
            | route::Api::PrunePlan
            | route::Api::PruneReplay
            | route::Api::PruneApply
            | route::Api::EndRun { .. }
    );
    if writes && asked.head.headers.contains_key(header::ORIGIN) {
        api.metrics.denied("origin");
        return Err(Refusal::Denied.into());
    }
    match route {
        route::Api::Status => Ok(status::answer(api)),
        route::Api::Repositories => inventory::repositories(api).await,
        route::Api::Tags { repository } => inventory::tags(api, repository).await,
        route::Api::Explain { reference } => inventory::explain(api, reference).await,
        route::Api::Report { since, repository } => report::answer(api, since.as_deref(), repository.as_deref()).await,
        route::Api::Refresh => refresh::answer(api, door, asked, body).await,
        route::Api::Evict => evict::answer(api, asked, body).await,
        route::Api::Missing => missing::answer(api, door, asked, body).await,
        route::Api::Scrub => Ok(progress::lines(api.scrub.start(), |progress| progress.done.is_some())),
        route::Api::Gc => Ok(progress::lines(api.gc.start(), |progress| progress.done)),
        route::Api::PrunePlan => prune::plan(api, asked, body).await,
        route::Api::PruneReplay => prune::replay(api, asked, body).await,
        route::Api::PruneApply => prune::apply(api, asked, body).await,
        route::Api::Runs => runs::list(api, door, asked).await,
        route::Api::Run { id } => runs::show(api, door, asked, id).await,
        route::Api::EndRun { id } => runs::end(api, door, asked, id).await,
    }
}

/// An answer of one JSON document.
fn document(value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => Ok(json(text)),
        Err(_) => Err(Failure::internal()),
    }
}

fn json(mut text: String) -> Response<Body> {
    text.push('\n');
    with_body("application/json", text)
}
