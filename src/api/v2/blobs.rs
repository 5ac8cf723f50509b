//! `…/blobs/<digest>` (distribution-spec, end-2, end-10).

use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;

use crate::access::Action;
use crate::access::Grant;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::body::Body;
use crate::api::failure::Failure;
use crate::api::headers;
use crate::api::route::Place;
use crate::api::route::Verb;
use crate::api::without_body;
use crate::cache;
use crate::cache::CacheStatus;
use crate::oci::Digest;
use crate::oci::Reference;

use super::push;
use super::pusher;
use super::uploads;

/// GET with ranges, HEAD, and 304.
pub(in crate::api) async fn answer(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    digest: &Digest,
    verb: Verb,
) -> Answer {
    asked.account.reference = Some(Reference::Digest(*digest));
    let target = Target::Blob(*digest);
    match verb {
        Verb::Delete => return Box::pin(push::delete_blob(api, asked, place, digest)).await,
        Verb::Get | Verb::Head | Verb::Post | Verb::Put | Verb::Patch => {}
    }
    let key = api.find(asked, place).await?;
    let grant = api.access.authorize(&asked.caller(Some(place)), Action::Pull, &key, &target).await?;
    asked.account.principal = Some(grant.principal().clone());
    if verb == Verb::Head && grant.repository().is_hosted() {
        Box::pin(before_a_push(api, asked, place, &grant, digest)).await?;
    }
    let known = headers::is_known(&asked.head.headers, digest);
    if verb == Verb::Head || known {
        head(api, asked, &grant, digest, known).await
    } else {
        get(api, asked, &grant, digest).await
    }
}

/// HEAD by one who may push: what is answered with 200 need not be pushed, so it stays for the lease time; and what came from
/// an upstream that shows it to anybody is linked, so that a build cache's base layers are not pushed at all.
///
/// What is damaged is not here: the push repairs it.
async fn before_a_push(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    grant: &Grant,
    digest: &Digest,
) -> Result<(), Failure> {
    let caller = asked.caller(Some(place));
    let Some(push) = pusher(api, asked, place, grant).await else { return Ok(()) };
    if api.push.protect(&push, digest).await? {
        return Ok(());
    }
    let sources = api.push.public_holders(digest).await?;
    if uploads::link_from(api, &caller, &push, digest, &sources).await? {
        return Ok(());
    }
    Err(cache::Error::BlobUnknown.into())
}

/// HEAD, and a GET of what the client has already: both ask whether it is here and begin no transfer.
async fn head(api: &Api, asked: &mut Asked<'_>, grant: &Grant, digest: &Digest, known: bool) -> Answer {
    let found = api.cache.blob_size(grant, digest).await?;
    asked.account.cache = found.status.label();
    let mut response = without_body(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    set_common(response.headers_mut(), digest, &found.status);
    if !known {
        headers::set_number(response.headers_mut(), header::CONTENT_LENGTH, found.content);
    }
    Ok(response)
}

async fn get(api: &Api, asked: &mut Asked<'_>, grant: &Grant, digest: &Digest) -> Answer {
    let range = headers::range(&asked.head.headers, digest);
    let found = api.cache.blob(grant, digest, range).await?;
    asked.account.cache = found.status.label();
    let blob = found.content;
    let mut response = without_body(StatusCode::OK);
    let head = response.headers_mut();
    set_common(head, digest, &found.status);
    if let (Some(extent), Some(size)) = (blob.extent, blob.size) {
        headers::set_extent(head, &extent, size);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    *response.body_mut() = Body::from(blob.content);
    Ok(response)
}

/// What every answer about a blob has.
fn set_common(head: &mut HeaderMap, digest: &Digest, status: &CacheStatus) {
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    head.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers::set_digest(head, digest);
    headers::set_status(head, status);
}
