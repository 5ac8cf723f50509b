//! The distribution specification's endpoints.

pub(super) mod blobs;
mod chunk;
pub(super) mod manifests;
mod push;
pub(super) mod referrers;
pub(super) mod tags;
pub(super) mod uploads;
pub(super) mod version;
mod views;

use crate::access::Action;
use crate::access::Grant;
use crate::access::Target;

use super::Api;
use super::Asked;
use super::route::Place;

/// The right to push where the caller pulls, if he has it: what he is told to be here he does not push again.
async fn pusher(api: &Api, asked: &Asked<'_>, place: &Place, grant: &Grant) -> Option<Grant> {
    let caller = asked.caller(Some(place));
    api.access.consider(&caller, Action::Push, grant.repository(), &Target::Repository).await.ok()
}
