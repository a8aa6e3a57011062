use serde::{Deserialize, Serialize};

/// How far an operation has come, as far as its handler says.
///
/// Every part is optional. `percent` is derived from the count where it is not
/// given.
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

/// What somebody says of a progress, with the bounds of none.
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

/// In bytes.
const UNIT: usize = 64;
const MESSAGE: usize = 1024;

impl Progress {
    /// A share of the work, from 0 to 100. What lies outside is brought in; a
    /// value that is no number is 0.
    #[must_use]
    pub fn from_percent(percent: f64) -> Self {
        let percent = if percent.is_nan() { 0.0 } else { percent };
        Self {
            percent: Some(percent.clamp(0.0, 100.0)),
            ..Self::default()
        }
    }

    /// `completed` of `total` things done.
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

    /// A sentence for people, without a measure; cut after 1,024 bytes.
    #[must_use]
    pub fn from_message(message: impl Into<Box<str>>) -> Self {
        Self::default().with_message(message)
    }

    /// What is counted, for example `pages`; cut after 64 bytes.
    #[must_use]
    pub fn with_unit(mut self, unit: impl Into<Box<str>>) -> Self {
        self.unit = Some(cut(unit.into(), UNIT));
        self
    }

    /// A sentence for people; cut after 1,024 bytes. Stores keep as many of them as
    /// they keep versions.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Box<str>>) -> Self {
        self.message = Some(cut(message.into(), MESSAGE));
        self
    }

    /// The share that is done, from 0 to 100.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        self.percent
    }

    /// How many things are done.
    #[must_use]
    pub fn completed(&self) -> Option<u64> {
        self.completed
    }

    /// How many things there are.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// What is counted.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        [&self.unit, &self.message]
            .into_iter()
            .flatten()
            .map(|text| text.len())
            .sum()
    }
}

/// At most so many bytes of it, in whole characters.
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
