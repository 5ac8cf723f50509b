//! What goes and what stays, as tables.

use crate::clock::Timestamp;
use crate::history::Pull;
use crate::oci::MediaType;
use crate::store::Kind;
use crate::store::LinkRecord;
use crate::store::Origin;
use crate::store::Standing;
use crate::store::TagRecord;

use super::*;

fn digest(n: u8) -> Digest {
    Digest::of(&[n])
}

fn link(n: u8, size: u64, used: u64, kind: Kind, children: Vec<Digest>) -> Linked {
    let link = LinkRecord {
        digest: digest(n),
        generation: 0,
        size,
        kind,
        origin: Origin::Proxied,
        at: Timestamp(0),
        standing: Standing::default(),
    };
    Linked { link, used: Some(Timestamp(used)), children, subject: None }
}

fn blob(n: u8, size: u64, used: u64) -> Linked {
    link(n, size, used, Kind::Blob, Vec::new())
}

fn image(n: u8, used: u64, children: &[u8]) -> Linked {
    let media_type = MediaType::new(MediaType::OCI_MANIFEST);
    let kind = Kind::Manifest { media_type, subject: None, artifact_type: None };
    link(n, 1, used, kind, children.iter().map(|c| digest(*c)).collect())
}

fn tagged(tag: &str, n: u8, used: u64) -> Tagged {
    let record = TagRecord {
        tag: tag.parse().unwrap(),
        digest: digest(n),
        media_type: MediaType::new(MediaType::OCI_MANIFEST),
        size: 1,
        origin: Origin::Proxied,
        pusher: None,
        at: Timestamp(0),
        history: Vec::new(),
        gone: None,
    };
    Tagged { record, validated_at: Timestamp(0), used: Some(Timestamp(used)) }
}

fn holding(name: &str, tags: &[(&str, u8, u64)], links: Vec<Linked>) -> Holding {
    let tags = tags.iter().map(|(t, d, used)| tagged(t, *d, *used)).collect();
    Holding { repository: RepositoryKey::from_path(&format!("docker.io/{name}")).unwrap(), tags, links }
}

/// What goes where nothing is known of popularity: by the last use alone.
fn chosen(holdings: &[Holding], wanted: u64, kept: &Kept) -> Vec<Victim> {
    plan(holdings, wanted, kept, &Popularity::new(1))
}

/// The popularity after these uses: repository, tag, image and time.
fn popularity(uses: &[(&str, &str, u8, u64)]) -> Popularity {
    let mut popularity = Popularity::new(1000);
    for (name, tag, n, at) in uses {
        let repository = RepositoryKey::from_path(&format!("docker.io/{name}")).unwrap();
        let (at, tag) = (Timestamp(*at), (!tag.is_empty()).then(|| tag.parse().unwrap()));
        popularity.note(&Pull { at, repository, tag, digest: digest(*n), bytes: 1, pulls: 1, hits: 1 });
    }
    popularity
}

fn names(victims: &[Victim]) -> Vec<String> {
    victims.iter().map(|v| v.repository.name.to_string()).collect()
}

#[test]
fn the_oldest_image_goes_first_and_whole() {
    let old = holding("a", &[("1", 1, 10)], vec![image(1, 10, &[2, 3]), blob(2, 100, 10), blob(3, 50, 10)]);
    let new = holding("b", &[("1", 4, 20)], vec![image(4, 20, &[5]), blob(5, 100, 20)]);
    let victims = chosen(&[new, old], 1, &Kept::default());
    assert_eq!(victims.len(), 1);
    assert_eq!(victims[0].repository.to_string(), "docker.io/a");
    assert_eq!(victims[0].tags.len(), 1);
    assert_eq!(victims[0].links, [digest(1), digest(2), digest(3)]);
}

#[test]
fn a_blob_that_a_kept_image_shares_stays() {
    let links = vec![image(1, 10, &[2, 3]), image(4, 20, &[2]), blob(2, 100, 10), blob(3, 50, 10)];
    let victims = chosen(&[holding("a", &[("old", 1, 10), ("new", 4, 20)], links)], 51, &Kept::default());
    assert_eq!(victims.len(), 1);
    assert_eq!(victims[0].links, [digest(1), digest(3)]);
}

#[test]
fn bytes_that_another_repository_needs_free_nothing() {
    let a = holding("a", &[("1", 1, 10)], vec![image(1, 10, &[2]), blob(2, 100, 10)]);
    let b = holding("b", &[("1", 3, 20)], vec![image(3, 20, &[2]), blob(2, 100, 20)]);
    // Freeing 50 bytes takes both: the first frees only its manifest.
    assert_eq!(chosen(&[a, b], 50, &Kept::default()).len(), 2);
}

#[test]
fn a_platform_that_nobody_uses_goes_singly() {
    let links = vec![image(1, 99, &[2, 4]), image(2, 10, &[3]), blob(3, 100, 10), image(4, 99, &[5]), blob(5, 100, 99)];
    let victims = chosen(&[holding("a", &[("1", 1, 99)], links)], 100, &Kept::default());
    assert_eq!(victims.len(), 1);
    assert!(victims[0].tags.is_empty());
    assert_eq!(victims[0].links, [digest(2), digest(3)]);
}

#[test]
fn blobs_without_a_manifest_go_by_their_own_use() {
    let links = vec![image(1, 10, &[]), blob(7, 100, 5), blob(8, 100, 50)];
    let victims = chosen(&[holding("a", &[], links)], 100, &Kept::default());
    assert_eq!(victims.len(), 1);
    assert_eq!(victims[0].links, [digest(7)]);
}

