//! The fields of a webhook.

use http::HeaderName;

/// The field with the [`WebhookId`](crate::WebhookId).
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// The field with the time of the attempt, in seconds after 1970.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// The field with the signatures.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
