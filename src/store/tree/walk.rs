//! All files below a folder, some at a time, on the blocking pool.

use std::fs::ReadDir;
use std::path::Path;
use std::path::PathBuf;

use futures_util::StreamExt as _;
use futures_util::stream;
use futures_util::stream::BoxStream;

use super::Result;
use super::filesystem::failed;
use super::filesystem::is_absence;

/// Entries that one step reads: a folder of a million files must not be in memory as a whole.
const STEP: usize = 1000;

/// The folders that are being read, the innermost last.
type Open = Vec<(PathBuf, ReadDir)>;

/// What `look` makes of each file below `root`, in no order; it runs on the blocking pool. What can't be read is an error of
/// the stream: what else comes must not be taken for all there is. A root that is not there has no files.
pub(super) fn walk<T: Send + 'static>(
    root: PathBuf,
    look: impl Fn(PathBuf) -> Option<Result<T>> + Clone + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let begin = Some((Vec::new(), Some(root), look));
    stream::unfold(begin, |state| async move {
        let (open, root, look) = state?;
        let looking = look.clone();
        match tokio::task::spawn_blocking(move || step(open, root, looking)).await {
            Ok((found, open)) => Some((stream::iter(found), (!open.is_empty()).then_some((open, None, look)))),
            Err(error) => {
                let error = failed("listing", Path::new("the tree"), std::io::Error::other(error));
                Some((stream::iter(vec![Err(error)]), None))
            }
        }
    })
    .flatten()
    .boxed()
}

fn step<T>(
    mut open: Open,
    root: Option<PathBuf>,
    look: impl Fn(PathBuf) -> Option<Result<T>>,
) -> (Vec<Result<T>>, Open) {
    let mut found = Vec::new();
    if let Some(root) = root {
        enter(root, &mut open, &mut found);
    }
    for _ in 0..STEP {
        let Some((folder, entries)) = open.last_mut() else { break };
        let Some(entry) = entries.next() else {
            open.pop();
            continue;
        };
        let looked = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
        match looked {
            Ok((path, kind)) if kind.is_dir() => enter(path, &mut open, &mut found),
            Ok((path, _)) => found.extend(look(path)),
            Err(error) => found.push(Err(failed("listing", folder, error))),
        }
    }
    (found, open)
}

fn enter<T>(folder: PathBuf, open: &mut Open, found: &mut Vec<Result<T>>) {
    match std::fs::read_dir(&folder) {
        Ok(entries) => open.push((folder, entries)),
        // It went meanwhile.
        Err(error) if is_absence(&error) => {}
        Err(error) => found.push(Err(failed("listing", &folder, error))),
    }
}
