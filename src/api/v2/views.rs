//! Manifests as views show them: what a run saw first, the build cache of another branch where a tag is missing.

use crate::access::Action;
use crate::access::Grant;
use crate::access::Target;
use crate::api::Api;
use crate::api::Asked;
use crate::api::failure::Failure;
use crate::api::route::Place;
use crate::cache;
use crate::cache::ManifestBody;
use crate::cache::Purpose;
use crate::cache::Served;
use crate::cache::View;
use crate::oci::Reference;
use crate::oci::Tag;

/// What is served, and the tag that it belongs to where that is another than was asked for.
type Seen = (Served<ManifestBody>, Option<Tag>);

/// The manifest that the request means.
pub(super) async fn manifest(
    api: &Api,
    asked: &Asked<'_>,
    place: &Place,
    grant: &Grant,
    reference: &Reference,
    purpose: Purpose,
) -> Result<Seen, Failure> {
    if let (Some(run), Reference::Tag(tag)) = (&place.run, reference) {
        // Boxed, here and below, so that a hit is not as large in memory as what looks further.
        return Box::pin(in_run(api, asked, place, grant, (run, tag), purpose)).await;
    }
    match (api.cache.manifest(grant, reference, purpose).await, reference) {
        (Ok(found), _) => Ok((found, None)),
        (Err(cache::Error::ManifestUnknown), Reference::Tag(tag)) => {
            let found = Box::pin(stand_in(api, asked, place, grant, tag, purpose)).await?;
            found.ok_or_else(|| cache::Error::ManifestUnknown.into())
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// The manifest that the tag means for the run: what it meant when the run first saw it. Of several first requests at once
/// one decides; what is absent is not noted, and neither is what stands in for it.
async fn in_run(
    api: &Api,
    asked: &Asked<'_>,
    place: &Place,
    grant: &Grant,
    (run, tag): (&str, &Tag),
    purpose: Purpose,
) -> Result<Seen, Failure> {
    let (runs, repository) = (&api.views.runs, grant.repository());
    let seen = async |digest| api.cache.manifest_seen(grant, (tag, &digest), View::Run, purpose).await;
    if let Some(digest) = runs.pinned(run, repository, tag).await? {
        return Ok((seen(digest).await?, None));
    }
    match api.cache.manifest(grant, &Reference::Tag(tag.clone()), purpose).await {
        Ok(found) => {
            let digest = runs.pin(run, repository, tag, found.content.digest).await?;
            Ok((if digest == found.content.digest { found } else { seen(digest).await? }, None))
        }
        Err(cache::Error::ManifestUnknown) => {
            let found = stand_in(api, asked, place, grant, tag, purpose).await?;
            found.ok_or_else(|| cache::Error::ManifestUnknown.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The build cache that stands in for the missing tag. Never for a pusher's look: it would skip the push of a cache that is
/// the same as the other's, and the tag would never come to be [seen with BuildKit].
async fn stand_in(
    api: &Api,
    asked: &Asked<'_>,
    place: &Place,
    grant: &Grant,
    missing: &Tag,
    purpose: Purpose,
) -> Result<Option<Seen>, Failure> {
    if purpose == Purpose::Look {
        return Ok(None);
    }
    let repository = grant.repository();
    let fallbacks = &api.views.fallbacks;
    for tag in fallbacks.tags(repository, missing) {
        // Whoever may pull the missing tag may not pull each other one: rules may name tags.
        let target = Target::Manifest(Reference::Tag(tag.clone()));
        let considered = api.access.consider(&asked.caller(Some(place)), Action::Pull, repository, &target).await;
        let Ok(grant) = considered else { continue };
        let seen = match &place.run {
            Some(run) => api.views.runs.pinned(run, repository, &tag).await?,
            None => None,
        };
        let meant = match seen {
            Some(digest) => Some(digest),
            None => fallbacks.meant(repository, &tag).await.map_err(|error| Failure::from(&error))?,
        };
        let Some(digest) = meant else { continue };
        // The first that is there decides: looking past it for one that would do is not what was written.
        if !fallbacks.is_cache(repository, &digest).await.map_err(|error| Failure::from(&error))? {
            return Ok(None);
        }
        let found = api.cache.manifest_seen(&grant, (&tag, &digest), View::Fallback, purpose).await?;
        return Ok(Some((found, Some(tag))));
    }
    Ok(None)
}
