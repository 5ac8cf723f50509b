//! Durations as people write them: `30s`, `10m`, `1h30m`, `30d`.

use std::fmt::Write as _;
use std::time::Duration;

/// Units from the longest to the shortest, in milliseconds.
const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration: one number with its unit, or a sum of them (`1h30m`). A bare `0` is none at all.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write a number with its unit, like 30s, 10m, 1h30m or 30d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(letters).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.checked_mul(*scale).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

/// Writes a duration as [`parse`] reads it, in whole milliseconds: `1h30m`, `500ms`, `0s`.
pub fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in UNITS {
        // Weeks read badly when they are not asked for: 30d, not 4w2d.
        if unit == "w" && !rest.is_multiple_of(scale) {
            continue;
        }
        let count = rest / scale;
        if count > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, "{count}{unit}");
            rest %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use super::show;
    use proptest::prelude::any;
    use proptest::prop_assert_eq;
    use proptest::proptest;
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("0", 0),
            ("0s", 0),
            ("1s", 1),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5_400),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "soon", "10", "m", "1 h", "-1s", "1y", "1.5h", "99999999999999999999s", "10000000000000w"] {
            let message = parse(text).expect_err(text);
            assert!(message.contains("1h30m"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in 0_u64..u64::from(u32::MAX) * 1_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
