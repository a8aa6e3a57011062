//! The window: reading, awaiting and canceling operations.
//!
//! [`PollService`] answers for the operations' resources. What a request asks
//! and how the answer is worded is the [`Dialect`](crate::dialect::Dialect)'s;
//! the rest is here, the same in every dialect:
//!
//! * `HEAD` is `GET` without the body; `OPTIONS` is 204 with `Allow`.
//! * The operation has a weak `ETag` (RFC 9110, section 8.8.3) of its version
//!   and time, `Cache-Control: private, no-cache` and `Vary: Accept`. A matching
//!   `If-None-Match` (section 13.1.2) is 304.
//! * A `GET` that may wait is held: with a matching `If-None-Match` until the
//!   version differs, else until the operation is terminal; for as long as it
//!   says, up to [`PollService::max_wait`]. When the time is over, the answer is
//!   what it would be without waiting.
//! * A cancel is final: the work is stopped on whichever node runs it. One that
//!   comes too late is 409; with `If-Match` (section 13.1.1, compared weakly) that
//!   names the current `ETag`, it makes the finished operation be forgotten.
//! * Somebody else's operation is the 404 of an unknown one.
//! * If the store fails, 503 with `Retry-After`; its own words go to the log.

mod answer;
mod body;
mod conditional;
mod end;
mod events;
mod find;
mod future;
mod hold;
mod list;
mod powers;
mod service;
mod settings;

pub use body::PollBody;
pub use future::PollFuture;
pub use service::PollService;
