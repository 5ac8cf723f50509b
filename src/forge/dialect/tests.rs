use super::*;

fn url(kind: ForgeKind, api: &str, make: impl FnOnce(Dialect, &Url) -> Url) -> String {
    make(Dialect(kind), &api.parse().unwrap()).to_string()
}

#[test]
fn each_kind_is_asked_in_its_own_way() {
    let (hub, lab, tea) = (ForgeKind::Github, ForgeKind::Gitlab, ForgeKind::Gitea);
    for (kind, api, want) in [
        (hub, "https://api.github.com", "https://api.github.com/repos/acme/app/branches?per_page=100&page=1"),
        (hub, "https://ghe.test/api/v3/", "https://ghe.test/api/v3/repos/acme/app/branches?per_page=100&page=1"),
        (
            lab,
            "https://gitlab.com/api/v4",
            "https://gitlab.com/api/v4/projects/acme%2Fapp/repository/branches?per_page=100&page=1",
        ),
        (tea, "https://tea.test/api/v1", "https://tea.test/api/v1/repos/acme/app/branches?limit=50&page=1"),
    ] {
        assert_eq!(url(kind, api, |dialect, api| dialect.branches(api, "acme/app")), want);
    }
    let pulls = url(lab, "https://l.test/api/v4", |dialect, api| dialect.closed_pulls(api, "a/b/c", Timestamp(0)));
    assert_eq!(
        pulls,
        "https://l.test/api/v4/projects/a%2Fb%2Fc/merge_requests?state=all&order_by=updated_at&sort=desc\
         &updated_after=1970-01-01T00%3A00%3A00Z&per_page=100&page=1"
    );
}

#[test]
fn names_that_lead_elsewhere_are_none() {
    for (kind, name, good) in [
        (ForgeKind::Github, "acme/app", true),
        (ForgeKind::Github, "acme/a.b_c-d", true),
        (ForgeKind::Github, "acme", false),
        (ForgeKind::Github, "acme/app/x", false),
        (ForgeKind::Gitlab, "acme/team/app", true),
        (ForgeKind::Gitlab, "acme/../app", false),
        (ForgeKind::Gitea, "acme/app?x", false),
        (ForgeKind::Gitea, "acme/", false),
        (ForgeKind::Gitea, "acme/%2e%2e", false),
    ] {
        assert_eq!(Dialect(kind).is_name(name), good, "{name}");
    }
}

#[test]
fn items_of_all_kinds_are_read() {
    let time = "2026-11-24T16:08:09Z";
    let moment = moment(time).unwrap();
    let read = |document: serde_json::Value| {
        let item: Item = serde_json::from_value(document).unwrap();
        item.read()
    };
    let pull = |number: u64, branch: &str, sha: &str| Pull { number, branch: branch.to_owned(), sha: sha.to_owned() };
    let hub = serde_json::json!({ "number": 7, "state": "open", "updated_at": time, "closed_at": null, "merged_at": null,
        "head": { "ref": "feature/x", "sha": "abc", "label": "acme:feature/x", "repo": null } });
    assert_eq!(read(hub), Ok((pull(7, "feature/x", "abc"), State::Open)));
    let tea = serde_json::json!({ "number": 8, "state": "closed", "updated_at": "2026-11-25T00:00:00+01:00",
        "closed_at": time, "merged_at": null, "head": { "ref": "refs/pull/8/head", "sha": "abc", "label": "gone" } });
    assert_eq!(read(tea), Ok((pull(8, "gone", "abc"), State::Closed(moment))));
    let lab = serde_json::json!({ "iid": 9, "id": 4711, "state": "merged", "updated_at": "2026-11-25T00:00:00.123Z",
        "merged_at": time, "closed_at": null, "source_branch": "x", "sha": null });
    assert_eq!(read(lab), Ok((pull(9, "x", ""), State::Closed(moment))));
    let odd = serde_json::json!({ "iid": 9, "state": "paused", "updated_at": time });
    assert!(read(odd).is_err(), "what is not known is not guessed");
}
