//! Uploads of blobs (distribution-spec, "Pushing blobs", end-4 to end-6, end-11, end-13, end-14).

use crate::access::Action;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::failure::Failure;
use crate::api::route::Place;

use super::push;

/// Hosted repositories take none yet.
pub(in crate::api) async fn answer(api: &Api, asked: &mut Asked<'_>, place: &Place) -> Answer {
    push::granted(api, asked, place, Action::Push, Target::Repository).await?;
    Err(Failure::method(""))
}
