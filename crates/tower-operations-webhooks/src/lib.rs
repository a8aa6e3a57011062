#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod addresses;
mod attempt;
mod attempt_outcome;
#[cfg(feature = "client")]
mod client;
mod event;
mod event_body;
mod header_names;
mod host;
mod key_id;
mod retry_after;
mod retry_schedule;
mod secret;
mod secrets;
mod target;
mod target_policy;
mod timeouts;
mod verify;
mod webhook_id;

use std::time::{SystemTime, UNIX_EPOCH};

pub use attempt::Attempt;
pub use attempt_outcome::{AttemptOutcome, FailureReason};
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub use client::{
    ClientBody, ClientBuildError, ClientError, Resolve, ResponseFuture, WebhookClient,
    WebhookClientBuilder,
};
pub use event::Event;
pub use event_body::EventBody;
pub use header_names::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP};
pub use key_id::{InvalidKeyId, KeyId};
pub use retry_schedule::RetrySchedule;
pub use secret::{InvalidSecret, Secret};
pub use secrets::Secrets;
pub use target::{Target, TargetError};
pub use target_policy::TargetPolicy;
pub use verify::{VerifiedWebhook, VerifyError, verify, verify_at};
pub use webhook_id::{InvalidWebhookId, WebhookId};

/// Returns the whole seconds after 1970; 0 before.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}
