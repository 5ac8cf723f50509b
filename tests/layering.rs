//! Holds the picture in ARCHITECTURE.md: a module imports lower lines only, never a neighbour on its own line.
//!
//! It reads the sources as text, so it sees paths in `use`, in `pub use` and in expressions alike. A group would make a
//! path hard to see, for people too: one module a `use` line.

#![expect(clippy::unwrap_used, reason = "what can't be read fails the test")]
#![expect(clippy::indexing_slicing, reason = "a mistake here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The lines, the lowest first.
const LINES: [&[&str]; 14] = [
    &["oci", "pattern", "body", "clock", "tasks", "schedule"],
    &["config"],
    &["telemetry", "events"],
    &["net"],
    &["store", "upstream"],
    &["repository", "forge", "history", "webhook"],
    &["access", "views"],
    &["cache", "push"],
    &["warm", "retention", "scrub", "migrate"],
    &["report"],
    &["api"],
    &["server"],
    &["cli"],
    &["main"],
];

/// What is decided there is decided from its arguments alone: no waiting, no clock, no chance.
const PURE: [&str; 13] = [
    "oci",
    "pattern",
    "repository/names",
    "access/policy",
    "cache/freshness",
    "cache/evict/plan",
    "cache/evict/popularity",
    "cache/evict/units",
    "retention/plan",
    "retention/replay/past",
    "retention/sizes",
    "warm/missing/matrix",
    "api/route",
];

/// Words that a pure module has no use for.
const IMPURE: [&str; 6] = ["await", "async", "Clock", "Instant", "SystemTime", "fastrand"];

/// Who may speak of HTTP's status codes: whoever answers clients, and whoever is one.
const KNOWS_STATUS: [&str; 6] = ["net", "upstream", "api", "server", "cli", "main"];

fn line(module: &str) -> Option<usize> {
    LINES.iter().position(|line| line.contains(&module))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    PathSeparator,
    Other(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }
}

/// The source's words and signs, without comments, strings and characters.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => i = after_block_comment(&chars, i),
            '"' => i = after_string(&chars, i + 1, None),
            '\'' => {
                // A character, or a lifetime, which goes on without a closing quote.
                if at(i + 1) == '\\' {
                    i += 3;
                    while i < chars.len() && at(i) != '\'' {
                        i += 1;
                    }
                    i += 1;
                } else {
                    i += if at(i + 2) == '\'' { 3 } else { 1 };
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                let start = i;
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let hashes = (i..chars.len()).take_while(|j| at(*j) == '#').count();
                let raw = matches!(word.as_str(), "r" | "br" | "cr") && at(i + hashes) == '"';
                match word.as_str() {
                    _ if raw => i = after_string(&chars, i + hashes + 1, Some(hashes)),
                    "b" | "c" if at(i) == '"' => i = after_string(&chars, i + 1, None),
                    _ => tokens.push(Token::Word(word)),
                }
            }
            ':' if at(i + 1) == ':' => {
                tokens.push(Token::PathSeparator);
                i += 2;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Other(c));
                }
                i += 1;
            }
        }
    }
    tokens
}

