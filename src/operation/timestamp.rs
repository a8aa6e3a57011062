use std::{
    num::NonZeroU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A moment in whole milliseconds after 1970, in eight bytes with room for
/// `None`. The API speaks `SystemTime`; a stored operation has five of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(NonZeroU64);

impl From<SystemTime> for Timestamp {
    /// What is not after 1970 becomes its first millisecond.
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

/// The last moment that RFC 3339 can write: its years have four digits.
const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);

/// `time` after RFC 3339, section 5.6, in UTC with milliseconds.
pub(crate) fn rfc3339(time: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(time.clamp(UNIX_EPOCH, UNIX_EPOCH + YEAR_9999))
}

/// `time` after RFC 9110, section 5.6.7.
pub(crate) fn http_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time.clamp(UNIX_EPOCH, UNIX_EPOCH + YEAR_9999))
}

/// Serde for `Option<SystemTime>` as RFC 3339 text.
pub(super) mod serde_rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de};

    #[allow(clippy::ref_option)] // the signature is serde's
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(&super::rfc3339(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Option::<std::borrow::Cow<'_, str>>::deserialize(deserializer)?
            .map(|text| humantime::parse_rfc3339(&text).map_err(de::Error::custom))
            .transpose()
    }
}
