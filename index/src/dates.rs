//! [`DateSpan`]: dates and times as they are written, and the instants that they cover.

use tantivy::DateTime;
use tantivy::time::format_description::well_known::Rfc3339;
use tantivy::time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// The instants from the start of a year, month, day or time up to the start of the next, in nanoseconds since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DateSpan {
    /// the first instant
    pub(crate) first: i128,
    /// the first instant after it
    pub(crate) end: i128,
}

impl DateSpan {
    /// Parses `2020`, `2020-02`, `2020-02-29` or a time of RFC 3339, which covers its last digit: a second, or less with decimals.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > "2020-02-29".len() {
            let first = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
            let decimals =
                text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
            return Some(Self { first, end: first + 10_i128.pow(9 - decimals.min(9) as u32) });
        }
        let mut parts = text.split('-');
        let year = number(parts.next()?, 4)?;
        let month = parts.next().map(|part| number(part, 2));
        let day = parts.next().map(|part| number(part, 2));
        if parts.next().is_some() {
            return None;
        }
        let next = match (month, day) {
            (None, _) => (year + 1, 1),
            (Some(month), _) if month? == 12 => (year + 1, 1),
            (Some(month), _) => (year, month? + 1),
        };
        let first = midnight(year, month.unwrap_or(Some(1))?, day.unwrap_or(Some(1))?)?;
        let end = match day {
            Some(_) => first + NANOS_PER_DAY,
            // the library ends with the year 9999
            None => midnight(next.0, next.1, 1).unwrap_or(i128::MAX),
        };
        Some(Self { first, end })
    }
}

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// A number of so many digits.
fn number(text: &str, digits: usize) -> Option<u16> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn midnight(year: u16, month: u16, day: u16) -> Option<i128> {
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    Some(PrimitiveDateTime::new(date, Time::MIDNIGHT).assume_utc().unix_timestamp_nanos())
}

/// The instant as tantivy keeps it, in 64 bits; `None` outside the years 1677 to 2262.
pub(crate) fn of_nanos(nanos: i128) -> Option<DateTime> {
    Some(DateTime::from_timestamp_nanos(i64::try_from(nanos).ok()?))
}

/// The nearest instant that tantivy can keep.
pub(crate) fn clamped(nanos: i128) -> DateTime {
    DateTime::from_timestamp_nanos(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// The instant in RFC 3339.
pub(crate) fn to_text(date: DateTime) -> String {
    date.into_utc().format(&Rfc3339).unwrap_or_else(|_| format!("{date:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_covers_its_last_part() {
        for (text, first, end) in [
            ("2020", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ("2020-02", "2020-02-01T00:00:00Z", "2020-03-01T00:00:00Z"),
            ("2020-12", "2020-12-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ("2020-02-29", "2020-02-29T00:00:00Z", "2020-03-01T00:00:00Z"),
            ("2020-02-29T12:30:00+02:00", "2020-02-29T10:30:00Z", "2020-02-29T10:30:01Z"),
            ("2020-02-29T12:30:00.25Z", "2020-02-29T12:30:00.250Z", "2020-02-29T12:30:00.260Z"),
        ] {
            let nanos = |text: &str| DateSpan::parse(text).unwrap().first;
            assert_eq!(DateSpan::parse(text), Some(DateSpan { first: nanos(first), end: nanos(end) }), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "20",
            "2020-",
            "2020-2",
            "2020-13",
            "2020-02-30",
            "2020-02-29-1",
            "20200229",
            "2020-02-29T25:00:00Z",
            "+020",
        ] {
            assert_eq!(DateSpan::parse(text), None, "{text}");
        }
    }

    #[test]
    fn instants_outside_64_bits_are_clamped() {
        let early = DateSpan::parse("0001").unwrap().first;
        assert_eq!(of_nanos(early), None);
        assert_eq!(clamped(early), DateTime::from_timestamp_nanos(i64::MIN));
        assert_eq!(to_text(of_nanos(DateSpan::parse("2020-02-29").unwrap().first).unwrap()), "2020-02-29T00:00:00Z");
    }
}
