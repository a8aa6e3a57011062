//! What a client is told of its operation.

use std::{sync::Arc, time::Duration};

use http::{Response, Version};
use tracing::{Span, field::display};

use super::{
    lent_body::RemainingBody,
    mode::ReplyKind,
    policy::Policy,
    refuse::{Refusal, refuse_given_up},
};
use crate::{
    dialect::{Context, Urls, whole_seconds},
    operation::{BufferedBody, FailureKind, Operation, RecordedResponse, Snapshot, Status},
    store::Record,
};

/// What a client is told of the operation that its request is.
pub(super) enum AcceptAnswer {
    New(CreatedOperation),
    /// An earlier request made it.
    Repeated(CreatedOperation, Urls),
    /// An earlier request was answered with this.
    Answered(Arc<RecordedResponse>),
}

/// Whether a request has become an operation, and why not.
pub(super) type AcceptVerdict = Result<AcceptAnswer, Refusal>;

/// An operation as it was created, whatever has happened since.
///
/// It is no record, so that the store has the only one while its work begins, and can
/// change that in place.
pub(super) struct CreatedOperation(Operation<RecordedResponse>);

impl CreatedOperation {
    pub(super) fn of(record: &Record<RecordedResponse>) -> Self {
        let operation = record.operation();
        let (stage, metadata) = (Status::Pending, operation.metadata().as_created());
        Self(Operation::from_parts(
            operation.id().clone(),
            Snapshot { stage, metadata },
        ))
    }
}

/// Where the answer is worded.
pub(super) struct AcceptResponder {
    policy: Arc<Policy>,
    urls: Urls,
    version: Version,
}

impl AcceptResponder {
    pub(super) fn new(policy: Arc<Policy>, urls: Urls, version: Version) -> Self {
        Self {
            policy,
            urls,
            version,
        }
    }

    pub(super) fn answer(&self, verdict: &AcceptVerdict) -> (Response<BufferedBody>, ReplyKind) {
        match verdict {
            // The first releases kept those too, which end or break a connection.
            Ok(AcceptAnswer::Answered(kept)) if !kept.is_final() => {
                self.answer(&Err(Refusal::Failed(FailureKind::InnerError)))
            }
            Ok(accepted) => self.accepted(accepted),
            Err(refusal) => {
                let response = refusal.response(&self.policy, self.version, false);
                (response, ReplyKind::Refused)
            }
        }
    }

    /// Refuses a request whose call was given up.
    pub(super) fn refuse(
        &self,
        refusal: &Refusal,
        rest: &RemainingBody,
    ) -> (Response<BufferedBody>, ReplyKind) {
        let response = refuse_given_up(&self.policy, refusal, self.version, rest);
        (response, ReplyKind::Refused)
    }

    fn accepted(&self, accepted: &AcceptAnswer) -> (Response<BufferedBody>, ReplyKind) {
        // A repetition gets what the first request got.
        let (CreatedOperation(operation), urls) = match accepted {
            AcceptAnswer::New(created) => (created, &self.urls),
            AcceptAnswer::Repeated(created, urls) => (created, urls),
            AcceptAnswer::Answered(answer) => return (answer.to_response(), ReplyKind::Kept),
        };
        // The request's, as far as whoever is outside gave it one that wants to know.
        Span::current().record("operation.id", display(operation.id()));
        let policy = &self.policy;
        let mut context = Context::new(urls, &policy.shared.replay);
        context.retry_after = Some(whole_seconds(
            policy.shared.retry_after.retry_after(Duration::ZERO),
        ));
        let mut response = policy.shared.dialect.accepted(&operation.view(), &context);
        response.extensions_mut().insert(operation.id().clone());
        (response, ReplyKind::Accepted)
    }
}

#[cfg(test)]
mod tests {
    use crate::run::RunLimits;
    use http::StatusCode;

    use super::*;

    fn repeated(status: u16) -> Response<BufferedBody> {
        let mut response = Response::new(BufferedBody::from("kept"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let kept = Arc::new(RecordedResponse::new(response));
        let urls = Urls::new("/operations/q3");
        let policy = Policy::new(Arc::default(), RunLimits::default(), false);
        let front = AcceptResponder::new(Arc::new(policy), urls, Version::HTTP_11);
        front.answer(&Ok(AcceptAnswer::Answered(kept))).0
    }

    #[test]
    fn an_answer_that_was_kept_and_is_not_final_is_never_sent() {
        for status in [100, 101, 103, 600] {
            assert_eq!(repeated(status).status(), StatusCode::BAD_GATEWAY);
        }
        assert_eq!(repeated(409).body().data(), "kept");
    }
}