#[test]
fn two_tags_of_one_image_go_together_by_the_later_use() {
    let links = vec![image(1, 0, &[2]), blob(2, 100, 0), image(3, 20, &[4]), blob(4, 100, 20)];
    let victims = chosen(&[holding("a", &[("x", 1, 10), ("y", 1, 30), ("z", 3, 20)], links)], 200, &Kept::default());
    assert_eq!(victims.iter().map(|v| v.tags.len()).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_is_kept_stays_however_old_it_is() {
    let index = vec![image(1, 1, &[2, 4]), image(2, 1, &[3]), blob(3, 100, 1), image(4, 1, &[5]), blob(5, 100, 1)];
    let new = vec![image(6, 50, &[7]), blob(7, 100, 50), blob(8, 100, 60)];
    let holdings = [holding("a", &[("1", 1, 1)], index), holding("b", &[("1", 6, 50)], new)];
    let held = [(holdings[0].repository.clone(), digest(1))];
    let victims = chosen(&holdings, 1000, &Kept::new(&holdings, &held, 1000));
    assert!(victims.iter().all(|v| v.repository.to_string() == "docker.io/b"), "{victims:?}");
    assert_eq!(victims.len(), 2);
    // 203 bytes: without room for all of it nothing of it is kept.
    let victims = chosen(&holdings, 1000, &Kept::new(&holdings, &held, 202));
    assert_eq!(victims.iter().filter(|v| v.repository.to_string() == "docker.io/a").count(), 3);
    assert!(Kept::new(&holdings, &held, 203) != Kept::default());
}

#[test]
fn what_is_less_important_goes_first_and_shared_bytes_count_once() {
    let a = holding("a", &[], vec![image(1, 1, &[2]), blob(2, 100, 1)]);
    let b = holding("b", &[], vec![image(3, 2, &[2, 4]), blob(2, 100, 2), blob(4, 50, 2)]);
    let c = holding("c", &[], vec![image(5, 3, &[6]), blob(6, 10, 3)]);
    let holdings = [a, b, c];
    let held: Vec<_> =
        [(0, 1), (1, 3), (2, 5)].iter().map(|(i, n)| (holdings[*i].repository.clone(), digest(*n))).collect();
    let kept = |room| {
        let kept = Kept::new(&holdings, &held, room);
        (0..3).filter(|i| kept.0.iter().any(|(at, _)| at == i)).collect::<Vec<_>>()
    };
    assert_eq!(kept(163), [0, 1, 2]);
    assert_eq!(kept(162), [0, 1]);
    assert_eq!(kept(101), [0]);
    // What comes after the first that does not fit is not kept, though it would fit.
    assert_eq!(kept(100), [0; 0]);
    // What is named and not held takes no room.
    let absent = [(holdings[2].repository.clone(), digest(9)), held[2].clone()];
    assert_eq!(Kept::new(&holdings, &absent, 11).0.len(), 1);
}

#[test]
fn what_is_used_often_outlives_what_was_used_once_since() {
    let often = holding("often", &[("1", 1, 30)], vec![image(1, 30, &[])]);
    let once = holding("once", &[("1", 2, 40)], vec![image(2, 40, &[])]);
    let holdings = [often, once];
    let uses = [("often", "1", 1, 10), ("often", "1", 1, 20), ("often", "1", 1, 30), ("once", "1", 2, 40)];
    let victims = plan(&holdings, 2, &Kept::default(), &popularity(&uses));
    assert_eq!(names(&victims), ["once", "often"]);
    assert_eq!(names(&chosen(&holdings, 2, &Kept::default())), ["often", "once"]);
}

#[test]
fn what_a_tag_left_behind_goes_first_unless_it_is_used_by_its_digest() {
    let moved = |name: &str, used: u64| {
        let mut holding =
            holding(name, &[("1", 2, 90)], vec![image(1, used, &[3]), image(2, 90, &[4]), blob(3, 5, used)]);
        holding.tags[0].record.history = vec![(digest(1), Timestamp(10)), (digest(2), Timestamp(50))];
        holding
    };
    let other = holding("other", &[("1", 6, 20)], vec![image(6, 20, &[])]);
    let holdings = [moved("a", 40), moved("b", 60), other];
    let uses = [("a", "1", 1, 30), ("a", "1", 1, 35), ("a", "1", 1, 40), ("other", "1", 6, 45)];
    let victims = plan(&holdings, 100, &Kept::default(), &popularity(&uses));
    assert_eq!((names(&victims)[0].as_str(), victims[0].links[0]), ("a", digest(1)), "popular as it was");
    let pinned = victims.iter().position(|v| v.links.contains(&digest(1)) && v.repository == holdings[1].repository);
    assert!(pinned > Some(1), "what is used since then is like everything else: {victims:?}");
}

#[test]
fn a_new_image_of_a_popular_tag_stays_with_its_platforms_that_are_used() {
    // The index 1 came to be tagged a moment ago; of its images 2 was used with it, and 3 long ago.
    const LATER: u64 = 10_000_000_000;
    let links = vec![image(1, LATER, &[2, 3]), image(2, LATER, &[]), image(3, 0, &[])];
    let popular = holding("popular", &[("1", 1, LATER)], links);
    let twice = holding("twice", &[("1", 5, LATER)], vec![image(5, LATER, &[])]);
    let uses: Vec<_> = (1..9).map(|n| ("popular", "1", 9, LATER - n)).collect();
    let uses = [vec![("popular", "1", 1, LATER)], uses, vec![("twice", "1", 5, LATER); 2]].concat();
    let victims = plan(&[popular, twice], 100, &Kept::default(), &popularity(&uses));
    assert_eq!(victims.iter().map(|v| v.links[0]).collect::<Vec<_>>()[..2], [digest(3), digest(5)]);
}
