use proptest::prelude::*;

use super::*;

fn written(time: SystemTime) -> String {
    let mut text = Vec::new();
    push_rfc3339(time, &mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn years_before_1970_and_beyond_9999_are_clamped() {
    assert_eq!(written(UNIX_EPOCH + YEAR_9999), "9999-12-31T23:59:59.000Z");
    assert_eq!(
        written(UNIX_EPOCH + 2 * YEAR_9999),
        "9999-12-31T23:59:59.000Z"
    );
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert!(written(before).starts_with("1970-01-01T00:00:00.00"));
}

#[test]
fn every_day_has_its_date() {
    let mut expected = (1970, 1, 1);
    for days in 0..(YEAR_9999.as_secs() / 86_400) as u32 {
        assert_eq!(date(days), expected, "{days}");
        let (year, month, day) = expected;
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        expected = match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            (_, day) if day == last => (year, month + 1, 1),
            (_, day) => (year, month, day + 1),
        };
    }
}

#[test]
fn a_formatter_changes_its_date_with_the_day() {
    let mut clock = Rfc3339::new();
    for (seconds, text) in [
        (86_399, "1970-01-01T23:59:59.000Z"),
        (86_400, "1970-01-02T00:00:00.000Z"),
        (86_401, "1970-01-02T00:00:01.000Z"),
        (1, "1970-01-01T00:00:01.000Z"),
    ] {
        let at = UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(clock.text(at.into()), text.as_bytes());
    }
}

#[test]
fn digits_after_the_nanoseconds_are_dropped() {
    let time = Some(UNIX_EPOCH + Duration::from_nanos(123_456_789));
    assert_eq!(parse_rfc3339("1970-01-01T00:00:00.1234567899Z"), time);
}

proptest! {
    #[test]
    fn written_times_are_those_of_other_libraries_and_are_read_back(millis in 1..253_402_300_799_000_u64) {
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        prop_assert_eq!(http_date(time), httpdate::fmt_http_date(time));
        prop_assert_eq!(humantime::parse_rfc3339(&written(time)), Ok(time));
        prop_assert_eq!(parse_rfc3339(&written(time)), Some(time));
    }

    #[test]
    fn times_are_read_as_another_library_reads_them(
        text in "(19[67]|20[0-3]|[0-9]{3})[0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|\\+00:00)?",
    ) {
        prop_assert_eq!(parse_rfc3339(&text), humantime::parse_rfc3339(&text).ok());
    }
}
