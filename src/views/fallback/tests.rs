use super::*;

fn entry(pattern: &str, tag: &str, fallback: &[&str]) -> BuildCache {
    BuildCache {
        max_size_each: None,
        replaced_grace: BuildCache::REPLACED_GRACE,
        keep_imported: None,
        pattern: pattern.parse().unwrap(),
        tag: tag.parse().unwrap(),
        fallback: fallback.iter().map(|template| template.parse().unwrap()).collect(),
    }
}

#[test]
fn the_first_entry_that_reads_the_tag_says_what_stands_in() {
    let entries = [
        entry("cache/special", "{branch|slug}-{sha:7}", &["{branch|slug}", "main"]),
        entry("cache/**", "buildcache-{branch|slug}", &["{base|slug}", "buildcache-main", "buildcache-main"]),
        entry("cache/**", "{branch|slug}", &["{base|slug}", "main"]),
        entry("cache/**", "{branch}", &["never"]),
    ];
    let referrers = format!("sha256-{}", "0a".repeat(32));
    let signature = format!("{referrers}.sig");
    for (repository, missing, want) in [
        ("cache/special", "x-0123456", &["x", "main"][..]),
        // Not of that form, so it is the third entry's.
        ("cache/special", "x", &["main"]),
        ("cache/app", "buildcache-x", &["buildcache-main"]),
        ("cache/app", "x", &["main"]),
        // Nothing stands in for itself.
        ("cache/app", "main", &[]),
        ("cache/app", &referrers, &[]),
        ("cache/app", &signature, &[]),
        ("cache/app", "sha256-0a", &["main"]),
        ("other/app", "x", &[]),
    ] {
        let found = stand_ins(&entries, repository, &missing.parse().unwrap());
        assert_eq!(found.iter().map(Tag::as_str).collect::<Vec<_>>(), want, "{repository}:{missing}");
    }
}

#[test]
fn what_makes_no_tag_is_left_out() {
    let long = "x".repeat(128);
    let found =
        stand_ins(&[entry("**", "{branch|slug}", &["{branch|slug}-long", "main"])], "a", &long.parse().unwrap());
    assert_eq!(found.iter().map(Tag::as_str).collect::<Vec<_>>(), ["main"]);
}

#[test]
fn an_inline_cache_is_a_key_of_the_configuration() {
    for (config, holds) in [
        (r#"{"architecture":"amd64","moby.buildkit.cache.v0":"eyJsYXllcnMiOltdfQ=="}"#, true),
        (r#"{"moby.buildkit.cache.v0":null}"#, false),
        (r#"{"config":{"moby.buildkit.cache.v0":"x"}}"#, false),
        (r#"{"architecture":"amd64"}"#, false),
        ("[]", false),
        ("", false),
    ] {
        assert_eq!(holds_inline_cache(config.as_bytes()), holds, "{config}");
    }
}
