use std::{
    num::NonZeroU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A time in whole milliseconds after 1970, in eight bytes with a niche for `None`. The API
/// uses `SystemTime`, which is larger; a stored operation has five times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(NonZeroU64);

impl From<SystemTime> for Timestamp {
    /// Converts a time. Times up to the beginning of 1970 become its first millisecond.
    fn from(time: SystemTime) -> Self {
        let millis = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Self(NonZeroU64::new(millis).unwrap_or(NonZeroU64::MIN))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(time.0.get())
    }
}

impl Timestamp {
    /// The length of the text in bytes.
    pub(crate) const LENGTH: usize = "0000-00-00T00:00:00.000Z".len();

    /// Returns the milliseconds after 1970.
    pub(crate) fn millis(self) -> u64 {
        self.0.get()
    }
}

/// A formatter of times after RFC 3339, section 5.6, in UTC with milliseconds. The formatter is
/// written by hand for speed: every poll writes three times. The times are usually of one day,
/// whose date is computed once.
pub(crate) struct Rfc3339 {
    /// The day of the text, counted from the beginning of 1970.
    day: u32,
    text: [u8; Timestamp::LENGTH],
}

impl Rfc3339 {
    pub(crate) fn new() -> Self {
        Self {
            day: 0,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }

    pub(crate) fn text(&mut self, at: Timestamp) -> &[u8; Timestamp::LENGTH] {
        let millis = at.0.get().min(YEAR_9999.as_millis() as u64);
        // The remainders fit into 32 bits, which are cheaper to divide.
        let (seconds, millis) = (millis / 1000, (millis % 1000) as u32);
        let (day, seconds) = ((seconds / 86_400) as u32, (seconds % 86_400) as u32);
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let text = &mut self.text;
        if day != self.day {
            self.day = day;
            let (year, month, day) = date(day);
            put(text, 0, year / 100);
            put(text, 2, year % 100);
            put(text, 5, month);
            put(text, 8, day);
        }
        put(text, 11, minutes / 60);
        put(text, 14, minutes % 60);
        put(text, 17, seconds);
        put(text, 20, millis / 10);
        text[22] = b'0' + (millis % 10) as u8;
        text
    }
}

/// Writes a number of two digits at an index.
fn put(text: &mut [u8; Timestamp::LENGTH], at: usize, number: u32) {
    text[at..at + 2].copy_from_slice(&PAIRS[number as usize]);
}

/// The digits of the numbers from 0 to 99.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [*b"00"; 100];
    let mut number = 0;
    while number < 100 {
        let (tens, ones) = (number / 10, number % 10);
        pairs[number] = [b'0' + tens as u8, b'0' + ones as u8];
        number += 1;
    }
    pairs
};

/// Returns year, month and day from the days since the beginning of 1970. The algorithm is
/// from C. Neri and L. Schneider, *Euclidean affine functions and their application to
/// calendar algorithms* (2022).
fn date(days: u32) -> (u32, u32, u32) {
    const DAYS_IN_400_YEARS: u32 = 146_097;
    // Years are counted from the first of March of the year 0, so that a leap day is
    // the last of its year.
    let quarters = 4 * (days + 719_468) + 3;
    let (century, day_of_century) = (
        quarters / DAYS_IN_400_YEARS,
        quarters % DAYS_IN_400_YEARS / 4,
    );
    // Multiplied by 2^32 / 1461: the upper half is the year, the lower half its remainder.
    let scaled = 2_939_745 * u64::from(4 * day_of_century + 3);
    let (year, rest) = ((scaled >> 32) as u32, scaled as u32);
    let day = rest / 2_939_745 / 4;
    // A month has 30.6 days on average, and 2141 times 30.6 is about 2^16.
    let scaled = 2141 * day + 197_913;
    let (month, rest) = (scaled >> 16, scaled & 0xffff);
    let (month, next_year) = match month {
        13.. => (month - 12, 1),
        _ => (month, 0),
    };
    (100 * century + year + next_year, month, rest / 2141 + 1)
}

/// The last second that RFC 3339 can represent: its years have four digits.
const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);

/// Appends `time` after RFC 3339, section 5.6, in UTC with milliseconds.
pub(crate) fn push_rfc3339(time: SystemTime, out: &mut Vec<u8>) {
    out.extend_from_slice(Rfc3339::new().text(time.into()));
}

/// Parses a time after RFC 3339, section 5.6, in UTC; `None` before 1970.
fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let (seconds, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let rest = (rest.strip_suffix(b"Z")).or_else(|| rest.strip_suffix(b"+00:00"))?;
    let fraction = match rest {
        [] => &[],
        [b'.', fraction @ ..] if fraction.iter().all(u8::is_ascii_digit) => fraction,
        _ => return None,
    };
    let number = |digits: &[u8]| {
        let is_number = digits.iter().all(u8::is_ascii_digit);
        let value = |sum, digit: &u8| sum * 10 + u64::from(digit - b'0');
        is_number.then(|| digits.iter().fold(0, value))
    };
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', time @ ..] = seconds else {
        return None;
    };
    let [h0, h1, b':', min0, min1, b':', s0, s1] = time else {
        return None;
    };
    let (year, month) = (number(&[*y0, *y1, *y2, *y3])?, number(&[*m0, *m1])?);
    let (hour, minute) = (number(&[*h0, *h1])?, number(&[*min0, *min1])?);
    let (day, second) = (number(&[*d0, *d1])?, number(&[*s0, *s1])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_before(year, month, day)?;
    // A leap second counts as the last second of its minute.
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second.min(59);
    let fraction = &fraction[..fraction.len().min(9)];
    let nanos = number(fraction)? * 10_u64.pow(9 - fraction.len() as u32);
    Some(UNIX_EPOCH + Duration::new(seconds, nanos as u32))
}

/// Returns the days from 1970 to a date; `None` if the date does not exist.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [
        31,
        28 + u64::from(is_leap),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let before = lengths.get(..usize::try_from(month).ok()?.checked_sub(1)?)?;
    let length = lengths.get(before.len())?;
    if year < 1970 || !(1..=*length).contains(&day) {
        return None;
    }
    // Every fourth year has a leap day, except three of four century years.
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let leap_days = leaps(year - 1) - leaps(1969);
    Some((year - 1970) * 365 + leap_days + before.iter().sum::<u64>() + day - 1)
}

/// Formats `time` after RFC 9110, section 5.6.7.
pub(crate) fn http_date(time: SystemTime) -> String {
    // 1970 began on a Thursday.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let age = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = age.min(YEAR_9999).as_secs();
    let days = (seconds / 86_400) as u32;
    let (year, month, day) = date(days);
    let (name, month) = (DAYS[days as usize % 7], MONTHS[month as usize - 1]);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Serde for `Option<SystemTime>` as RFC 3339 text.
pub(crate) mod serde_rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de};

    #[allow(clippy::ref_option)] // the signature is serde's
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => {
                let mut text = Vec::with_capacity(24);
                super::push_rfc3339(*time, &mut text);
                serializer.serialize_str(&String::from_utf8_lossy(&text))
            }
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Option::<std::borrow::Cow<'_, str>>::deserialize(deserializer)?
            .map(|text| {
                let time = super::parse_rfc3339(&text);
                time.ok_or_else(|| de::Error::custom("no time in UTC after RFC 3339"))
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests;
