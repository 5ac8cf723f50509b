use proptest::prelude::*;

use super::*;

fn template(text: &str) -> Template {
    text.parse().unwrap()
}

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn values_are_written_as_the_template_says() {
    let known = variables(&[("branch", "feature/Ünïcode x"), ("sha", SHA), ("owner", "acme"), ("repo", "app")]);
    for (text, want) in [
        ("main", Some("main")),
        ("{branch}", Some("feature/Ünïcode x")),
        ("{branch|slug}", Some("feature-n-code-x")),
        ("{branch|ref_slug}", Some("feature--n-code-x")),
        ("{sha:7}-x", Some("0123456-x")),
        ("{sha}", Some(SHA)),
        ("ghcr.io/{owner}/{repo}:{branch|slug}", Some("ghcr.io/acme/app:feature-n-code-x")),
        ("{base|slug}", None),
    ] {
        assert_eq!(template(text).render(&known).as_deref(), want, "{text}");
    }
    // A short commit is no whole one, and what is no commit is none.
    let short = variables(&[("sha", "0123456"), ("branch", "///")]);
    assert_eq!(template("{sha:7}").render(&short).as_deref(), Some("0123456"));
    for text in ["{sha}", "{sha:8}", "{branch|ref_slug}"] {
        assert_eq!(template(text).render(&short), None, "{text}");
    }
    assert_eq!(template("{sha:7}").render(&variables(&[("sha", &"g".repeat(40))])), None);
    assert_eq!(template("{sha:7}").render(&variables(&[("sha", &"0".repeat(41))])), None);
    assert_eq!(template("{branch}").render(&variables(&[("branch", "")])), None);
}

#[test]
fn a_slug_is_metadata_actions_and_gitlabs() {
    let (long, shortened, freed) = ("a".repeat(70), "a".repeat(63), "a".repeat(62));
    let cut = format!("{}--{}", "a".repeat(62), "b");
    for (branch, metadata_action, gitlab) in [
        ("main", "main", "main"),
        ("feature/x", "feature-x", "feature-x"),
        ("Feature//X", "Feature-X", "feature--x"),
        ("renovate/node-20.x", "renovate-node-20.x", "renovate-node-20-x"),
        ("a_b", "a_b", "a-b"),
        ("-x-", "-x-", "x"),
        (
            "dependabot/npm_and_yarn/@types/node",
            "dependabot-npm_and_yarn-types-node",
            "dependabot-npm-and-yarn--types-node",
        ),
        ("/", "-", ""),
        (&long, &long, &shortened),
        // Cut first, then freed of what it ends with.
        (&cut, &cut, &freed),
        ("\u{212a}elvin", "-elvin", "kelvin"),
    ] {
        assert_eq!(slug(branch), metadata_action, "{branch}");
        assert_eq!(ref_slug(branch), gitlab, "{branch}");
    }
}

#[test]
fn a_name_is_read_back() {
    let full = format!("main-{SHA}");
    for (text, name, want) in [
        ("main", "main", Some(vec![])),
        ("main", "main2", None),
        ("{branch|slug}", "feature-x", Some(vec![("branch", "feature-x")])),
        ("{branch|slug}", "feature/x", None),
        ("{branch}", "a/b", None),
        ("{branch|slug}-{sha:7}", "feature-x-0123456", Some(vec![("branch", "feature-x"), ("sha", "0123456")])),
        ("{branch|slug}-{sha:7}", "feature-x-012345", None),
        ("{branch|slug}-{sha:7}", "feature-x-01234567", None),
        ("{branch|slug}-{sha:7}", "feature-x-012345G", None),
        ("{branch|slug}-{sha:7}", "feature-x-ABCDEF0", None),
        ("{branch|slug}-{sha:7}", "-0123456", None),
        ("{branch|slug}-{sha}", &full, Some(vec![("branch", "main"), ("sha", SHA)])),
        ("{sha:7}-{branch}", "0123456-x", Some(vec![("branch", "x"), ("sha", "0123456")])),
        ("{sha:7}{branch}", "0123456x", Some(vec![("branch", "x"), ("sha", "0123456")])),
        ("{branch|ref_slug}", "feature-x", Some(vec![("branch", "feature-x")])),
        ("{branch|ref_slug}", "Feature-x", None),
        ("{branch|ref_slug}", "-x", None),
        ("{branch|ref_slug}", "x-", None),
        ("pr-{number}", "pr-7", Some(vec![("number", "7")])),
        ("pr-{number}", "pr-", None),
        // The variable further left takes as much as it can.
        ("{a}-{b}", "x-y-z", Some(vec![("a", "x-y"), ("b", "z")])),
        ("{a}{b}", "xyz", Some(vec![("a", "xy"), ("b", "z")])),
        ("{a}-{b|ref_slug}", "x-y--z", Some(vec![("a", "x-y-"), ("b", "z")])),
        (
            "ghcr.io/{owner}/{repo}:{branch|slug}",
            "ghcr.io/acme/app:x",
            Some(vec![("branch", "x"), ("owner", "acme"), ("repo", "app")]),
        ),
        ("ghcr.io/{owner}/{repo}", "ghcr.io/acme/team/app", None),
        ("cache/{repo}", "cache/", None),
        ("{branch}", "", None),
        ("{branch}", "é", None),
    ] {
        assert_eq!(template(text).split(name), want.map(|pairs| variables(&pairs)), "{text} on {name}");
    }
    let (long, longer) = ("a".repeat(63), "a".repeat(64));
    assert!(template("{branch|ref_slug}").split(&long).is_some());
    assert_eq!(template("{branch|ref_slug}").split(&longer), None);
    assert_eq!(template("{branch}").split(&"a".repeat(BYTES_MAX + 1)), None);
}

