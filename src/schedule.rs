//! Times that come again, as cron writes them, in a time zone. Pure: it is told the time and says the next one.
//!
//! Moments are milliseconds since the Unix epoch. In the hour that daylight saving skips, a time of day counts at the
//! hour's end; in the hour that comes twice, once.

use std::fmt;

use croner::Cron;
use croner::parser::CronParser;
use croner::parser::Year;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time zone by its name in the IANA database, which is built in: a container has none.
#[derive(Clone, Debug)]
pub struct TimeZoneName {
    name: String,
    zone: TimeZone,
}

impl Default for TimeZoneName {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl TimeZoneName {
    /// Looks a zone up.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let zone = TimeZone::get(name).map_err(|_| {
            format!("`{name}` is not a time zone; write UTC, or a name of the IANA database like Europe/Berlin")
        })?;
        Ok(Self { name: name.to_owned(), zone })
    }
}

impl PartialEq for TimeZoneName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TimeZoneName {}

impl fmt::Display for TimeZoneName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// Times that come again: `17 3 * * *` is each night at 3:17.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    zone: TimeZoneName,
    cron: Cron,
}

impl Schedule {
    /// Reads a schedule of five fields (minute, hour, day of the month, month, day of the week), of six with seconds in
    /// front, or a name like `@daily`.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would be right.
    pub fn parse(text: &str, zone: &TimeZoneName) -> Result<Self, String> {
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            format!("`{text}` is not a schedule ({error}); write minute, hour, day, month and weekday, like 17 3 * * *")
        })?;
        let schedule = Self { text: text.to_owned(), zone: zone.clone(), cron };
        // What no calendar has is found by search, at any start.
        if schedule.next_after(0).is_none() {
            return Err(format!("`{text}` never comes: there is no such day"));
        }
        Ok(schedule)
    }

    /// The first time after a moment, both in milliseconds since the Unix epoch; none where the calendar ends.
    pub fn next_after(&self, moment: u64) -> Option<u64> {
        let moment = Timestamp::from_millisecond(i64::try_from(moment).ok()?).ok()?;
        let next = self.cron.find_next_occurrence(&moment.to_zoned(self.zone.zone.clone()), false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.zone) == (&other.text, &other.zone)
    }
}

impl Eq for Schedule {}

impl fmt::Debug for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Schedule")
            .field("text", &self.text)
            .field("zone", &self.zone.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use super::TimeZoneName;
    use proptest::prelude::any;
    use proptest::prop_assert;
    use proptest::proptest;

    fn moment(text: &str) -> u64 {
        u64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule, &TimeZoneName::parse(zone).unwrap()).unwrap();
        let next = schedule.next_after(moment(after)).unwrap();
        jiff::Timestamp::from_millisecond(i64::try_from(next).unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_that_of_the_zone() {
        for (schedule, zone, after, want) in [
            ("17 3 * * *", "UTC", "2026-11-24T03:16:59Z", "2026-11-24T03:17:00Z"),
            ("17 3 * * *", "UTC", "2026-11-24T03:17:00Z", "2026-11-25T03:17:00Z"),
            ("17 3 * * *", "Europe/Berlin", "2026-11-24T00:00:00Z", "2026-11-24T02:17:00Z"),
            ("0 6 * * 1-5", "America/New_York", "2026-11-27T12:00:00Z", "2026-11-30T11:00:00Z"),
            ("@daily", "UTC", "2026-11-24T12:00:00Z", "2026-11-25T00:00:00Z"),
            ("*/30 * * * * *", "UTC", "2026-11-24T12:00:01Z", "2026-11-24T12:00:30Z"),
            ("0 4 29 2 *", "UTC", "2026-11-24T12:00:00Z", "2028-02-29T04:00:00Z"),
        ] {
            assert_eq!(next(schedule, zone, after), want, "{schedule} in {zone} after {after}");
        }
    }

    #[test]
    fn daylight_saving_skips_no_night_and_repeats_none() {
        // 29 March 2026: 2:00 becomes 3:00. 25 October 2026: 3:00 becomes 2:00.
        let spring = next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z");
        assert!(spring.starts_with("2026-03-29T01:"), "{spring}");
        let autumn = next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z");
        assert!(autumn.starts_with("2026-10-25T0"), "{autumn}");
        let after = next("30 2 * * *", "Europe/Berlin", &autumn);
        assert_eq!(after, "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_an_example() {
        for text in ["", "daily", "60 3 * * *", "17 3 * *", "17 3 * * * * 2030", "17 3 * * 8", "@sometimes"] {
            let message = Schedule::parse(text, &TimeZoneName::default()).expect_err(text);
            assert!(message.contains("17 3 * * *"), "{message}");
        }
        let message = Schedule::parse("0 3 30 2 *", &TimeZoneName::default()).expect_err("30 February");
        assert!(message.contains("never comes"), "{message}");
        let message = TimeZoneName::parse("Europe/Berln").expect_err("no such place");
        assert!(message.contains("Europe/Berlin"), "{message}");
    }

    proptest! {
        #[test]
        fn the_next_time_lies_ahead(after in 0_u64..4_102_444_800_000, hour in 0_u8..24, minute in 0_u8..60) {
            let zone = TimeZoneName::parse("America/Sao_Paulo").unwrap();
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), &zone).unwrap();
            let next = schedule.next_after(after).unwrap();
            prop_assert!(next > after && next - after <= 26 * 3_600_000);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = Schedule::parse(&text, &TimeZoneName::default());
        }
    }
}
