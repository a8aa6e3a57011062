//! Answering an accepted request.

use std::{sync::Arc, time::Duration};

use http::{Response, Version};
use tracing::{Span, field::display};

use super::{
    lent_body::RemainingBody,
    mode::ReplyKind,
    policy::Policy,
    refuse::{Refusal, refuse_given_up},
    submission::AcceptResult,
};
use crate::{
    dialect::{Context, Urls, whole_seconds},
    operation::{
        BufferedBody, FailureKind, Metadata, Operation, RecordedResponse, Snapshot, Status,
    },
    run::has_subscriber,
    store::{NewOperation, Placed, Record},
};

/// The answer to a client about its operation.
pub(super) enum AcceptAnswer {
    New(CreatedOperation),
    /// An earlier request created the operation.
    Repeated(CreatedOperation, Urls),
    /// An earlier request was answered with this response.
    Answered(Arc<RecordedResponse>),
}

/// An operation as it was created, whatever has happened since.
pub(super) struct CreatedOperation(Operation<RecordedResponse>);

impl CreatedOperation {
    pub(super) fn from_new(new: &NewOperation, placed: Placed) -> Self {
        let mut metadata = Metadata::default().with_times_of_creation(placed.created_at, false);
        if let Some(method) = &new.method {
            metadata = metadata.with_method(method.clone());
        }
        if let Some(name) = &new.name {
            metadata = metadata.with_name(Arc::clone(name));
        }
        let status = Status::Pending;
        let snapshot = Snapshot { status, metadata };
        Self(Operation::from_parts(new.id.clone(), snapshot))
    }

    pub(super) fn from_record(record: &Record<RecordedResponse>) -> Self {
        let operation = record.operation();
        let (status, metadata) = (Status::Pending, operation.metadata().as_created());
        Self(Operation::from_parts(
            operation.id().clone(),
            Snapshot { status, metadata },
        ))
    }
}

/// Writes the answers to an accepted request.
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

    pub(super) fn answer(&self, verdict: &AcceptResult) -> (Response<BufferedBody>, ReplyKind) {
        match verdict {
            // Early releases stored non-final responses too, which end or break a
            // connection.
            Ok(AcceptAnswer::Answered(kept)) if !kept.is_final() => {
                self.answer(&Err(Refusal::Failed(FailureKind::InnerError)))
            }
            Ok(AcceptAnswer::New(operation)) => self.accepted(operation),
            Ok(AcceptAnswer::Repeated(operation, urls)) => self.accepted_at(operation, urls),
            Ok(AcceptAnswer::Answered(answer)) => (answer.replayed(), ReplyKind::Replayed),
            Err(refusal) => {
                let response = refusal.response(&self.policy, self.version, false);
                (response, ReplyKind::Refused)
            }
        }
    }

    /// Refuses a request whose call was dropped.
    pub(super) fn refuse(
        &self,
        refusal: &Refusal,
        rest: &RemainingBody,
    ) -> (Response<BufferedBody>, ReplyKind) {
        let response = refuse_given_up(&self.policy, refusal, self.version, rest);
        (response, ReplyKind::Refused)
    }

    /// Returns the 202 of a new operation.
    pub(super) fn accepted(
        &self,
        operation: &CreatedOperation,
    ) -> (Response<BufferedBody>, ReplyKind) {
        self.accepted_at(operation, &self.urls)
    }

    /// Returns the 202 of an operation with these URLs: a repetition gets the answer of the
    /// first request.
    fn accepted_at(
        &self,
        CreatedOperation(operation): &CreatedOperation,
        urls: &Urls,
    ) -> (Response<BufferedBody>, ReplyKind) {
        // The span is that of the request; recording works if an outer layer declared this
        // field.
        if has_subscriber() {
            Span::current().record("operation.id", display(operation.id()));
        }
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
    use http::StatusCode;

    use super::*;
    use crate::run::RunLimits;

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
    fn stored_answers_that_are_not_final_are_never_sent() {
        for status in [100, 101, 103, 600] {
            assert_eq!(repeated(status).status(), StatusCode::BAD_GATEWAY);
        }
        assert_eq!(repeated(409).body().data(), "kept");
    }
}
