//! The folder of segments: which there are, the one that is written to, and which go when.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::segment;
use super::segment::Dictionary;
use super::segment::Entry;
use super::segment::HEADER_BYTES;
use super::segment::Reader;

/// A segment ends at a day's end, or at this size: its names are in memory while it is written or read.
const SEGMENT_BYTES: u64 = 2 << 20;

/// A segment on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// They are counted up; one that is missing leaves a hole.
    number: u64,
    pub(super) path: PathBuf,
    /// What is in it came then or later.
    pub(super) start: Timestamp,
    /// How much of it is written.
    pub(super) bytes: u64,
}

/// The one that is written to: the last.
#[derive(Debug)]
struct Open {
    file: File,
    dictionary: Dictionary,
}

/// All segments. One process has them: the store's folder is locked.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    segments: Vec<Segment>,
    /// The number that the next segment gets.
    next: u64,
    open: Option<Open>,
}

impl Log {
    /// Finds out what is there. What an end without a close left half written is cut off.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let (mut segments, mut next) = (Vec::new(), 0);
        let listed = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?.collect::<Result<Vec<_>, _>>()?,
        };
        for entry in listed {
            let path = entry.path();
            // What is no segment, or one of another version, is left alone; its number is not given again.
            let Some(number) = number_of(&path) else { continue };
            next = next.max(number.saturating_add(1));
            let mut header = [0; HEADER_BYTES];
            let read = File::open(&path)?.read_exact(&mut header);
            if let (Ok(()), Some((start, _))) = (read, segment::split(&header)) {
                segments.push(Segment { number, path, start, bytes: entry.metadata()?.len() });
            }
        }
        segments.sort_by_key(|s| s.number);
        let mut log = Self { folder: folder.to_owned(), segments, next, open: None };
        log.take_up()?;
        Ok(log)
    }

    /// Opens the last segment to go on writing in it.
    fn take_up(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.last_mut() else { return Ok(()) };
        let bytes = std::fs::read(&last.path)?;
        let Some((_, frames)) = segment::split(&bytes) else { return Ok(()) };
        let whole = Reader::new(frames).whole();
        let mut reader = Reader::new(frames.get(..whole).unwrap_or_default());
        reader.whole();
        let file = OpenOptions::new().append(true).open(&last.path)?;
        last.bytes = (HEADER_BYTES + whole) as u64;
        file.set_len(last.bytes)?;
        self.open = Some(Open { file, dictionary: reader.into_dictionary() });
        Ok(())
    }

    /// The moment since which no segment is missing.
    pub(super) fn whole_since(&self) -> Option<Timestamp> {
        let mut newest_first = self.segments.iter().rev();
        let mut whole = newest_first.next()?;
        for older in newest_first {
            if older.number.checked_add(1) != Some(whole.number) {
                break;
            }
            whole = older;
        }
        Some(whole.start)
    }

    /// The number of the last segment.
    pub(super) fn last(&self) -> Option<u64> {
        self.segments.last().map(|s| s.number)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Begins a new segment where there is none to write to, it is full, or its day is over.
    pub(super) fn make_ready(&mut self, now: Timestamp) -> io::Result<()> {
        let fits = self.segments.last().is_some_and(|s| s.bytes < SEGMENT_BYTES && day(s.start) == day(now));
        if self.open.is_some() && fits {
            return Ok(());
        }
        self.sync()?;
        std::fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{}.{}", day(now), self.next));
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let header = segment::header(now);
        if let Err(error) = file.write_all(header.as_bytes()) {
            drop(std::fs::remove_file(&path));
            return Err(error);
        }
        self.segments.push(Segment { number: self.next, path, start: now, bytes: header.len() as u64 });
        self.next += 1;
        self.open = Some(Open { file, dictionary: Dictionary::default() });
        Ok(())
    }

    /// Whether the segment that is written to has the image's name, and with it its size.
    pub(super) fn knows(&self, of: &RepositoryKey, tag: Option<&Tag>, digest: &Digest) -> bool {
        self.open.as_ref().is_some_and(|open| open.dictionary.knows(of, tag, digest))
    }

    /// Writes entries behind the others: all of them or none.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let (Some(open), Some(last)) = (&mut self.open, self.segments.last_mut()) else { return Ok(()) };
        let frame = open.dictionary.frame(entries);
        if let Err(error) = open.file.write_all(&frame) {
            // What was written of it would end the reading there; names that are not there would be counted.
            drop(open.file.set_len(last.bytes));
            self.open = None;
            return Err(error);
        }
        last.bytes += frame.len() as u64;
        Ok(())
    }

    /// Brings what was written to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data())
    }

    /// Removes what is older than `keep`, and the oldest while there is more than `max` bytes. The last one stays.
    pub(super) fn trim(&mut self, now: Timestamp, keep: Duration, max: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        while let [oldest, following, ..] = self.segments.as_slice() {
            if now.since(following.start) < keep && bytes <= max {
                break;
            }
            match std::fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bytes -= oldest.bytes,
            }
            self.segments.remove(0);
        }
        Ok(())
    }
}

