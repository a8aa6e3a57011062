//! Reading, awaiting and canceling operations.
//!
//! [`PollService`] serves the resources of operations. The [`Dialect`](crate::dialect::Dialect)
//! decides what a request asks for and how the answer is worded. The following rules are the
//! same in every dialect:
//!
//! * `HEAD` is `GET` without the body. `OPTIONS` is 204 with `Allow`.
//! * An operation has a weak `ETag` (RFC 9110, section 8.8.3) of its version and time,
//!   `Cache-Control: private, no-cache` and `Vary: Accept, Prefer`. A matching
//!   `If-None-Match` (section 13.1.2) is 304, an `If-Match` that does not match is 412.
//! * A precondition that is neither `*` nor a list of entity tags is 400, and so is an empty
//!   `If-Match`.
//! * A recorded 200 is replayed with a strong `ETag` and `Repr-Digest` (RFC 9530), both of the
//!   SHA-256 of its body, and with `Accept-Ranges`. `If-None-Match`, `If-Match`, `Range` and
//!   `If-Range` are evaluated (RFC 9110, sections 13 and 14): a part of the body is 206, a range
//!   outside of it 416. Several ranges are answered with the whole body. Other recorded responses
//!   have no validator, and no condition is evaluated.
//! * A sub-resource that no operation has, such as `/{id}/foo`, is 404 by every method and has
//!   no `Allow`.
//! * A `GET` that asks to wait is held: with a matching `If-None-Match` until the version
//!   differs, otherwise until the operation is terminal, at most for
//!   [`PollService::max_wait`]. After that time the answer is the one without waiting.
//! * A cancellation is final: the work is stopped on the node that runs it. Canceling an
//!   operation that has ended is 409. Canceling with an `If-Match` (section 13.1.1, compared
//!   weakly) that names the current `ETag` deletes the ended operation. `If-Match: *` deletes no
//!   result.
//! * An operation of another owner is answered like an unknown one, with 404.
//! * Unnecessary escapes in a path are decoded (RFC 3986, section 6.2.2.2): `%2D` is `-`.
//! * A repeated parameter that allows one value is 400.
//! * A failure of the store is 503 with `Retry-After`. Its message is logged, not sent.
//!
//! # Progress while waiting
//! A `GET` that waits without `If-None-Match` is answered at the end, so its client sees no
//! progress. To show progress, a client polls once without waiting, and then with the latest
//! `ETag` in `If-None-Match` and `Prefer: wait=30`: each answer is a change, or a 304 after the
//! time. An event stream shows the same changes without repeated requests.
//!
//! ```text
//! GET /operations/q3                        200, ETag: W/"2-19a", "state":"running"
//! GET /operations/q3                        200, ETag: W/"3-19b", "progress":{"percent":25.0}
//!   If-None-Match: W/"2-19a"
//!   Prefer: wait=30
//! GET /operations/q3                        200, ETag: W/"4-19c", "state":"succeeded"
//!   If-None-Match: W/"3-19b"
//!   Prefer: wait=30
//! ```

mod answer;
mod body;
mod capabilities;
mod conditional;
mod context;
mod end;
mod events;
mod find;
mod future;
mod hold;
mod list;
mod precondition;
mod replayed;
mod service;
mod settings;
mod stored_result;
mod unknown;

pub use body::PollBody;
pub use future::PollFuture;
#[cfg(any(fuzzing, test))]
pub(crate) use precondition::{NamedTags, if_match};
#[cfg(any(fuzzing, test))]
pub(crate) use replayed::{RequestedPart, requested_part};
pub use service::PollService;
