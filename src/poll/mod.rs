//! The window: reading, awaiting and canceling operations.
//!
//! [`PollService`] answers for the operations' resources. What a request asks
//! and how the answer is worded is the [`Dialect`](crate::dialect::Dialect)'s;
//! the rest is here, the same in every dialect:
//!
//! * `HEAD` is `GET` without the body; `OPTIONS` is 204 with `Allow`.
//! * The operation has a weak `ETag` (RFC 9110, section 8.8.3) of its version
//!   and time, `Cache-Control: private, no-cache` and `Vary: Accept, Prefer`. A matching
//!   `If-None-Match` (section 13.1.2) is 304.
//! * A precondition that is neither `*` nor a list of entity tags is 400, and so is an
//!   `If-Match` that is empty. A `GET` does not look at `If-Match`.
//! * What no operation has, as `/{id}/foo`, is 404 by every method; it has no `Allow`.
//! * A `GET` that may wait is held: with a matching `If-None-Match` until the
//!   version differs, else until the operation is terminal; for as long as it
//!   says, up to [`PollService::max_wait`]. When the time is over, the answer is
//!   what it would be without waiting.
//! * A cancel is final: the work is stopped on whichever node runs it. One that
//!   comes too late is 409; with `If-Match` (section 13.1.1, compared weakly) that
//!   names the current `ETag`, it makes the ended operation be forgotten. `If-Match: *`
//!   holds for any version, and is a cancel like one without it.
//! * Somebody else's operation is the 404 of an unknown one.
//! * A path is taken without the escapes that it does not need (RFC 3986, section
//!   6.2.2.2): `%2D` is `-`.
//! * A parameter that has one value and is given twice is 400.
//! * If the store fails, 503 with `Retry-After`; its own words go to the log.
//!
//! # Progress while waiting
//! A `GET` that waits without `If-None-Match` is answered at the end, so its client sees no
//! progress. A client that shows progress polls once without waiting, and then repeats
//! `If-None-Match` with the latest `ETag` and `Prefer: wait=30`: each answer is a change, or
//! a 304 after the time. An event stream gives the same without the repetition.
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
mod end;
mod events;
mod find;
mod future;
mod hold;
mod list;
mod precondition;
mod service;
mod settings;
mod unknown;

pub use body::PollBody;
pub use future::PollFuture;
pub use service::PollService;

#[cfg(any(fuzzing, test))]
pub(crate) use precondition::{NamedTags, if_match};
