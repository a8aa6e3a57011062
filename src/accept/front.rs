//! What a client is told of its operation.

use std::{sync::Arc, time::Duration};

use http::{Response, Version};

use super::{policy::Policy, refuse::Refusal, when::Reply};
use crate::{
    dialect::{Context, Urls, whole_seconds},
    operation::{Operation, RecordedResponse, Snapshot, Stage, WholeBody},
    store::Record,
};

/// What a client is told of the operation that its request is.
pub(super) enum Accepted {
    New(Arc<Record<RecordedResponse>>),
    /// An earlier request made it.
    Repeated(Arc<Record<RecordedResponse>>, Urls),
    /// An earlier request was answered with this.
    Answered(Arc<RecordedResponse>),
}

/// Where the answer is worded.
pub(super) struct Front {
    policy: Arc<Policy>,
    urls: Urls,
    version: Version,
}

impl Front {
    pub(super) fn new(policy: Arc<Policy>, urls: Urls, version: Version) -> Self {
        Self {
            policy,
            urls,
            version,
        }
    }

    pub(super) fn accepted(&self, accepted: &Accepted) -> (Response<WholeBody>, Reply) {
        let (record, urls) = match accepted {
            Accepted::New(record) => (record, &self.urls),
            Accepted::Repeated(record, urls) => (record, urls),
            Accepted::Answered(answer) => return (answer.to_response(), Reply::Direct),
        };
        // A repetition gets what the first request got, whatever has happened
        // since.
        let stage = Stage::<RecordedResponse>::Pending;
        let metadata = record.operation().metadata().as_created();
        let operation = Operation::of(
            record.operation().id().clone(),
            Snapshot { stage, metadata },
        );
        let policy = &self.policy;
        let mut context = Context::new(urls, &policy.replay);
        context.retry_after = Some(whole_seconds(
            policy.retry_after.retry_after(Duration::ZERO),
        ));
        (
            policy.dialect.accepted(&operation.view(), &context),
            Reply::Accepted,
        )
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Response<WholeBody> {
        refusal.response(&self.policy, self.version, false)
    }
}
