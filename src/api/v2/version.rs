//! `GET /v2/` (distribution-spec, end-1): answered from here, without a look at any upstream.

use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::route::Place;
use crate::api::with_body;

/// 200 or 401; podman decides from this alone whether to authenticate.
pub(in crate::api) async fn answer(api: &Api, asked: &mut Asked<'_>, place: &Place) -> Answer {
    let principal = api.access.authenticate(&asked.caller(Some(place))).await?;
    asked.account.principal = Some(principal);
    Ok(with_body("application/json", "{}".to_owned()))
}
