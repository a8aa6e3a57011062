use serde::{Deserialize, Serialize};

/// The progress of an operation, as its handler reports it.
///
/// Every part is optional. [`from_count`](Self::from_count) derives `percent` from the
/// count.
///
/// ```
/// use tower_operations::Progress;
///
/// let progress = Progress::from_count(2, 5).with_unit("pages").with_message("rendering");
/// assert_eq!(
///     serde_json::to_string(&progress).unwrap(),
///     r#"{"percent":40.0,"completed":2,"total":5,"unit":"pages","message":"rendering"}"#,
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "UncheckedProgress")]
pub struct Progress {
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Box<str>>,
}

/// A deserialized progress before its limits are applied.
#[derive(Deserialize)]
struct UncheckedProgress {
    percent: Option<f64>,
    completed: Option<u64>,
    total: Option<u64>,
    unit: Option<Box<str>>,
    message: Option<Box<str>>,
}

impl From<UncheckedProgress> for Progress {
    fn from(said: UncheckedProgress) -> Self {
        Self {
            percent: said
                .percent
                .and_then(|percent| Self::from_percent(percent).percent),
            completed: said.completed,
            total: said.total,
            unit: said.unit.map(|unit| cut(unit, UNIT)),
            message: said.message.map(|message| cut(message, MESSAGE)),
        }
    }
}

/// The maximum lengths, in bytes.
const UNIT: usize = 64;
const MESSAGE: usize = 1024;

impl Progress {
    /// Creates a progress from the share of the work that is done, from 0 to 100. Values
    /// outside this range are clamped; NaN becomes 0.
    #[must_use]
    pub fn from_percent(percent: f64) -> Self {
        let percent = if percent.is_nan() { 0.0 } else { percent };
        Self {
            percent: Some(percent.clamp(0.0, 100.0)),
            ..Self::default()
        }
    }

    /// Creates a progress of `completed` out of `total` things, with the percentage that
    /// follows unless `total` is 0.
    #[must_use]
    pub fn from_count(completed: u64, total: u64) -> Self {
        Self {
            completed: Some(completed),
            total: Some(total),
            ..match total {
                0 => Self::default(),
                total => Self::from_percent(100.0 * completed as f64 / total as f64),
            }
        }
    }

    /// Creates a progress with only a sentence for people, truncated to 1,024 bytes.
    #[must_use]
    pub fn from_message(message: impl Into<Box<str>>) -> Self {
        Self::default().with_message(message)
    }

    /// Sets the unit of the count, for example `pages`, truncated to 64 bytes.
    #[must_use]
    pub fn with_unit(mut self, unit: impl Into<Box<str>>) -> Self {
        self.unit = Some(cut(unit.into(), UNIT));
        self
    }

    /// Sets a sentence for people, truncated to 1,024 bytes. Stores keep the message with
    /// every version that they keep.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Box<str>>) -> Self {
        self.message = Some(cut(message.into(), MESSAGE));
        self
    }

    /// Returns the share of the work that is done, from 0 to 100.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        self.percent
    }

    /// Returns the number of things that are done.
    #[must_use]
    pub fn completed(&self) -> Option<u64> {
        self.completed
    }

    /// Returns the total number of things.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns the unit of the count.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// Returns the sentence for people.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the size on the heap in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        [&self.unit, &self.message]
            .into_iter()
            .flatten()
            .map(|text| text.len())
            .sum()
    }
}

/// Truncates `text` to at most `at_most` bytes, at a character boundary.
pub(crate) fn cut(text: Box<str>, at_most: usize) -> Box<str> {
    match text.len() > at_most {
        true => {
            let fits = (0..=at_most).rev().find(|&end| text.is_char_boundary(end));
            text[..fits.unwrap_or_default()].into()
        }
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let progress =
            Progress::from_message("\u{1f980}".repeat(1000)).with_unit("\u{fc}".repeat(33));
        assert_eq!(progress.message().map(str::len), Some(1024));
        assert_eq!(progress.unit().map(str::len), Some(64));
        let said = format!(r#"{{"percent":200,"message":"{}"}}"#, "x".repeat(2000));
        let said: Progress = serde_json::from_str(&said).unwrap();
        assert_eq!(said.message().map(str::len), Some(1024));
        assert_eq!(said.percent(), Some(100.0));
        let odd = format!("x{}", "\u{1f980}".repeat(1000));
        assert_eq!(
            Progress::from_message(odd).message().map(str::len),
            Some(1021)
        );
    }

    #[test]
    fn percent_is_a_number_from_0_to_100() {
        for (given, kept) in [
            (-1.0, 0.0),
            (40.5, 40.5),
            (101.0, 100.0),
            (f64::NAN, 0.0),
            (f64::INFINITY, 100.0),
        ] {
            assert_eq!(Progress::from_percent(given).percent(), Some(kept));
        }
        assert_eq!(Progress::from_count(0, 0).percent(), None);
        assert_eq!(Progress::from_count(7, 5).percent(), Some(100.0));
    }
}
