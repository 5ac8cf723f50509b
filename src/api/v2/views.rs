//! Manifests as views show them: the build cache of another branch where a tag is missing.

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
    let found = api.cache.manifest(grant, reference, purpose).await;
    match (found, reference) {
        (Ok(found), _) => Ok((found, None)),
        (Err(cache::Error::ManifestUnknown), Reference::Tag(tag)) => {
            // Boxed, so that a hit is not as large in memory as what looks further.
            let found = Box::pin(stand_in(api, asked, place, grant, tag, purpose)).await?;
            found.ok_or_else(|| cache::Error::ManifestUnknown.into())
        }
        (Err(error), _) => Err(error.into()),
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
        let meant = fallbacks.meant(repository, &tag).await.map_err(|error| Failure::from(&error))?;
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