/// The day of a moment, as it stands in names of files.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// The number in a segment's name, which is `<day>.<number>`.
fn number_of(path: &Path) -> Option<u64> {
    let (day, number) = path.file_name()?.to_str()?.split_once('.')?;
    (day.len() == 10).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::super::Pull;
    use super::*;

    const START: u64 = 1_790_000_000_000;

    fn pull(n: u8, at: u64) -> Entry {
        let repository = RepositoryKey::from_path("docker.io/library/alpine").unwrap();
        let digest = Digest::of(&[n]);
        Entry::Pull(Pull { at: Timestamp(at), repository, tag: None, digest, bytes: 9, pulls: 1, hits: 0 })
    }

    fn write(log: &mut Log, n: u8, at: u64) {
        log.make_ready(Timestamp(at)).unwrap();
        log.append(&[pull(n, at)]).unwrap();
    }

    fn read(log: &Log) -> Vec<Entry> {
        let mut all = Vec::new();
        for segment in log.segments() {
            let bytes = std::fs::read(&segment.path).unwrap();
            let mut reader = Reader::new(segment::split(&bytes).unwrap().1);
            while let Some(entry) = reader.next() {
                all.push(entry.unwrap());
            }
        }
        all
    }

    #[test]
    fn writing_goes_on_after_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        write(&mut log, 1, START);
        let torn = log.segments()[0].clone();
        write(&mut log, 2, START + 1000);
        drop(log);
        let file = OpenOptions::new().write(true).open(&torn.path).unwrap();
        file.set_len(torn.bytes + 20).unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        assert_eq!(log.bytes(), torn.bytes);
        let key = RepositoryKey::from_path("docker.io/library/alpine").unwrap();
        assert!(log.knows(&key, None, &Digest::of(&[1])) && !log.knows(&key, None, &Digest::of(&[2])));
        for n in [3, 1] {
            write(&mut log, n, START + 2000);
        }
        assert_eq!(read(&log), [pull(1, START), pull(3, START + 2000), pull(1, START + 2000)]);
        assert_eq!(log.segments().len(), 1);
    }

    #[test]
    fn a_day_is_a_segment_and_the_oldest_go() {
        const DAY: u64 = 86_400_000;
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        for n in 0..5_u8 {
            write(&mut log, n, START + u64::from(n) * DAY);
        }
        let names: Vec<_> = log.segments().iter().map(|s| s.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["2026-09-21.0", "2026-09-22.1", "2026-09-23.2", "2026-09-24.3", "2026-09-25.4"]);
        let now = Timestamp(START + 4 * DAY);
        log.trim(now, Duration::from_millis(3 * DAY), u64::MAX).unwrap();
        assert_eq!(log.whole_since(), Some(Timestamp(START + DAY)));
        log.trim(now, Duration::MAX, log.bytes() - 1).unwrap();
        assert_eq!(log.segments().len(), 3);
        // The last one stays, whatever its age.
        log.trim(Timestamp(START + 400 * DAY), Duration::ZERO, 0).unwrap();
        assert_eq!(read(&log), [pull(4, START + 4 * DAY)]);
    }

    #[test]
    fn a_missing_segment_is_noticed_and_its_number_is_not_given_again() {
        const DAY: u64 = 86_400_000;
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        for n in 0..4_u8 {
            write(&mut log, n, START + u64::from(n) * DAY);
        }
        std::fs::remove_file(&log.segments()[1].path).unwrap();
        std::fs::write(folder.path().join("2026-10-01.9"), "larder pulls 9 something else\n").unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        assert_eq!(log.whole_since(), Some(Timestamp(START + 2 * DAY)));
        write(&mut log, 7, START + 9 * DAY);
        assert_eq!(log.last(), Some(10));
        assert_eq!(log.whole_since(), Some(Timestamp(START + 9 * DAY)), "what another version wrote is not known");
        assert!(folder.path().join("2026-10-01.9").exists());
    }
}
