use super::*;

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn at(moment: u64) -> Made {
    Made { begun: Timestamp(moment - 1), ended: Timestamp(moment) }
}

fn dead(branches: &Branches) -> Vec<(&str, u64)> {
    branches.dead.iter().map(|(name, at)| (name.as_str(), at.0)).collect()
}

#[test]
fn a_branch_is_gone_since_the_first_listing_that_lacks_it() {
    let mut known = Branches::default();
    known.take(names(&["main", "a", "b"]), &names(&[]), at(10), 99);
    known.take(names(&["main", "b"]), &names(&[]), at(20), 99);
    known.take(names(&["main"]), &names(&[]), at(30), 99);
    assert_eq!(known.alive, names(&["main"]));
    assert_eq!(dead(&known), [("a", 20), ("b", 30)]);
    assert_eq!((known.first_listed, known.listed), (Timestamp(10), Timestamp(29)));
    known.take(names(&["main", "a"]), &names(&[]), at(40), 99);
    assert_eq!(dead(&known), [("b", 30)], "it came again");
}

#[test]
fn an_event_says_since_when_and_a_push_takes_it_back() {
    let mut known = Branches::default();
    known.take(names(&["main", "a"]), &names(&[]), at(10), 99);
    assert!(known.deleted("a", Timestamp(15)));
    assert!(!known.deleted("a", Timestamp(16)), "it is gone already");
    assert!(!known.deleted("never", Timestamp(16)), "what was never there is not gone");
    known.take(names(&["main"]), &names(&[]), at(20), 99);
    assert_eq!(dead(&known), [("a", 15)], "since the event, not since the listing");
    assert!(known.pushed("a") && !known.pushed("a"));
    assert!(known.dead.is_empty() && known.alive.contains("a"));
}

#[test]
fn what_was_pushed_while_a_listing_ran_is_there() {
    let mut known = Branches::default();
    known.take(names(&["main"]), &names(&[]), at(10), 99);
    known.pushed("new");
    known.take(names(&["main"]), &names(&["new"]), at(20), 99);
    assert!(known.alive.contains("new") && known.dead.is_empty());
}

#[test]
fn what_is_forgotten_looks_younger_not_older() {
    let mut known = Branches::default();
    known.take(names(&["main", "a", "b", "c"]), &names(&[]), at(10), 99);
    known.take(names(&["main", "b", "c"]), &names(&[]), at(20), 99);
    known.take(names(&["main", "c"]), &names(&[]), at(30), 99);
    known.take(names(&["main"]), &names(&[]), at(40), 2);
    assert_eq!(dead(&known), [("c", 40)]);
    assert_eq!(known.first_listed, Timestamp(30), "`a` and `b` count as gone since then");
}

fn pull(number: u64, sha: &str) -> Pull {
    Pull { number, branch: format!("b{number}"), sha: sha.to_owned() }
}

fn listing(open: &[u64], closed: &[(u64, u64)]) -> PullListing {
    PullListing {
        open: open.iter().map(|number| (*number, pull(*number, "s"))).collect(),
        closed: closed.iter().map(|(number, at)| (*number, (pull(*number, "s"), Timestamp(*at)))).collect(),
    }
}

fn shown(pulls: &Pulls) -> (Vec<u64>, Vec<(u64, u64)>) {
    let open = pulls.open.iter().map(|pull| pull.number).collect();
    (open, pulls.closed.iter().map(|(pull, at)| (pull.number, at.0)).collect())
}

#[test]
fn a_pull_request_is_closed_when_its_forge_says_or_when_it_is_missed() {
    let mut known = Pulls::default();
    known.take(listing(&[1, 2, 3], &[(4, 7)]), &BTreeSet::new(), at(10), 99);
    known.take(listing(&[1], &[(2, 15)]), &BTreeSet::new(), at(20), 99);
    assert_eq!(shown(&known), (vec![1], vec![(2, 15), (3, 20), (4, 7)]), "3 was deleted, 4 is remembered");
    known.take(listing(&[1, 4], &[(4, 25)]), &BTreeSet::new(), at(30), 99);
    assert_eq!(shown(&known), (vec![1, 4], vec![(2, 15), (3, 20)]), "opened again");
    known.take(listing(&[], &[]), &BTreeSet::from([1]), at(40), 99);
    assert_eq!(shown(&known).0, [1], "an event said so while the listing was made");
}

#[test]
fn events_open_and_close_pull_requests() {
    let mut known = Pulls::default();
    assert!(known.opened(pull(1, "a")) && !known.opened(pull(1, "a")));
    assert!(known.opened(pull(1, "b")), "it has another commit");
    assert!(known.ended(pull(1, "b"), Timestamp(5)) && !known.ended(pull(1, "b"), Timestamp(6)));
    assert_eq!(shown(&known), (vec![], vec![(1, 5)]));
    assert!(known.opened(pull(1, "b")));
    assert_eq!(shown(&known), (vec![1], vec![]));
}
