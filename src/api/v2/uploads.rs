//! Pushes. A proxied repository refuses them; hosted ones take none yet.

use crate::access::Action;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::failure::Failure;
use crate::api::route::Place;

/// Who may push learns that it can't be done here; who may not learns no more than that.
pub(in crate::api) async fn answer(api: &Api, asked: &mut Asked<'_>, place: &Place) -> Answer {
    refuse(api, asked, place, Action::Push, &Target::Repository, "").await
}

/// Refuses a write with what is allowed instead.
pub(super) async fn refuse(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    action: Action,
    target: &Target,
    allowed: &'static str,
) -> Answer {
    let key = api.find(asked, place).await?;
    let grant = api.access.authorize(&asked.caller(Some(place)), action, &key, target).await?;
    asked.account.principal = Some(grant.principal().clone());
    Err(Failure::method(allowed))
}
