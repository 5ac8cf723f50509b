//! `…/manifests/<reference>` (distribution-spec, end-3, end-7, end-9).

use http::Method;
use http::StatusCode;
use http::header;

use crate::access::Action;
use crate::access::Grant;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Sent;
use crate::api::body::Body;
use crate::api::failure::Failure;
use crate::api::headers;
use crate::api::route::Place;
use crate::api::route::Verb;
use crate::api::without_body;
use crate::cache;
use crate::cache::Purpose;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::Tag;

use super::push;
use super::pusher;
use super::views;

/// Every method of a manifest. Writes are boxed: each request is as large in memory as the largest of these.
pub(in crate::api) async fn answer<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    what: (&Reference, &[Tag]),
    verb: Verb,
    body: &mut B,
) -> Answer {
    let (reference, tags) = what;
    asked.account.reference = Some(reference.clone());
    match verb {
        Verb::Get => read(api, asked, place, reference, Purpose::Pull).await,
        Verb::Head if headers::accepts_several(&asked.head.headers) => {
            read(api, asked, place, reference, Purpose::Resolve).await
        }
        Verb::Head => read(api, asked, place, reference, Purpose::Look).await,
        Verb::Put | Verb::Post | Verb::Patch => {
            Box::pin(push::manifest(api, asked, place, reference, tags, body)).await
        }
        Verb::Delete => Box::pin(push::delete_manifest(api, asked, place, reference)).await,
    }
}

/// GET, HEAD and 304; no bytes are chosen by `Accept`: they are what the digest names.
async fn read(api: &Api, asked: &mut Asked<'_>, place: &Place, reference: &Reference, purpose: Purpose) -> Answer {
    let target = Target::Manifest(reference.clone());
    let key = api.find(asked, place).await?;
    let grant = api.access.authorize(&asked.caller(Some(place)), Action::Pull, &key, &target).await?;
    asked.account.principal = Some(grant.principal().clone());
    let (found, served_tag) = views::manifest(api, asked, place, &grant, reference, purpose).await?;
    asked.account.cache = found.status.label();
    let manifest = found.content;
    if asked.head.method == Method::HEAD && key.is_hosted() {
        Box::pin(before_a_push(api, asked, place, &grant, &manifest.digest)).await?;
    }
    let mut response = if headers::is_known(&asked.head.headers, &manifest.digest) {
        without_body(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = without_body(StatusCode::OK);
        let head = response.headers_mut();
        headers::set_media_type(head, &manifest.media_type);
        if asked.head.method == Method::HEAD {
            // On GET hyper sets it. On HEAD it can't: containerd asks again without it, others fail.
            headers::set_number(head, header::CONTENT_LENGTH, manifest.bytes.len() as u64);
        }
        *response.body_mut() = Body::from(manifest.bytes);
        response
    };
    headers::set_digest(response.headers_mut(), &manifest.digest);
    headers::set_status(response.headers_mut(), &found.status);
    if let Some(tag) = served_tag {
        headers::set(response.headers_mut(), headers::SERVED_TAG, tag.as_str());
    }
    Ok(response)
}

/// HEAD by one who may push: the images of an index that are answered with 200 are not pushed again, so they stay for the
/// lease time.
async fn before_a_push(
    api: &Api,
    asked: &Asked<'_>,
    place: &Place,
    grant: &Grant,
    digest: &Digest,
) -> Result<(), Failure> {
    let Some(push) = pusher(api, asked, place, grant).await else { return Ok(()) };
    if api.push.protect(&push, digest).await? { Ok(()) } else { Err(cache::Error::ManifestUnknown.into()) }
}
