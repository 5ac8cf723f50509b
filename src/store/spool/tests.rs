use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::oci::range::Extent;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + n / 251) % 256).unwrap()).collect()
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
    let spooled = spool.create(Some(1000), Algorithm::Sha256).await.unwrap();
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
    let spooled = spool.create(Some(300_000), Algorithm::Sha256).await.unwrap();
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
    let spooled = spool.create(None, Algorithm::Sha256).await.unwrap();
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
    let spooled = spool.create(Some(10), Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from_static(b"0123")).await.unwrap();
    spooled.write(6, Bytes::from_static(b"6789")).await.unwrap();
    assert_eq!(spooled.missing(0), Some(Extent { start: 4, end: 6 }));
    assert!(matches!(spooled.seal(Digest::of(b"0123456789")).await, Err(SealError::Short { from: 4 })));
}

#[tokio::test]
async fn the_first_bytes_for_a_place_win() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let bytes = content(300_000);
    let spooled = spool.create(Some(300_000), Algorithm::Sha256).await.unwrap();
    spooled.write(100_000, Bytes::from(bytes[100_000..].to_vec())).await.unwrap();
    spooled.flush().await.unwrap();
    spooled.write(0, Bytes::from(bytes[..150_000].to_vec())).await.unwrap();
    // What was hashed already can't become other bytes under the same digest.
    spooled.write(0, Bytes::from(vec![0; 300_000])).await.unwrap();
    let verified = spooled.seal(Digest::of(&bytes)).await.unwrap();
    let mut stored = vec![0; 300_000];
    verified.file().read_exact_at(&mut stored, 0).unwrap();
    assert!(stored == bytes);
}

#[tokio::test]
async fn a_batch_ends_though_its_caller_went_away() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let bytes = content(3 << 20);
    let spooled = spool.create(None, Algorithm::Sha256).await.unwrap();
    for (n, part) in bytes.chunks(700_000).enumerate() {
        let write = spooled.write(n as u64 * 700_000, Bytes::copy_from_slice(part));
        // Polled once and dropped, as the body of a client that hung up.
        drop(futures_util::poll!(Box::pin(write)));
    }
    let verified = spooled.seal(Digest::of(&bytes)).await.unwrap();
    assert_eq!(verified.size(), 3 << 20);
}

#[tokio::test]
async fn an_upload_may_be_named_by_another_algorithm_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let spooled = spool.create(None, Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from_static(b"abc")).await.unwrap();
    spooled.seal(Digest::of_with(Algorithm::Sha512, b"abc")).await.unwrap();
}

#[tokio::test]
async fn more_than_the_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let spooled = spool.create(Some(2), Algorithm::Sha256).await.unwrap();
    assert!(spooled.write(0, Bytes::from_static(b"abc")).await.is_err());
    assert!(spooled.write(u64::MAX, Bytes::from_static(b"abc")).await.is_err());
    let spooled = spool.create(None, Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from_static(b"abc")).await.unwrap();
    spooled.set_size(2);
    assert!(spooled.seal(Digest::of(b"abc")).await.is_err());
    assert!(spooled.wait_verified().await.is_err());
}

#[tokio::test]
async fn two_hundred_readers_get_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let bytes = content(1 << 20);
    let spooled = spool.create(Some(1 << 20), Algorithm::Sha256).await.unwrap();
    let readers = futures_util::future::join_all((0..200).map(|_| collect(spooled.follow(None))));
    let writer = async {
        for (n, part) in bytes.chunks(16 << 10).enumerate() {
            spooled.write((n as u64) << 14, Bytes::copy_from_slice(part)).await.unwrap();
        }
        spooled.seal(Digest::of(&bytes)).await.unwrap()
    };
    let (readers, _verified) = futures_util::future::join(readers, writer).await;
    assert!(readers.iter().all(|(got, whole)| *whole && *got == bytes));
}

/// One step of a transfer.
#[derive(Clone, Debug)]
enum Step {
    /// From where, how many, and whether they are wrong.
    Write(usize, usize, bool),
    Flush,
    Fail,
    Revive,
    /// The readers read what they get.
    Read,
}

fn step(length: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..length, 1..=length, proptest::bool::weighted(0.02)).prop_map(|(at, n, wrong)| Step::Write(at, n, wrong)),
        2 => Just(Step::Flush),
        1 => Just(Step::Fail),
        1 => Just(Step::Revive),
        4 => Just(Step::Read),
    ]
}

/// A reader, what it got, and whether it came to a clean end.
struct Watching {
    stream: crate::body::ByteStream,
    got: Vec<u8>,
    end: Option<bool>,
}

