//! Writes of manifests, and removals (distribution-spec, end-7, end-9, end-10).

use http::HeaderValue;
use http::Response;
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
use crate::api::receive;
use crate::api::route::Place;
use crate::api::without_body;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::Tag;
use crate::push::NewManifest;
use crate::push::PushedManifest;

/// PUT of a manifest.
pub(super) async fn manifest<B: Sent>(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    reference: &Reference,
    tags: &[Tag],
    body: &mut B,
) -> Answer {
    let grant = granted(api, asked, place, Action::Push, Target::Manifest(reference.clone())).await?;
    for tag in tags {
        // Each tag is a right of its own: a rule may allow a branch's tags only.
        let target = Target::Manifest(Reference::Tag(tag.clone()));
        api.access.authorize(&asked.caller(Some(place)), Action::Push, grant.repository(), &target).await?;
    }
    let content_type = asked.head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let bytes = receive::whole(api, asked, body).await?;
    let new = NewManifest { reference: reference.clone(), tags: tags.to_vec(), content_type, bytes };
    let of_run = place.run.as_deref().map(|run| (run, every_tag(reference, tags)));
    if let Some((run, tags)) = &of_run {
        // Before anything is written: a run without room would go on seeing what it saw.
        api.views.runs.admit(run, grant.repository(), tags).await?;
    }
    let pushed = api.push.manifest(&grant, new).await?;
    if let Some((run, tags)) = &of_run {
        for tag in tags {
            api.views.runs.repin(run, grant.repository(), tag, pushed.digest).await?;
        }
    }
    Ok(created(asked, place, &pushed, tags))
}

/// The tags that a push writes.
fn every_tag<'a>(reference: &'a Reference, tags: &'a [Tag]) -> Vec<&'a Tag> {
    let named = match reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => None,
    };
    named.into_iter().chain(tags).collect()
}

/// 201: where it is, what it is, and what was made of its subject and tags.
fn created(asked: &Asked<'_>, place: &Place, pushed: &PushedManifest, tags: &[Tag]) -> Response<Body> {
    let mut response = without_body(StatusCode::CREATED);
    let head = response.headers_mut();
    let location = headers::sibling(&asked.head.uri, &pushed.digest.to_string(), place.spelling.ns.as_deref());
    headers::set(head, header::LOCATION, &location);
    headers::set_digest(head, &pushed.digest);
    if let Some(subject) = &pushed.subject {
        headers::set(head, headers::OCI_SUBJECT, &subject.to_string());
    }
    for tag in tags {
        if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
            head.append(headers::OCI_TAG, value);
        }
    }
    response
}

/// DELETE of a tag or a manifest.
pub(super) async fn delete_manifest(api: &Api, asked: &mut Asked<'_>, place: &Place, reference: &Reference) -> Answer {
    let grant = granted(api, asked, place, Action::Delete, Target::Manifest(reference.clone())).await?;
    api.push.delete_manifest(&grant, reference).await?;
    if let Reference::Digest(digest) = reference {
        // A tag that is deleted is still what a run saw; a manifest that is deleted is nowhere.
        api.views.runs.forget(grant.repository(), digest).await?;
    }
    Ok(without_body(StatusCode::ACCEPTED))
}

/// DELETE of a blob.
pub(super) async fn delete_blob(api: &Api, asked: &mut Asked<'_>, place: &Place, digest: &Digest) -> Answer {
    let grant = granted(api, asked, place, Action::Delete, Target::Blob(*digest)).await?;
    api.push.delete_blob(&grant, digest).await?;
    Ok(without_body(StatusCode::ACCEPTED))
}

/// The right to write in a repository that takes writes. Who may write learns where it can't be done; who may not
/// learns no more than that.
pub(super) async fn granted(
    api: &Api,
    asked: &mut Asked<'_>,
    place: &Place,
    action: Action,
    target: Target,
) -> Result<Grant, Failure> {
    let key = api.find(asked, place).await?;
    let grant = api.access.authorize(&asked.caller(Some(place)), action, &key, &target).await?;
    asked.account.principal = Some(grant.principal().clone());
    if grant.repository().is_hosted() { Ok(grant) } else { Err(Failure::method(proxied_methods(&target))) }
}

/// What may be done with a thing of a repository that takes no pushes.
fn proxied_methods(target: &Target) -> &'static str {
    match target {
        Target::Manifest(_) | Target::Blob(_) => "GET, HEAD",
        Target::Repository => "",
    }
}