#[test]
fn what_is_no_template_is_refused() {
    let twice = TemplateError::Twice("branch".to_owned());
    for (text, error) in [
        ("", TemplateError::Empty),
        (&*"a".repeat(BYTES_MAX + 1), TemplateError::Long),
        ("{branch", TemplateError::Brace),
        ("branch}", TemplateError::Brace),
        ("{a{b}", TemplateError::Name("a{b".to_owned())),
        ("{}", TemplateError::Name(String::new())),
        ("{Branch}", TemplateError::Name("Branch".to_owned())),
        ("{branch|}", TemplateError::Filter(String::new())),
        ("{branch|slag}", TemplateError::Filter("slag".to_owned())),
        ("{branch:7}", TemplateError::Length("branch:7".to_owned())),
        ("{sha:0}", TemplateError::Length("sha:0".to_owned())),
        ("{sha:3}", TemplateError::Length("sha:3".to_owned())),
        ("{sha:41}", TemplateError::Length("sha:41".to_owned())),
        ("{sha:07}", TemplateError::Length("sha:07".to_owned())),
        ("{sha:7|slug}", TemplateError::Filtered("sha:7|slug".to_owned())),
        ("{branch}-{branch|slug}", twice),
        ("a*", TemplateError::Character('*')),
        ("a b", TemplateError::Character(' ')),
    ] {
        assert_eq!(text.parse::<Template>(), Err(error), "{text}");
    }
}

/// Templates as people write them, and odder ones.
fn any_template() -> impl Strategy<Value = Template> {
    let part = proptest::sample::select(vec![
        "{a}",
        "{b|slug}",
        "{c|ref_slug}",
        "{sha:7}",
        "-",
        "x",
        ".",
        "/",
        ":",
        "main",
        "{d}",
        "{e|ref_slug}",
    ]);
    proptest::collection::vec(part, 1..8)
        .prop_filter_map("a variable stands twice", |parts| parts.concat().parse().ok())
}

/// A reading in the slow and sure way: every end of every part is tried, the furthest first.
fn slowly(parts: &[Part], text: &str) -> Option<Variables> {
    let Some((first, rest)) = parts.split_first() else { return text.is_empty().then(Variables::new) };
    for end in (0..=text.len()).rev() {
        let (value, after) = text.split_at(end);
        let (fits, name) = match first {
            Part::Literal(literal) => (**literal == *value, None),
            Part::Variable { name, form } => {
                let plain = !value.contains(['/', ':']) && value.bytes().all(|b| b.is_ascii_graphic());
                (plain && form.written(value).as_deref() == Some(value), Some(name))
            }
        };
        if fits && let Some(mut found) = slowly(rest, after) {
            found.extend(name.map(|name| (name.to_string(), value.to_owned())));
            return Some(found);
        }
    }
    None
}

proptest! {
    #[test]
    fn what_was_read_back_is_written_as_it_was(template in any_template(), name in "[-a-z0-9A.:/x]{0,24}") {
        let found = template.split(&name);
        prop_assert_eq!(&found, &slowly(&template.parts, &name), "{} on {}", template, name);
        if let Some(found) = found {
            prop_assert_eq!(template.render(&found), Some(name));
        }
    }

    #[test]
    fn what_was_written_is_read_back_to_the_same_name(
        template in any_template(),
        values in proptest::collection::vec("[-a-zA-Z0-9_./ é]{1,12}", 5),
        sha in "[0-9a-f]{40}",
    ) {
        let names = ["a", "b", "c", "d", "e"].into_iter().zip(&values).map(|(name, value)| (name.to_owned(), value.clone()));
        let mut known: Variables = names.collect();
        known.insert("sha".to_owned(), sha);
        // A value that is not filtered may hold what no segment does; then there is no reading.
        let crosses = ["a", "d"].iter().any(|name| known.get(*name).is_some_and(|value| !value.bytes().all(|b| Form::Plain.may_hold(b))));
        if let Some(name) = template.render(&known) && !crosses {
            let found = template.split(&name);
            prop_assert!(found.is_some(), "{template} does not read {name}");
            prop_assert_eq!(found.and_then(|found| template.render(&found)), Some(name));
        }
    }

    #[test]
    fn filters_change_nothing_that_they_made(value in ".{0,80}") {
        prop_assert_eq!(slug(&slug(&value)), slug(&value));
        prop_assert_eq!(ref_slug(&ref_slug(&value)), ref_slug(&value));
        prop_assert!(ref_slug(&value).len() <= REF_SLUG_BYTES_MAX);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}", name in ".{0,40}") {
        if let Ok(template) = text.parse::<Template>() {
            drop(template.split(&name));
            prop_assert_eq!(template.to_string().parse::<Template>(), Ok(template));
        }
    }
}

#[test]
fn no_template_makes_reading_explode() {
    let text = ('a'..='z').map(|c| format!("{{{c}}}-")).collect::<Vec<_>>().concat();
    assert_eq!(template(&text).split(&"-".repeat(BYTES_MAX)).map(|found| found.len()), Some(26));
    assert_eq!(template(&text).split(&"a".repeat(BYTES_MAX)), None);
}
