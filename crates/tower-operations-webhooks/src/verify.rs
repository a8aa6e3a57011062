use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};

use crate::{
    Secrets, WebhookId,
    header_names::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP},
    secrets::SIGNATURE_VERSION,
    unix_seconds,
};

/// A webhook whose signature and time were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedWebhook {
    id: WebhookId,
    timestamp: SystemTime,
}

impl VerifiedWebhook {
    /// Returns the id. Webhooks with the same id are repetitions.
    #[must_use]
    pub fn id(&self) -> &WebhookId {
        &self.id
    }

    /// Returns the time of the attempt, in whole seconds.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        self.timestamp
    }
}

/// Verifies that a webhook was signed with one of the secrets, not longer ago than the tolerance, by
/// Standard Webhooks 1.0.0. Five minutes are a usual tolerance.
///
/// The body is the body as it was received, before any parsing. Signatures of versions other than `v1`
/// are ignored.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use http::HeaderMap;
/// use tower_operations_webhooks::{Secret, Secrets, VerifyError, verify};
///
/// let secrets = Secrets::new(Secret::generate());
/// let (id, now) = ("msg_1".parse()?, SystemTime::now());
/// let seconds = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
///
/// let mut headers = HeaderMap::new();
/// headers.insert("webhook-id", "msg_1".parse()?);
/// headers.insert("webhook-timestamp", seconds.into());
/// headers.insert("webhook-signature", secrets.sign(&id, now, b"{}").parse()?);
///
/// let tolerance = Duration::from_secs(300);
/// assert_eq!(verify(&headers, b"{}", &secrets, tolerance)?.id(), &id);
/// assert_eq!(
///     verify(&headers, b"[]", &secrets, tolerance),
///     Err(VerifyError::NoMatchingSignature),
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`VerifyError`] says why the webhook is not accepted.
pub fn verify(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &Secrets,
    tolerance: Duration,
) -> Result<VerifiedWebhook, VerifyError> {
    verify_at(headers, body, secrets, tolerance, SystemTime::now())
}

/// Verifies a webhook as [`verify`] does, as if the time were `now`.
///
/// # Errors
/// [`VerifyError`] says why the webhook is not accepted.
pub fn verify_at(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &Secrets,
    tolerance: Duration,
    now: SystemTime,
) -> Result<VerifiedWebhook, VerifyError> {
    let id: WebhookId = parsed(headers, &WEBHOOK_ID, |text| text.parse().ok())?;
    let seconds = parsed(headers, &WEBHOOK_TIMESTAMP, number)?;
    let signatures = parsed(headers, &WEBHOOK_SIGNATURE, |text| Some(signatures(text)))?;
    let timestamp = UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or(VerifyError::InvalidHeader(WEBHOOK_TIMESTAMP))?;

    let now = unix_seconds(now);
    if Duration::from_secs(now.saturating_sub(seconds)) > tolerance {
        return Err(VerifyError::TooOld);
    }
    if Duration::from_secs(seconds.saturating_sub(now)) > tolerance {
        return Err(VerifyError::TooNew);
    }
    let is_signed = secrets
        .iter()
        .any(|secret| secret.matches_any(&signatures, (&id, seconds, body)));
    match is_signed {
        true => Ok(VerifiedWebhook { id, timestamp }),
        false => Err(VerifyError::NoMatchingSignature),
    }
}

/// Parses the value of a field that has to occur once.
fn parsed<'a, T>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    parse: impl FnOnce(&'a str) -> Option<T>,
) -> Result<T, VerifyError> {
    let mut values = headers.get_all(name).iter();
    let value = values
        .next()
        .ok_or(VerifyError::MissingHeader(name.clone()))?;
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.and_then(parse)
        .ok_or(VerifyError::InvalidHeader(name.clone()))
}

/// Parses a number of digits alone, and in the form in which it is signed: without leading zeros.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = !text.starts_with('0') || text == "0";
    text.parse().ok().filter(|_| is_plain && is_canonical)
}

/// The length of an HMAC-SHA-256 in bytes.
const SIGNATURE_LENGTH: usize = 32;

/// Returns the signatures of the supported version, and of their length.
fn signatures(text: &str) -> Vec<Vec<u8>> {
    text.split(' ')
        .filter_map(|entry| entry.split_once(','))
        .filter(|(version, _)| *version == SIGNATURE_VERSION)
        .filter_map(|(_, signature)| STANDARD.decode(signature).ok())
        .filter(|signature| signature.len() == SIGNATURE_LENGTH)
        .collect()
}

/// The reason why a webhook is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A field is missing.
    #[error("the field {0} is missing")]
    MissingHeader(HeaderName),
    /// A field occurs more than once, or has no valid value.
    #[error("the field {0} is invalid")]
    InvalidHeader(HeaderName),
    /// The webhook was sent longer ago than the tolerance.
    #[error("the webhook is too old")]
    TooOld,
    /// The webhook was sent later than now, by more than the tolerance.
    #[error("the webhook is from the future")]
    TooNew,
    /// No signature is that of one of the secrets.
    #[error("the webhook has no matching signature")]
    NoMatchingSignature,
}

#[cfg(test)]
mod tests;
