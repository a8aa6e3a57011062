use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::ClientError;
use crate::FailureReason;

/// The body of a response of a [`WebhookClient`](crate::WebhookClient).
#[derive(Debug)]
pub struct ClientBody(Incoming);

impl ClientBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self(body)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        Pin::new(&mut self.0)
            .poll_frame(context)
            .map_err(|error| ClientError::new(FailureReason::Exchange, error))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
