//! The file under the index where its file system takes no writes: what redb writes while it opens the file stays in
//! memory, and the file stays as it is. So what the index knows is known on a full or read-only disk too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::PoisonError;
use std::sync::RwLock;

use redb::StorageBackend;

/// The unit in which writes are kept.
const PAGE_BYTES: u64 = 4096;

/// A file that is read, with what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Option<File>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// How much there seems to be.
    length: u64,
    /// How much of the file still shows: what was cut off once reads as zeros.
    shown: u64,
    /// What was written, by the number of the page.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Over `file`; over nothing where there is none.
    pub(super) fn over(file: Option<File>) -> io::Result<Self> {
        let length = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
        Ok(Self { file, state: RwLock::new(State { length, shown: length, pages: BTreeMap::new() }) })
    }

    /// What the file has from `offset` on; zeros past its end.
    fn below(&self, shown: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(shown.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (read, zeros) = out.split_at_mut(there);
        zeros.fill(0);
        match &self.file {
            Some(file) if !read.is_empty() => file.read_exact_at(read, offset),
            _ => Ok(()),
        }
    }
}

/// The pages that `length` bytes from `offset` on touch: number, first byte within the page, bytes.
fn pages(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(length as u64);
    (offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(move |page| {
        let first = offset.max(page * PAGE_BYTES);
        let last = end.min((page + 1) * PAGE_BYTES);
        // Both are less than a page.
        let within = |bytes: u64| usize::try_from(bytes).unwrap_or_default();
        (page, within(first - page * PAGE_BYTES), within(last - first))
    })
}

fn past_the_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "past the end of the index")
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.read().unwrap_or_else(PoisonError::into_inner).length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if offset.saturating_add(out.len() as u64) > state.length {
            return Err(past_the_end());
        }
        let mut rest = out;
        for (page, first, count) in pages(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(count);
            match state.pages.get(&page).and_then(|written| written.get(first..first + count)) {
                Some(written) => part.copy_from_slice(written),
                None => self.below(state.shown, page * PAGE_BYTES + first as u64, part)?,
            }
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.length = len;
        state.shown = state.shown.min(len);
        drop(state.pages.split_off(&len.div_ceil(PAGE_BYTES)));
        if let Some(last) = state.pages.get_mut(&(len / PAGE_BYTES)) {
            let kept = usize::try_from(len % PAGE_BYTES).unwrap_or_default();
            last.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if offset.saturating_add(data.len() as u64) > state.length {
            return Err(past_the_end());
        }
        let mut rest = data;
        for (page, first, count) in pages(offset, rest.len()) {
            let (part, after) = rest.split_at(count);
            if !state.pages.contains_key(&page) {
                let mut whole = vec![0; usize::try_from(PAGE_BYTES).unwrap_or_default()];
                self.below(state.shown, page * PAGE_BYTES, &mut whole)?;
                state.pages.insert(page, whole);
            }
            let kept = state.pages.get_mut(&page).and_then(|whole| whole.get_mut(first..first + count));
            kept.ok_or_else(past_the_end)?.copy_from_slice(part);
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Deed {
        Write(u64, Vec<u8>),
        Length(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..10_000);
        prop_oneof![
            (0..20_000_u64, bytes).prop_map(|(offset, bytes)| Deed::Write(offset, bytes)),
            (0..30_000_u64).prop_map(Deed::Length),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_reads_as_a_file_would_and_leaves_the_file_alone(
            below in proptest::collection::vec(any::<u8>(), 0..20_000),
            deeds in proptest::collection::vec(deed(), 0..12),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&below).unwrap();
            let overlay = Overlay::over(Some(file.try_clone().unwrap())).unwrap();
            let mut model = below.clone();
            for deed in deeds {
                match deed {
                    Deed::Write(offset, bytes) => {
                        let start = usize::try_from(offset).unwrap();
                        let target = model.get_mut(start..start + bytes.len());
                        prop_assert_eq!(overlay.write(offset, &bytes).is_ok(), target.is_some());
                        if let Some(target) = target {
                            target.copy_from_slice(&bytes);
                        }
                    }
                    Deed::Length(length) => {
                        overlay.set_len(length).unwrap();
                        model.resize(usize::try_from(length).unwrap(), 0);
                    }
                }
                let mut seen = vec![1; model.len()];
                overlay.read(0, &mut seen).unwrap();
                prop_assert!(seen == model);
                prop_assert!(overlay.read(1, &mut vec![0; model.len()]).is_err());
            }
            let mut left = vec![0; below.len()];
            file.read_exact_at(&mut left, 0).unwrap();
            prop_assert!(left == below);
        }
    }

    #[test]
    fn over_nothing_it_is_memory() {
        let overlay = Overlay::over(None).unwrap();
        overlay.set_len(5000).unwrap();
        overlay.write(4090, b"across two").unwrap();
        let mut seen = [1; 12];
        overlay.read(4089, &mut seen).unwrap();
        assert_eq!(&seen, b"\0across two\0");
    }
}