fn after_block_comment(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// Where a string ends that goes on at `start`; a raw one ends with a quote and its count of hashes.
fn after_string(chars: &[char], start: usize, raw: Option<usize>) -> usize {
    let mut i = start;
    while i < chars.len() {
        match (chars[i], raw) {
            ('\\', None) => i += 1,
            ('"', None) => return i + 1,
            ('"', Some(hashes)) if (1..=hashes).all(|j| chars.get(i + j) == Some(&'#')) => return i + 1 + hashes,
            _ => {}
        }
        i += 1;
    }
    i
}

/// What is wrong with the source of that module, given by its path from the crate's root.
fn violations(module: &[&str], source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let own = module[0];
    let mut found = Vec::new();
    let Some(own_line) = line(own) else { return vec![format!("`{own}` has no place in the layers")] };
    // Modules that are written within the file, by the depth of their braces.
    let (mut inline, mut depth) = (Vec::new(), 0_usize);
    let mut in_use = false;
    for (i, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(i + ahead);
        let before = |back: usize| i.checked_sub(back).map(|j| &tokens[j]);
        let in_path = before(1) == Some(&Token::PathSeparator) && !before(2).is_some_and(|t| t.is("self"));
        match token {
            // `use<…>` says what a returned type captures.
            Token::Word(word) if word == "use" => in_use = next(1) != Some(&Token::Other('<')),
            Token::Other(';') => in_use = false,
            Token::Other('{') if in_use => found.push("a group in a `use` line hides its paths".to_owned()),
            Token::Other('{') => {
                depth += 1;
                if before(2).is_some_and(|t| t.is("mod")) {
                    inline.push(depth);
                }
            }
            Token::Other('}') if !in_use => {
                inline.pop_if(|opened| *opened == depth);
                depth = depth.saturating_sub(1);
            }
            Token::Word(word) if word == "path" && before(1) == Some(&Token::Other('[')) => {
                found.push("a `path` attribute moves a module out of its place".to_owned());
            }
            Token::Word(word) if !in_path && (word == "crate" || (word == "larder" && own == "main")) => {
                if next(1) == Some(&Token::PathSeparator) {
                    found.extend(reference(own, own_line, next(2)));
                } else if before(1).is_some_and(|t| t.is("use")) {
                    found.push("the crate under another name hides what is imported".to_owned());
                }
            }
            Token::Word(word) if !in_path && word == "super" => {
                let steps = (0..tokens.len()).take_while(|n| next(2 * n).is_some_and(|t| t.is("super"))).count();
                if steps == module.len() + inline.len() {
                    found.extend(reference(own, own_line, next(2 * steps)));
                }
            }
            _ => {}
        }
    }
    found
}

/// What is wrong with naming `target` below the crate's root.
fn reference(own: &str, own_line: usize, target: Option<&Token>) -> Option<String> {
    let Some(Token::Word(target)) = target else {
        return Some(format!("`{own}` imports from the crate's root what can't be told"));
    };
    if target == own {
        return None;
    }
    match line(target) {
        None => Some(format!("`{own}` names `{target}`, which has no place in the layers")),
        Some(other) if other == own_line => Some(format!("`{own}` imports its neighbour `{target}`")),
        Some(other) if other > own_line => Some(format!("`{own}` imports `{target}`, which lies above it")),
        Some(_) => None,
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file with its module's path: `a/b.rs` and `a/b/mod.rs` are both `a`, `b`.
fn sources() -> Vec<(Vec<String>, PathBuf)> {
    let (mut folders, mut found) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inner = path.strip_prefix(root()).unwrap().with_extension("");
                let mut module: Vec<String> = inner.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                module.pop_if(|last| last == "mod");
                found.push((module, path));
            }
        }
    }
    found
}

