//! What a registry has: repositories with tags and manifests, made by hand or by chance.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use larder::oci::Digest;
use larder::retention::remote::Doomed;

/// Chance that is the same for the same seed.
pub type Random = fastrand::Rng;

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// When the first manifest was pushed, in seconds; each further one a minute later.
pub const START: u64 = 1_700_000_000;

/// A manifest.
#[derive(Clone, Debug)]
pub struct Held {
    pub bytes: Vec<u8>,
    pub media_type: &'static str,
    pub children: Vec<Digest>,
    pub subject: Option<Digest>,
    pub id: u64,
    /// In seconds.
    pub pushed: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub tags: BTreeMap<String, Digest>,
    pub manifests: BTreeMap<Digest, Held>,
    /// What was deleted, in its order: tags, and manifests by digest.
    pub deleted_tags: Vec<String>,
    pub deleted_manifests: Vec<Digest>,
}

impl Repository {
    pub fn tags_of(&self, digest: &Digest) -> Vec<String> {
        self.tags.iter().filter(|(_, of)| *of == digest).map(|(tag, _)| tag.clone()).collect()
    }

    pub fn delete_tag(&mut self, tag: &str) -> Option<Digest> {
        let digest = self.tags.remove(tag)?;
        self.deleted_tags.push(tag.to_owned());
        Some(digest)
    }

    /// With every tag that means it.
    pub fn delete_manifest(&mut self, digest: &Digest) -> bool {
        for tag in self.tags_of(digest) {
            self.delete_tag(&tag);
        }
        if self.manifests.remove(digest).is_none() {
            return false;
        }
        self.deleted_manifests.push(*digest);
        true
    }

    pub fn by_id(&self, id: u64) -> Option<Digest> {
        self.manifests.iter().find(|(_, held)| held.id == id).map(|(digest, _)| *digest)
    }

    /// What these manifests need: what they name, all the way down, and what refers to any of it.
    pub fn closure(&self, roots: impl IntoIterator<Item = Digest>) -> BTreeSet<Digest> {
        let mut all = BTreeSet::new();
        let mut next: Vec<Digest> = roots.into_iter().collect();
        while let Some(digest) = next.pop() {
            if !self.manifests.contains_key(&digest) || !all.insert(digest) {
                continue;
            }
            next.extend(&self.manifests[&digest].children);
            let refers =
                |held: &&Digest| self.manifests[*held].subject == Some(digest) && self.tags_of(held).is_empty();
            next.extend(self.manifests.keys().filter(refers));
        }
        all
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub repositories: BTreeMap<String, Repository>,
    pub ids: u64,
    /// The tags on a page of a list.
    pub page: usize,
}

impl Model {
    pub fn page(&self) -> usize {
        if self.page == 0 { 100 } else { self.page }
    }

    pub fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    fn put(&mut self, repository: &str, media_type: &'static str, document: &serde_json::Value) -> Digest {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let digests = |value: &serde_json::Value| -> Vec<Digest> {
            let list = value.as_array().cloned().unwrap_or_default();
            list.iter().map(|entry| entry["digest"].as_str().unwrap().parse().unwrap()).collect()
        };
        let subject = document["subject"]["digest"].as_str().map(|text| text.parse().unwrap());
        let children = digests(&document["manifests"]);
        self.ids += 1;
        let held = Held { bytes, media_type, children, subject, id: self.ids, pushed: START + self.ids * 60 };
        self.repository(repository).manifests.entry(digest).or_insert(held);
        digest
    }

    /// An image; `salt` makes it another one.
    pub fn image(&mut self, repository: &str, salt: &str, layers: &[u64], subject: Option<Digest>) -> Digest {
        let blob = |seed: String| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(seed.as_bytes()).to_string(), "size": seed.len() * 1000,
            })
        };
        let layers: Vec<_> = layers.iter().map(|layer| blob(format!("layer {layer}"))).collect();
        let mut config = blob(format!("config {salt}"));
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let mut document =
            serde_json::json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers});
        if let Some(subject) = subject {
            document["subject"] = serde_json::json!({"mediaType": IMAGE, "digest": subject.to_string(), "size": 1});
        }
        self.put(repository, IMAGE, &document)
    }

    pub fn index(&mut self, repository: &str, salt: &str, children: &[Digest]) -> Digest {
        let held = &self.repository(repository).manifests;
        let entries: Vec<_> = children
            .iter()
            .map(|child| {
                let (kind, size) = held.get(child).map_or((IMAGE, 1), |held| (held.media_type, held.bytes.len()));
                serde_json::json!({"mediaType": kind, "digest": child.to_string(), "size": size})
            })
            .collect();
        let document = serde_json::json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": entries, "annotations": {"salt": salt},
        });
        self.put(repository, INDEX, &document)
    }

    pub fn tag(&mut self, repository: &str, tag: &str, digest: Digest) {
        self.repository(repository).tags.insert(tag.to_owned(), digest);
    }

    /// A repository by chance: images that share layers, indexes of them and of each other, what refers to any of these, and
    /// tags, several of which mean the same.
    pub fn by_chance(&mut self, name: &str, random: &mut Random) {
        let mut all: Vec<Digest> = Vec::new();
        for number in 0..=random.u64(0..5) {
            let layers: Vec<u64> = (0..=random.u64(0..3)).map(|_| random.u64(0..5)).collect();
            all.push(self.image(name, &format!("{name} {number}"), &layers, None));
        }
        for number in 0..random.u64(0..4) {
            let mut children: Vec<Digest> = (0..=random.u64(0..3)).map(|_| *random.choice(&all).unwrap()).collect();
            if random.u64(0..4) == 0 {
                // An index may name what nobody pushed.
                children.push(Digest::of(format!("missing {number}").as_bytes()));
            }
            all.push(self.index(name, &format!("{name} {number}"), &children));
        }
        for number in 0..random.u64(0..4) {
            let subject = *random.choice(&all).unwrap();
            all.push(self.image(name, &format!("{name} sbom {number}"), &[9], Some(subject)));
        }
        for number in 0..=random.u64(0..7) {
            let digest = *random.choice(&all).unwrap();
            self.tag(name, &format!("t{number}"), digest);
        }
    }

    /// Some of it, as a plan would name it.
    pub fn doom(&mut self, name: &str, random: &mut Random) -> Vec<Doomed> {
        let repository = self.repository(name);
        let mut doomed: Vec<Doomed> = Vec::new();
        for (tag, digest) in &repository.tags {
            if random.u64(0..5) < 3 {
                doomed.push(Doomed::Tag { tag: tag.parse().unwrap(), digest: *digest });
            }
        }
        for digest in repository.manifests.keys() {
            if repository.tags_of(digest).is_empty() && random.u64(0..5) < 3 {
                doomed.push(Doomed::Untagged { digest: *digest });
            }
        }
        doomed
    }
}
