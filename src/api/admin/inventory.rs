//! `GET /api/v1/repositories`, `tags` and `explain`: what is held, and what a pull of it would meet.

use crate::api::Answer;
use crate::api::Api;
use crate::api::failure::Failure;
use crate::repository::Image;
use crate::repository::ImageError;

use super::document;

/// The repositories that hold something.
pub(super) async fn repositories(api: &Api) -> Answer {
    let repositories = api.report.repositories().await.map_err(|error| Failure::from(&error))?;
    document(&serde_json::json!({ "repositories": repositories }))
}

/// The tags of one.
pub(super) async fn tags(api: &Api, repository: &str) -> Answer {
    let image = image(api, repository)?;
    let tags = api.report.tags(&image.repository).await.map_err(|error| Failure::from(&error))?;
    document(&serde_json::json!({ "repository": image.repository.to_string(), "tags": tags }))
}

/// What a pull would meet.
pub(super) async fn explain(api: &Api, reference: &str) -> Answer {
    let image = image(api, reference)?;
    document(&api.report.explain(&image).await.map_err(|error| Failure::from(&error))?)
}

pub(super) fn image(api: &Api, text: &str) -> Result<Image, Failure> {
    Image::parse(text, &api.repositories).map_err(|error| match error {
        ImageError::Name(problem) => problem.into(),
        ImageError::Reference(_) => Failure::bad_request("the reference is neither a tag nor a digest"),
    })
}