impl Watching {
    async fn read(&mut self) {
        while self.end.is_none() {
            match futures_util::poll!(self.stream.next()) {
                std::task::Poll::Ready(Some(Ok(bytes))) => self.got.extend_from_slice(&bytes),
                std::task::Poll::Ready(Some(Err(_))) => self.end = Some(false),
                std::task::Poll::Ready(None) => self.end = Some(true),
                std::task::Poll::Pending => return,
            }
        }
    }

    async fn read_to_the_end(&mut self) {
        if self.end.is_none() {
            let stream = std::mem::replace(&mut self.stream, Box::pin(futures_util::stream::empty()));
            let (rest, clean) = collect(stream).await;
            self.got.extend(rest);
            self.end = Some(clean);
        }
    }
}

/// What the file must come to have: the first byte that came for each place.
struct Model(Vec<Option<u8>>);

impl Model {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        for (place, byte) in self.0[at..].iter_mut().zip(bytes) {
            place.get_or_insert(*byte);
        }
    }

    fn hole(&self, from: usize) -> Option<usize> {
        (from..self.0.len()).find(|at| self.0[*at].is_none())
    }
}

async fn transfer(length: usize, steps: Vec<Step>, sized: bool, slice: (usize, usize)) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let bytes = content(length);
    let mut model = Model(vec![None; length]);
    let size = sized.then_some(length as u64);
    let spooled = spool.create(size, Algorithm::Sha256).await.unwrap();
    // Thousandths of the length.
    let at = |part: usize| part * length / 1000;
    let (start, end) = (at(slice.0.min(slice.1)), (at(slice.0.max(slice.1)) + 1).min(length));
    let extents = [None, Some(Extent { start: start as u64, end: end as u64 })];
    let follow = |e: &Option<Extent>| Watching { stream: spooled.follow(*e), got: Vec::new(), end: None };
    let mut readers: Vec<_> = extents.iter().map(follow).collect();
    for step in steps {
        match step {
            Step::Write(at, n, wrong) => {
                let mut part = bytes[at..(at + n).min(length)].to_vec();
                if wrong {
                    for byte in &mut part {
                        *byte ^= 1;
                    }
                }
                model.write(at, &part);
                spooled.write(at as u64, part.into()).await.unwrap();
            }
            Step::Flush => spooled.flush().await.unwrap(),
            Step::Fail => spooled.fail("on purpose"),
            Step::Revive => drop(spooled.revive()),
            Step::Read => {
                for reader in &mut readers {
                    reader.read().await;
                }
            }
        }
        let hole = spooled.missing(0).map(|hole| hole.start).filter(|at| *at < length as u64);
        assert_eq!(hole, model.hole(0).map(|at| at as u64));
    }
    spooled.revive();
    while let Some(hole) = model.hole(0) {
        let end = usize::try_from(spooled.missing(hole as u64).unwrap().end).unwrap_or(length).min(length);
        model.write(hole, &bytes[hole..end]);
        spooled.write(hole as u64, Bytes::copy_from_slice(&bytes[hole..end])).await.unwrap();
    }
    spooled.set_size(length as u64);
    let sealed = spooled.seal(Digest::of(&bytes)).await;
    let all: Vec<u8> = model.0.iter().flatten().copied().collect();
    assert_eq!(sealed.is_ok(), all == bytes, "{sealed:?}");
    readers.extend(extents.iter().map(follow));
    for (n, reader) in readers.iter_mut().enumerate() {
        reader.read_to_the_end().await;
        let want = if n % 2 == 0 { &all[..] } else { &all[start..end] };
        assert!(want.starts_with(&reader.got), "what a reader gets is what is kept");
        if reader.end == Some(true) {
            assert_eq!(reader.got.len(), want.len(), "a clean end is the end");
            assert!(sealed.is_ok() || (n % 2 == 1 && end < length), "a wrong body never ends cleanly");
        } else {
            // Those that came after the sealing have nothing to break off for, unless it went wrong.
            assert!(n < 2 || sealed.is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    /// Whatever comes in whatever order, right or wrong, given up and taken up again: a reader gets the right bytes or breaks
    /// off (I1), and what is sealed is what was promised (I2).
    #[test]
    fn readers_get_the_right_bytes_or_none(
        (length, steps) in (1_usize..200_000).prop_flat_map(|n| (Just(n), proptest::collection::vec(step(n), 0..30))),
        sized: bool,
        slice in (0_usize..1000, 0_usize..1000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(transfer(length, steps, sized, slice));
    }
}

/// The upload `a` of a spool in `folder`, taken up again.
async fn resumed(spool: &Spool, least: u64) -> Arc<Spooled> {
    spool.resume_upload("a", least, Algorithm::Sha256).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_upload_outlives_the_process_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content(700_001);
    let spool = Spool::open(folder.path()).unwrap();
    let spooled = spool.begin_upload("a", Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from(bytes[..500_000].to_vec())).await.unwrap();
    spooled.flush().await.unwrap();
    assert_eq!(spool.bytes(), 500_000);
    drop((spooled, spool));

    let spool = Spool::open(folder.path()).unwrap();
    assert_eq!(spool.bytes(), 500_000, "what nobody has open takes its room all the same");
    assert_eq!(spool.uploads().await.unwrap(), [("a".to_owned(), 500_000)]);
    assert!(spool.resume_upload("a", 500_001, Algorithm::Sha256).await.unwrap().is_none(), "bytes were lost");
    assert!(spool.resume_upload("b", 0, Algorithm::Sha256).await.unwrap().is_none());
    let spooled = resumed(&spool, 500_000).await;
    assert_eq!((spooled.cursor(), spool.bytes()), (500_000, 500_000));
    spooled.write(500_000, Bytes::from(bytes[500_000..].to_vec())).await.unwrap();
    let verified = spooled.seal(Digest::of(&bytes)).await.unwrap();
    assert_eq!((verified.size(), spool.bytes()), (700_001, 700_001));
}

#[tokio::test]
async fn an_upload_that_is_sealed_as_it_was_left_is_hashed_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content(300_000);
    let spool = Spool::open(folder.path()).unwrap();
    std::fs::write(folder.path().join("uploads/a"), &bytes).unwrap();
    assert_eq!(resumed(&spool, 0).await.seal(Digest::of(&bytes)).await.unwrap().size(), 300_000);
    // It was not published, so it is there still; and a bit that flipped meanwhile is seen.
    let other = Digest::of(b"other");
    let refused = resumed(&spool, 300_000).await.seal(other).await.unwrap_err();
    assert!(matches!(refused, SealError::Mismatch { got } if got == Digest::of(&bytes)));
    let digest = Digest::of_with(Algorithm::Sha512, &bytes);
    assert_eq!(resumed(&spool, 300_000).await.seal(digest).await.unwrap().digest(), digest);
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_gone_at_once_and_its_bytes_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let spooled = spool.begin_upload("a", Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from(content(100_000))).await.unwrap();
    spooled.flush().await.unwrap();
    spooled.discard().await;
    assert!(!folder.path().join("uploads/a").exists());
    assert!(!spooled.revive() && spooled.seal(Digest::of(&content(100_000))).await.is_err());
    assert_eq!(spool.bytes(), 0);
    let spooled = spool.begin_upload("a", Algorithm::Sha256).await.unwrap();
    spooled.write(0, Bytes::from(content(100_000))).await.unwrap();
    spooled.flush().await.unwrap();
    spooled.park();
    assert!(spooled.seal(Digest::of(&content(100_000))).await.is_err(), "it is somebody else's by now");
    assert_eq!(spool.bytes(), 100_000);
    for _ in 0..2 {
        spool.remove_upload("a").await.unwrap();
        assert_eq!(spool.bytes(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Chunks of any size, some of them flushed, with the process ending in between: what came is what is there, in order.
    #[test]
    fn chunks_and_restarts_in_any_order_make_the_blob(
        chunks in proptest::collection::vec((1_usize..200_000, any::<bool>(), any::<bool>()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let whole = content(chunks.iter().map(|(length, ..)| length).sum());
        let folder = tempfile::tempdir().unwrap();
        let sealed = runtime.block_on(async {
            let mut spool = Spool::open(folder.path()).unwrap();
            let mut spooled = spool.begin_upload("a", Algorithm::Sha256).await.unwrap();
            let (mut at, mut acknowledged) = (0, 0);
            for (length, flush, restart) in chunks {
                let end = (at + length).min(whole.len());
                spooled.write(at as u64, Bytes::copy_from_slice(&whole[at..end])).await.unwrap();
                at = end;
                if flush {
                    spooled.flush().await.unwrap();
                    acknowledged = at as u64;
                }
                if restart {
                    drop((spooled, spool));
                    spool = Spool::open(folder.path()).unwrap();
                    spooled = resumed(&spool, acknowledged).await;
                    at = usize::try_from(spooled.cursor()).unwrap();
                    assert!(at as u64 >= acknowledged);
                }
            }
            spooled.write(at as u64, Bytes::copy_from_slice(&whole[at..])).await.unwrap();
            spooled.seal(Digest::of(&whole)).await.map(|verified| verified.size())
        });
        prop_assert_eq!(sealed.unwrap(), whole.len() as u64);
    }
}
