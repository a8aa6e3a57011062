use std::{error::Error, fmt, sync::Arc};

use hyper_util::client::legacy;

use crate::FailureReason;

/// The error of a [`WebhookClient`](crate::WebhookClient). It does not have the URL.
#[derive(Debug, Clone)]
pub struct ClientError {
    reason: FailureReason,
    source: Arc<dyn Error + Send + Sync>,
}

impl ClientError {
    pub(super) fn new(reason: FailureReason, source: impl Error + Send + Sync + 'static) -> Self {
        Self {
            reason,
            source: Arc::new(source),
        }
    }

    /// Returns the error of the connector, if it is the source, or that of the exchange.
    pub(super) fn from_exchange(error: legacy::Error) -> Self {
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<Self>() {
                return error.clone();
            }
            source = error.source();
        }
        Self::new(FailureReason::Exchange, error)
    }

    /// Returns the reason.
    #[must_use]
    pub fn reason(&self) -> FailureReason {
        self.reason
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            FailureReason::Refused => "the target is not allowed",
            FailureReason::Resolve => "the name of the target was not resolved",
            FailureReason::Connect => "the target was not reached",
            FailureReason::Timeout => "the target was not reached in time",
            FailureReason::Tls => "the TLS handshake with the target failed",
            FailureReason::Exchange | FailureReason::Status | FailureReason::Redirect => {
                "the exchange with the target failed"
            }
        })
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