/// What the check finds in each file; the library's root only lists the modules.
fn check(find: impl Fn(&[&str], &str) -> Vec<String>) {
    let mut found = Vec::new();
    for (module, path) in sources().iter().filter(|(module, _)| module[0] != "lib") {
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        let source = fs::read_to_string(path).unwrap();
        found.extend(find(&module, &source).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn modules_import_lower_lines_only() {
    check(violations);
}

#[test]
fn every_file_belongs_to_a_listed_module() {
    let listed = fs::read_to_string(root().join("lib.rs")).unwrap();
    let modules: BTreeSet<String> = sources().into_iter().map(|(module, _)| module[0].clone()).collect();
    for module in modules.iter().filter(|module| !matches!(module.as_str(), "lib" | "main")) {
        assert!(line(module).is_some(), "`{module}` has no place in the layers");
        assert!(listed.contains(&format!("mod {module};")), "lib.rs does not list `{module}`");
    }
}

#[test]
fn pure_modules_are_pure() {
    check(|module, source| {
        let name = module.join("/");
        let pure = PURE.iter().any(|pure| name == *pure || name.starts_with(&format!("{pure}/")));
        if !pure || module.last() == Some(&"tests") {
            return Vec::new();
        }
        let tokens = tokens(source);
        IMPURE.iter().filter(|word| tokens.iter().any(|token| token.is(word))).map(|word| format!("`{word}`")).collect()
    });
}

#[test]
fn status_codes_stay_at_the_edge() {
    check(|module, source| {
        let named = tokens(source).iter().any(|token| token.is("StatusCode"));
        let wrong = named && !KNOWS_STATUS.contains(&module[0]);
        wrong.then(|| "what a client may learn is decided in `api`".to_owned()).into_iter().collect()
    });
}

#[test]
fn nothing_above_the_store_sees_tree_or_index() {
    check(|module, source| {
        let tokens = tokens(source);
        let inside = tokens.windows(3).any(|three| {
            three[0].is("store") && three[1] == Token::PathSeparator && (three[2].is("tree") || three[2].is("index"))
        });
        let wrong = inside && module[0] != "store";
        wrong.then(|| "`store::Store` is the one door".to_owned()).into_iter().collect()
    });
}

/// The sample must be wrong, for that reason.
#[track_caller]
fn wrong(module: &[&str], source: &str, why: &str) {
    let found = violations(module, source);
    assert!(found.iter().any(|what| what.contains(why)), "{source}\n{found:?}");
}

#[track_caller]
fn right(module: &[&str], source: &str) {
    assert_eq!(violations(module, source), Vec::<String>::new(), "{source}");
}

#[test]
fn it_sees_what_lies_above() {
    wrong(&["store"], "use crate::cache::Cache;", "lies above");
    wrong(&["store", "tree"], "pub use crate::cache::Cache;", "lies above");
    wrong(&["store"], "pub(crate) use crate::cache;", "lies above");
    wrong(&["store"], "fn f() { crate::cache::evict(); }", "lies above");
    wrong(&["store"], "fn f(of: &crate::api::Route) {}", "lies above");
    wrong(&["store"], "use super::cache::Cache;", "lies above");
    wrong(&["store", "tree"], "use super::super::cache::Cache;", "lies above");
    wrong(&["store", "tree"], "use self::super::super::cache::Cache;", "lies above");
    wrong(&["store"], "mod tests { use super::super::cache::Cache; }", "lies above");
    wrong(&["store"], "macro_rules! m { () => { $crate::cache::evict() } }", "lies above");
    wrong(&["store"], "/* crate::oci */ use r#crate::x; use crate /* */ :: cache;", "lies above");
}

#[test]
fn it_sees_neighbours() {
    wrong(&["store"], "use crate::upstream::Upstream;", "neighbour");
    wrong(&["pattern", "glob"], "use crate::oci::Tag;", "neighbour");
}

#[test]
fn it_sees_what_hides_a_path() {
    wrong(&["store"], "use crate::{oci::Digest, cache::Cache};", "group");
    wrong(&["store"], "use crate::oci::{Digest, Tag};", "group");
    wrong(&["store"], "use crate::*;", "can't be told");
    wrong(&["store"], "use super::*;", "can't be told");
    wrong(&["store"], "use crate as all;", "another name");
    wrong(&["store"], "#[path = \"../cache/mod.rs\"] mod cache;", "path");
}

#[test]
fn it_sees_modules_without_a_place() {
    wrong(&["utils"], "", "no place");
    wrong(&["store"], "use crate::utils::join;", "no place");
}

#[test]
fn it_lets_the_rest_be() {
    right(&["cache"], "use crate::store::Store;\nuse crate::upstream::Upstream;\nuse crate::cache::Served;");
    right(&["store", "tree"], "use super::Error; mod tests { use super::*; use super::super::Store; }");
    right(&["store"], "mod a { mod b { use super::super::Store; } } use super::oci::Tag;");
    right(&["store"], "// crate::cache\n/* crate::api /* nested */ crate::api */ const S: &str = \"crate::cache\";");
    right(&["store"], "const S: &str = r#\"\"crate::cache\"#; const C: [char; 3] = ['\"', '\\'', '{']; fn f<'a>() {}");
    right(&["store"], "/// [`crate::cache`]\npub(in crate::store) fn f() {} const B: &[u8] = b\"{ crate::cache\";");
    right(&["store"], "fn f() -> impl Future<Output = ()> + use<> { async {} }");
    right(&["main"], "fn main() { larder::cli::run() }");
    right(&["cli"], "use larder::cache;");
}
