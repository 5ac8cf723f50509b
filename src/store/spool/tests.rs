use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::oci::range::Extent;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 251) as u8).collect()
}

async fn collect(mut stream: crate::body::ByteStream) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    while let Some(part) = stream.next().await {
        match part {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(_) => return (got, false),
        }
    }
    (got, true)
}

#[tokio::test]
async fn what_was_left_by_fills_is_removed_and_uploads_stay() {
    let folder = tempfile::tempdir().unwrap();
    drop(Spool::open(folder.path()).unwrap());
    std::fs::write(folder.path().join("fills/1-0"), "x").unwrap();
    std::fs::write(folder.path().join("uploads/1-0"), "x").unwrap();
    drop(Spool::open(folder.path()).unwrap());
    assert!(!folder.path().join("fills/1-0").exists());
    assert!(folder.path().join("uploads/1-0").exists());
}

#[tokio::test]
async fn a_file_that_is_not_published_is_removed_and_its_bytes_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let spooled = spool.create(Area::Fills, Some(1000), Algorithm::Sha256).await.unwrap();
    assert_eq!(spool.bytes(), 1000);
    drop(spooled);
    assert_eq!(spool.bytes(), 0);
    assert_eq!(std::fs::read_dir(folder.path().join("fills")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_tail_is_held_back_until_the_digest_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let bytes = content(300_000);
    let spooled = spool.create(Area::Fills, Some(300_000), Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from(bytes.clone())).await.unwrap();
    spooled.flush().await.unwrap();
    let mut stream = spooled.follow(None);
    let mut got = Vec::new();
    while got.len() < 300_000 - usize::try_from(HELD_BACK_BYTES).unwrap() {
        got.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    assert_eq!(got.len(), 300_000 - usize::try_from(HELD_BACK_BYTES).unwrap());
    assert!(futures_util::poll!(stream.next()).is_pending());
    let verified = spooled.seal(Digest::of(&bytes)).await.unwrap();
    let (rest, whole) = collect(stream).await;
    got.extend(rest);
    assert!(whole && got == bytes);
    assert_eq!(verified.size(), 300_000);
}

#[tokio::test]
async fn a_wrong_digest_breaks_the_readers() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let spooled = spool.create(Area::Fills, None, Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from(content(200_000))).await.unwrap();
    spooled.set_size(200_000);
    let sealed = spooled.seal(Digest::of(b"other")).await;
    assert!(matches!(sealed, Err(SealError::Mismatch { .. })));
    let (got, whole) = collect(spooled.follow(None)).await;
    assert!(!whole && got.len() < 200_000);
    assert!(!spooled.revive(), "wrong bytes are not taken up again");
}

#[tokio::test]
async fn a_hole_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let spooled = spool.create(Area::Fills, Some(10), Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from_static(b"0123")).await.unwrap();
    spooled.write(6, Bytes::from_static(b"6789")).await.unwrap();
    assert_eq!(spooled.missing(0), Some(Extent { start: 4, end: 6 }));
    assert!(matches!(spooled.seal(Digest::of(b"0123456789")).await, Err(SealError::Short { from: 4 })));
}

/// One step of a transfer.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Flush,
    Fail,
    Revive,
}

fn step(length: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..length, 1..=length).prop_map(|(at, n)| Step::Write(at, n)),
        2 => Just(Step::Flush),
        1 => Just(Step::Fail),
        1 => Just(Step::Revive),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Whatever comes in whatever order: a reader gets the right bytes or breaks off.
    #[test]
    fn readers_get_the_right_bytes_or_none(
        (length, steps) in (1_usize..200_000).prop_flat_map(|n| (Just(n), proptest::collection::vec(step(n), 0..30))),
        sized: bool,
        flip: bool,
        slice in (0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let spool = Spool::open(folder.path()).unwrap();
            let (bytes, mut sent) = (content(length), content(length));
            if flip {
                sent[length / 2] ^= 1;
            }
            let size = sized.then_some(length as u64);
            let spooled = spool.create(Area::Fills, size, Algorithm::Sha256).await.unwrap();
            let at = |part: f64| (part * length as f64) as u64;
            let (start, end) = (at(slice.0.min(slice.1)), at(slice.0.max(slice.1)) + 1);
            let part = (sized && end <= length as u64).then_some(Extent { start, end });
            let (whole, sliced) = (spooled.follow(None), part.map(|e| spooled.follow(Some(e))));
            for step in steps {
                match step {
                    Step::Write(at, n) => {
                        let end = (at + n).min(length);
                        spooled.write(at as u64, Bytes::copy_from_slice(&sent[at..end])).await.unwrap();
                    }
                    Step::Flush => spooled.flush().await.unwrap(),
                    Step::Fail => spooled.fail("on purpose"),
                    Step::Revive => drop(spooled.revive()),
                }
            }
            spooled.revive();
            let mut from = 0;
            while let Some(hole) = spooled.missing(from).filter(|h| h.start < length as u64) {
                let end = hole.end.min(length as u64);
                let range = usize::try_from(hole.start).unwrap()..usize::try_from(end).unwrap();
                spooled.write(hole.start, Bytes::copy_from_slice(&sent[range])).await.unwrap();
                from = end;
            }
            spooled.set_size(length as u64);
            let sealed = spooled.seal(Digest::of(&bytes)).await;
            assert_eq!(sealed.is_ok(), !flip, "{sealed:?}");
            let (got, complete) = collect(whole).await;
            assert_eq!(complete, !flip);
            assert!(!complete || got == bytes);
            if let (Some(stream), Some(e)) = (sliced, part) {
                let (got, complete) = collect(stream).await;
                let want = &bytes[usize::try_from(e.start).unwrap()..usize::try_from(e.end).unwrap()];
                assert!(!complete || got == want);
                assert!(complete || flip);
            }
        });
    }
}
