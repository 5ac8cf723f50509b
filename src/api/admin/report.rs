//! `GET /api/v1/report`: what storage comes to and what it saved.

use std::time::Duration;

use crate::api::Answer;
use crate::api::Api;
use crate::api::failure::Failure;
use crate::config::duration;

use super::document;
use super::inventory;

/// How far it looks back where nothing is said.
const SINCE: Duration = Duration::from_hours(30 * 24);

/// What it comes to; of the repository that is named its branches and tags too.
pub(super) async fn answer(api: &Api, since: Option<&str>, repository: Option<&str>) -> Answer {
    let window = since.map(duration::parse).transpose();
    let window = window.map_err(|_| Failure::bad_request("since is a duration, like 30d or 12h"))?.unwrap_or(SINCE);
    let named = repository.map(|name| inventory::image(api, name)).transpose()?.map(|image| image.repository);
    document(&api.ledger.usage(window, named.as_ref()).await.map_err(|error| Failure::from(&error))?)
}
