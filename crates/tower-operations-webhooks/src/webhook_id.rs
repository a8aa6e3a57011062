use std::{fmt, str::FromStr};

use tower_operations::{OperationId, store::Version};

/// The maximum length of an id in bytes.
const MAX_LENGTH: usize = 512;

/// The id of a webhook, the field `webhook-id`: the same on each retry and each redelivery, so that a
/// receiver can ignore repetitions.
///
/// An id has 1 to 512 visible ASCII characters without `.`. A `.` separates the parts of what is signed,
/// so an id with one could move bytes between the parts of a webhook under the same signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebhookId(Box<str>);

impl WebhookId {
    /// Derives the id of the webhook about an operation at a version, usually that at which the
    /// operation ended. Different operations and versions have different ids.
    ///
    /// ```
    /// use tower_operations::store::Version;
    /// use tower_operations_webhooks::WebhookId;
    ///
    /// let id = WebhookId::for_operation(&"invoice-2026.11".parse()?, Version::FIRST);
    /// assert_eq!(id.as_str(), "invoice-2026~2e11_1");
    /// # Ok::<(), tower_operations::InvalidId>(())
    /// ```
    #[must_use]
    pub fn for_operation(id: &OperationId, version: Version) -> Self {
        let mut text = String::new();
        for byte in id.to_string().bytes() {
            // `~` begins an escape, so it is escaped itself.
            match byte.is_ascii_graphic() && !b".~".contains(&byte) {
                true => text.push(char::from(byte)),
                false => text.push_str(&format!("~{byte:02x}")),
            }
        }
        Self(format!("{text}_{}", version.get()).into())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebhookId {
    type Err = InvalidWebhookId;

    fn from_str(text: &str) -> Result<Self, InvalidWebhookId> {
        if text.is_empty() {
            return Err(InvalidWebhookId::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(InvalidWebhookId::TooLong);
        }
        if text.contains('.') {
            return Err(InvalidWebhookId::Dot);
        }
        match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.into())),
            false => Err(InvalidWebhookId::Character),
        }
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The reason why a text is not a [`WebhookId`]. The text is not repeated: it may be long or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWebhookId {
    /// The text is empty.
    #[error("a webhook id must not be empty")]
    Empty,
    /// The text has more than 512 bytes.
    #[error("a webhook id has at most {MAX_LENGTH} characters")]
    TooLong,
    /// The text has a `.`.
    #[error("a webhook id has no '.'")]
    Dot,
    /// The text has a character that is not visible ASCII.
    #[error("a webhook id consists of visible ASCII characters")]
    Character,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_are_judged() {
        assert!(
            "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
                .parse::<WebhookId>()
                .is_ok()
        );
        for (text, expected) in [
            ("", InvalidWebhookId::Empty),
            ("a.b", InvalidWebhookId::Dot),
            ("a b", InvalidWebhookId::Character),
            ("a\r\nb", InvalidWebhookId::Character),
            ("é", InvalidWebhookId::Character),
            (&"a".repeat(513), InvalidWebhookId::TooLong),
        ] {
            assert_eq!(text.parse::<WebhookId>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn derived_ids_are_valid_and_different() {
        let ids = [
            "a", "a.b", "a~2eb", "a~7e2eb", "a~.b", "a.~b", "a_1", "...", "a-b",
        ];
        let versions = [1, 2, 11, u64::MAX].map(|number| Version::from_number(number).unwrap());
        let mut seen = HashSet::new();
        for id in ids {
            for version in versions {
                let derived = WebhookId::for_operation(&id.parse().unwrap(), version);
                assert_eq!(derived.as_str().parse(), Ok(derived.clone()));
                assert!(seen.insert(derived));
            }
        }
        // A store can have an id that was valid for an earlier release.
        let stored = OperationId::from_stored("ü \r\n/").unwrap();
        let derived = WebhookId::for_operation(&stored, versions[0]);
        assert_eq!(derived.as_str(), "~c3~bc~20~0d~0a/_1");
        assert_eq!(derived.as_str().parse(), Ok(derived));
        // The longest id of an operation, with as many escapes as possible.
        let longest = ".".repeat(128).parse().unwrap();
        let derived = WebhookId::for_operation(&longest, versions[3]);
        assert!(derived.as_str().parse::<WebhookId>().is_ok());
    }
}
