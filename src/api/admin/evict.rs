//! `POST /api/v1/evict`: drop what is held.

use serde::Serialize;

use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Sent;
use crate::api::failure::Failure;
use crate::repository::Image;

use super::document;
use super::request;

#[derive(Debug, Serialize)]
struct Evicted {
    #[serde(rename = "ref")]
    reference: String,
    outcome: &'static str,
    freed_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What became of each reference. A name without tag or digest means all of the repository.
pub(super) async fn answer<B: Sent>(api: &Api, asked: &Asked<'_>, body: &mut B) -> Answer {
    let mut results = Vec::new();
    for reference in request::references(api, asked, body).await?.refs {
        let outcome = match one(api, &reference).await {
            Ok(Some(freed_bytes)) => Evicted { reference, outcome: "evicted", freed_bytes, error: None },
            Ok(None) => Evicted { reference, outcome: "absent", freed_bytes: 0, error: None },
            Err(failure) => {
                let error = Some(failure.sentence());
                Evicted { reference, outcome: "failed", freed_bytes: 0, error }
            }
        };
        results.push(outcome);
    }
    document(&serde_json::json!({ "results": results }))
}

async fn one(api: &Api, text: &str) -> Result<Option<u64>, Failure> {
    let image = Image::parse(text, &api.repositories)
        .map_err(|_| Failure::bad_request("not an image of a configured registry"))?;
    if image.repository.is_hosted() {
        return Err(Failure::bad_request("what lives here alone is not evicted: it could not be fetched again"));
    }
    Ok(api.cache.evict(&image.repository, image.reference.as_ref()).await?)
}
