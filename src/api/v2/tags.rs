//! `…/tags/list` (distribution-spec, "Listing Tags", end-8).

use crate::access::Action;
use crate::access::Target;
use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::headers;
use crate::api::route::Page;
use crate::api::route::Place;
use crate::api::with_body;
use crate::oci::Tag;

/// A page of tags, at most `limits.page` of them whatever is asked for; `n=0` asks for none.
pub(in crate::api) async fn answer(api: &Api, asked: &mut Asked<'_>, place: &Place, page: &Page) -> Answer {
    let key = api.find(asked, place).await?;
    let grant = api.access.authorize(&asked.caller(Some(place)), Action::Pull, &key, &Target::Repository).await?;
    asked.account.principal = Some(grant.principal().clone());
    let most = u64::from(api.limits.page);
    let limit = page.count.unwrap_or(most).min(most);
    if limit == 0 {
        return Ok(with_body("application/json", list(place, &[])));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = api.cache.tags(&grant, page.after.as_ref(), limit).await?;
    asked.account.cache = found.status.label();
    let listed = found.content;
    let mut response = with_body("application/json", list(place, &listed.tags));
    headers::set_status(response.headers_mut(), &found.status);
    if let (true, Some(last)) = (listed.more, listed.tags.last()) {
        let (path, ns) = (asked.head.uri.path(), place.spelling.ns.as_deref());
        headers::set_next_page(response.headers_mut(), path, page, last, ns);
    }
    Ok(response)
}

/// The list as the specification writes it, with the name as the client writes it.
fn list(place: &Place, tags: &[Tag]) -> String {
    serde_json::json!({ "name": place.spelling.path, "tags": tags }).to_string()
}
