//! Saying no before there is an operation.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response, Version,
    header::{CONNECTION, EXPECT},
    request::Parts,
};
use http_body::Body;

use super::{collect::discard, policy::Policy};
use crate::{dialect::Fault, operation::WholeBody, run::Refused};

/// Why a request is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    Closed,
    BodyTooLarge,
    BodyTimeout,
    BodyUnreadable,
    /// The operation could not be created.
    Unavailable,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Full,
            Refused::Closed => Self::Closed,
        }
    }
}

impl Refusal {
    /// The answer. HTTP/1 closes the connection where the body's end is out of
    /// reach.
    pub(super) fn response(
        self,
        policy: &Policy,
        version: Version,
        unread: bool,
    ) -> Response<WholeBody> {
        let retry_after = policy.retry_after.retry_after(Duration::ZERO);
        let fault = match self {
            Self::Full => Fault::Overloaded { retry_after },
            Self::Closed => Fault::ShuttingDown { retry_after },
            Self::BodyTooLarge => Fault::BodyTooLarge {
                limit: policy.body_limit,
            },
            Self::BodyTimeout => Fault::BodyTimeout,
            Self::BodyUnreadable => Fault::BodyUnreadable,
            Self::Unavailable => Fault::Unavailable { retry_after },
        };
        let mut response = policy.dialect.fault(&fault);
        fault.add_headers(response.headers_mut());
        let ends_connection = matches!(self, Self::BodyTooLarge | Self::BodyTimeout) && unread;
        if ends_connection && version <= Version::HTTP_11 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Refuses a request of whose body nothing was read.
pub(super) fn refuse_unread<B>(
    policy: &Policy,
    refusal: Refusal,
    parts: &Parts,
    body: B,
) -> Response<WholeBody>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let unread = !body.is_end_stream();
    if unread {
        discard_after(parts, Box::pin(body));
    }
    refusal.response(policy, parts.version, unread)
}

/// Lets an HTTP/1 client finish, unless it is still waiting to begin. HTTP/2
/// resets the stream by itself.
pub(super) fn discard_after<B>(parts: &Parts, rest: Pin<Box<B>>)
where
    B: Body<Data = Bytes> + Send + 'static,
{
    if parts.version <= Version::HTTP_11 && !parts.headers.contains_key(EXPECT) {
        tokio::spawn(discard(rest));
    }
}
