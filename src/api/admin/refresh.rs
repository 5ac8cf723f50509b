//! `POST /api/v1/refresh`: look at the upstream now.

use serde::Serialize;

use crate::access::Action;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Door;
use crate::api::Sent;
use crate::api::failure::Failure;
use crate::cache::Refreshed;
use crate::oci::Reference;
use crate::repository::Image;

use super::document;
use super::request;

#[derive(Debug, Serialize)]
struct Looked {
    #[serde(rename = "ref")]
    reference: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What became of each reference. From the registry's listener it needs the right to pull.
pub(super) async fn answer<B: Sent>(api: &Api, door: Door, asked: &mut Asked<'_>, body: &mut B) -> Answer {
    let mut results = Vec::new();
    for reference in request::references(api, asked, body).await?.refs {
        let outcome = match one(api, door, asked, &reference).await {
            Ok(Some((outcome, digest))) => Looked { reference, outcome, digest: Some(digest), error: None },
            Ok(None) => Looked { reference, outcome: "immutable", digest: None, error: None },
            Err(failure) => {
                let error = Some(if door == Door::Admin { failure.sentence() } else { failure.message() });
                Looked { reference, outcome: "failed", digest: None, error }
            }
        };
        results.push(outcome);
    }
    document(&serde_json::json!({ "results": results }))
}

/// Looks at one tag; a digest never changes, so there is nothing to look at.
async fn one(api: &Api, door: Door, asked: &Asked<'_>, text: &str) -> Result<Option<(&'static str, String)>, Failure> {
    let image = Image::parse(text, &api.repositories)
        .map_err(|_| Failure::bad_request("not an image of a configured registry"))?;
    let reference = image.reference_or_latest();
    if door == Door::Registry {
        let target = Target::Manifest(reference.clone());
        api.access.authorize(&asked.caller(None), Action::Pull, &image.repository, &target).await?;
    }
    let Reference::Tag(tag) = reference else { return Ok(None) };
    let refreshed = api.cache.refresh(&image.repository, &tag).await?;
    let outcome = match &refreshed {
        Refreshed::Confirmed(_) => "unchanged",
        Refreshed::Moved(_) => "updated",
    };
    Ok(Some((outcome, refreshed.digest().to_string())))
}
