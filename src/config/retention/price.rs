//! Money, counted without fractions.

use std::fmt;

use crate::config::table::Table;
use crate::config::value::Value;

/// One GiB in bytes.
const GIB: u128 = 1 << 30;

/// An amount in millionths of whatever the configuration counts in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub u64);

/// What bytes cost. Zero where nothing is said: then no money is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// One GiB that is kept for a month.
    pub storage_gib_month: Money,
    /// One GiB that leaves.
    pub egress_gib: Money,
}

impl Price {
    pub(in crate::config) fn read(&mut self, table: &mut Table<'_>) {
        table.set("storage_gib_month", &mut self.storage_gib_month, |value: &Value<'_>| value.parsed(Money::parse));
        table.set("egress_gib", &mut self.egress_gib, |value: &Value<'_>| value.parsed(Money::parse));
    }

    /// What it costs to keep so many bytes for a month; none where there is no price.
    pub fn storage(&self, bytes: u64) -> Option<Money> {
        self.storage_gib_month.times(bytes)
    }

    /// What it costs that so many bytes leave; none where there is no price.
    pub fn egress(&self, bytes: u64) -> Option<Money> {
        self.egress_gib.times(bytes)
    }
}

impl Money {
    /// Reads an amount, `0.10`, with up to six digits behind the point.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a price; write a number like 0.10, with at most six digits behind the point");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return Err(wrong());
        }
        let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
        let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1_000_000));
        whole.and_then(|whole| whole.checked_add(part)).map(Self).ok_or_else(wrong)
    }

    /// This amount for each GiB of so many bytes; none where it is nothing.
    fn times(self, bytes: u64) -> Option<Self> {
        let total = u128::from(self.0) * u128::from(bytes) / GIB;
        (self.0 > 0).then(|| Self(u64::try_from(total).unwrap_or(u64::MAX)))
    }
}

/// To the hundredth; what is less than that and not nothing as `<0.01`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0 / 10_000;
        if hundredths == 0 && self.0 > 0 {
            return f.write_str("<0.01");
        }
        write!(f, "{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::Money;
    use super::Price;

    #[test]
    fn prices_are_read_to_the_millionth() {
        for (text, want) in [("0.10", Some(100_000)), ("3", Some(3_000_000)), ("0.000001", Some(1)), ("0", Some(0))] {
            assert_eq!(Money::parse(text).ok(), want.map(Money), "{text}");
        }
        for text in ["", ".1", "1.", "-1", "1e3", "0.1234567", "99999999999999999999"] {
            assert!(Money::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_cost_what_their_gibibytes_do() {
        let price = Price { storage_gib_month: Money(100_000), egress_gib: Money(0) };
        assert_eq!(price.storage(50 << 30).map(|money| money.to_string()).as_deref(), Some("5.00"));
        assert_eq!(price.storage(1 << 20).map(|money| money.to_string()).as_deref(), Some("<0.01"));
        assert_eq!(price.storage(0).map(|money| money.to_string()).as_deref(), Some("0.00"));
        assert_eq!(price.egress(50 << 30), None);
    }
}
