//! `…/referrers/<digest>` (distribution-spec, "Listing Referrers", end-12).

use http::HeaderValue;

use crate::access::Action;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::headers;
use crate::api::route::Place;
use crate::api::with_body;
use crate::cache::Wanted;
use crate::oci::Reference;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An index of what refers to the digest. Where the upstream has no such list it is 404: the client then looks for the
/// tag that stands in for it, which an invented empty list would keep it from.
pub(in crate::api) async fn answer(api: &Api, asked: &mut Asked<'_>, place: &Place, mut wanted: Wanted) -> Answer {
    wanted.artifact_type = wanted.artifact_type.filter(|kind| !kind.is_empty());
    let reference = Reference::Digest(wanted.subject);
    asked.account.reference = Some(reference.clone());
    let key = api.find(asked, place).await?;
    let target = Target::Manifest(reference);
    let grant = api.access.authorize(&asked.caller(Some(place)), Action::Pull, &key, &target).await?;
    asked.account.principal = Some(grant.principal().clone());
    let found = api.cache.referrers(&grant, &wanted).await?;
    asked.account.cache = found.status.label();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": found.content.manifests });
    let mut response = with_body(INDEX, index.to_string());
    headers::set_status(response.headers_mut(), &found.status);
    if let Some(last) = &found.content.next {
        let kind = wanted.artifact_type.as_deref().map(|kind| ("artifactType", kind));
        let (path, ns) = (asked.head.uri.path(), place.spelling.ns.as_deref());
        headers::set_next(response.headers_mut(), path, kind, &last.to_string(), ns);
    }
    if wanted.artifact_type.is_some() {
        response.headers_mut().insert(headers::OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}
