//! Sizes in bytes as people write them: `256MiB`, `50GiB`, `1.5TiB`, `10GB`; and shares in percent.

/// Units from the largest to the smallest. The decimal ones are read and never written.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a size in bytes. A number without a unit is a number of bytes; a fraction needs a unit.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write a number with its unit, like 256MiB or 50GiB");
    let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at_checked(end).ok_or_else(wrong)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let scale = match unit {
        "" => 1,
        _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale).ok_or_else(|| near(text, unit))?,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.is_empty() == number.contains('.') || fraction.len() > 6 || (scale == 1 && !fraction.is_empty()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let bytes = whole.checked_mul(scale).ok_or_else(wrong)?;
    bytes.checked_add(part(fraction, scale).ok_or_else(wrong)?).ok_or_else(wrong)
}

/// The bytes of a decimal fraction of a unit, rounded down.
fn part(fraction: &str, scale: u64) -> Option<u64> {
    if fraction.is_empty() {
        return Some(0);
    }
    let digits: u64 = fraction.parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    let product = u128::from(digits) * u128::from(scale) / 10_u128.pow(places);
    u64::try_from(product).ok()
}

/// The message for a unit that is not one, with the likely one where there is one (`50G`, `50gib`).
fn near(text: &str, unit: &str) -> String {
    let wanted = unit.to_ascii_lowercase();
    let likely = UNITS.iter().find(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name == wanted || name.strip_suffix("ib") == Some(wanted.as_str())
    });
    match likely {
        Some((name, _)) => {
            format!("`{text}` is not a size; did you mean {}{name}?", text.trim_end_matches(unit).trim_end())
        }
        None => {
            format!("`{text}` is not a size; write a number with its unit (KiB MiB GiB TiB, kB MB GB TB), like 50GiB")
        }
    }
}

/// Writes a size in the largest unit that keeps it exact, as [`parse`] reads it.
pub fn show(bytes: u64) -> String {
    let exact = UNITS.iter().take(4).find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
    match exact {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

/// Reads a share in whole percent, `25%`.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub fn percent(text: &str) -> Result<u8, String> {
    let wrong = || format!("`{text}` is not a share; write a whole number of percent from 0% to 100%");
    let number: u8 = text.strip_suffix('%').and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    if number > 100 { Err(wrong()) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use super::percent;
    use super::show;
    use proptest::prelude::any;
    use proptest::prop_assert_eq;
    use proptest::proptest;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("1B", 1),
            ("256MiB", 256 << 20),
            ("50GiB", 50 << 30),
            ("50 GiB", 50 << 30),
            ("1.5KiB", 1_536),
            ("2TiB", 2 << 40),
            ("10kB", 10_000),
            ("10GB", 10_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "50 bananas", "-1GiB", "1.5", "1.GiB", "1..5GiB", ".5GiB", "99999999999TiB", "50  GiB"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_unit_that_is_nearly_one_is_answered_with_it() {
        assert_eq!(parse("50G"), Err("`50G` is not a size; did you mean 50GiB?".to_owned()));
        assert_eq!(parse("50gib"), Err("`50gib` is not a size; did you mean 50GiB?".to_owned()));
        assert_eq!(parse("50mb"), Err("`50mb` is not a size; did you mean 50MB?".to_owned()));
    }

    #[test]
    fn shares_are_whole_percent() {
        assert_eq!(percent("25%"), Ok(25));
        for text in ["", "25", "101%", "-1%", "2.5%", "%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes in any::<u64>(), shift in 0_u32..40) {
            let bytes = bytes >> 20 >> shift << shift;
            prop_assert_eq!(parse(&show(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
            let _ = percent(&text);
        }
    }
}
