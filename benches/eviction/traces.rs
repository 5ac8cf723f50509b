//! The histories, as requests for images and moves of tags.

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

/// Seconds since 1970 at which a history without times begins, and how long it lasts.
const BEGIN: u64 = 1_497_916_800;
const THREE_DAYS: u64 = 3 * 86_400;

/// A request for an image, by a tag where it has one.
pub struct Request {
    /// Seconds since 1970.
    pub at: u64,
    pub tag: Option<usize>,
    pub image: usize,
}

/// A history.
pub struct Trace {
    pub name: &'static str,
    /// Whether images and tags are known; else each blob is an image of its own.
    pub has_images: bool,
    /// The bytes of each blob.
    pub sizes: Vec<u64>,
    /// The blobs of each image, each once.
    pub images: Vec<Vec<usize>>,
    pub requests: Vec<Request>,
    /// When which tag came to mean which images, in order.
    pub moves: Vec<(u64, usize, Vec<usize>)>,
    pub tags: usize,
}

impl Trace {
    /// The bytes of all blobs that are asked for.
    pub fn unique(&self) -> u64 {
        let asked: HashSet<usize> = self.requests.iter().flat_map(|r| &self.images[r.image]).copied().collect();
        asked.iter().map(|blob| self.sizes[*blob]).sum()
    }
}

/// Every blob that was asked for in one region of a cloud's registry, in three days of 2017. There are no sizes, so each is one.
pub fn of_a_cloud_registry(file: &Path) -> Trace {
    let text = unpacked("zstd", file);
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut order = Vec::new();
    for blob in text.lines().filter_map(|line| line.rsplit_once("/blobs/")) {
        let next = numbers.len();
        order.push(*numbers.entry(blob.1).or_insert(next));
    }
    let all = order.len() as u64;
    let request = |(n, image)| Request { at: BEGIN + n as u64 * THREE_DAYS / all, tag: None, image };
    Trace {
        name: "A cloud's registry",
        has_images: false,
        sizes: vec![1; numbers.len()],
        images: (0..numbers.len()).map(|blob| vec![blob]).collect(),
        requests: order.into_iter().enumerate().map(request).collect(),
        moves: Vec::new(),
        tags: 0,
    }
}

/// A year of pulls of the official images, with their real sizes and moves of tags.
pub fn of_official_images(images: &Path, pulls: &Path) -> Trace {
    let mut sizes = Vec::new();
    for row in rows(&images.join("layers.csv.gz")) {
        assert_eq!(row[0], sizes.len().to_string());
        sizes.push(row[2].parse().unwrap());
    }
    let (mut layers, mut of_amd64): (Vec<Vec<usize>>, HashSet<usize>) = Default::default();
    for row in rows(&images.join("manifests.csv.gz")) {
        if row[3] == "linux; amd64" {
            of_amd64.insert(layers.len());
        }
        let mut seen = HashSet::new();
        layers.push(numbers(&row[9]).filter(|layer| seen.insert(*layer)).collect());
    }
    let mut tags: HashMap<String, usize> = HashMap::new();
    let mut requests = Vec::new();
    for row in rows(&pulls.join("pulls_s1_40d_150t.csv.gz")) {
        let next = tags.len();
        let tag = *tags.entry(format!("{}:{}", row[1], row[2])).or_insert(next);
        requests.push(Request { at: row[0].parse().unwrap(), tag: Some(tag), image: row[3].parse().unwrap() });
    }
    let mut moves = Vec::new();
    for row in rows(&images.join("tag_events.csv.gz")) {
        let Some(tag) = tags.get(&format!("{}:{}", row[1], row[2])) else { continue };
        let means: Vec<usize> = numbers(&row[5]).filter(|image| of_amd64.contains(image)).collect();
        // A tag that was away for a while is pulled as it was before.
        if !means.is_empty() {
            moves.push((row[0].parse().unwrap(), *tag, means));
        }
    }
    let tags = tags.len();
    Trace { name: "Docker's official images", has_images: true, sizes, images: layers, requests, moves, tags }
}

fn numbers(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.split_ascii_whitespace().map(|number| number.parse().unwrap())
}

/// The rows of a table behind its headings. No cell of these tables has a comma in it.
fn rows(file: &Path) -> Vec<Vec<String>> {
    let text = unpacked("gzip", file);
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn unpacked(program: &str, file: &Path) -> String {
    let output = Command::new(program).arg("-dc").arg(file).output().unwrap();
    assert!(output.status.success(), "{program} -dc {}: {}", file.display(), output.status);
    String::from_utf8(output.stdout).unwrap()
}
