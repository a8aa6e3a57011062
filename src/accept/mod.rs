//! The front door: which requests are accepted, and what happens until their
//! `202 Accepted` is out.
//!
//! [`AsyncAcceptLayer`] wraps a service over `http`. For each request, in this
//! order:
//!
//! 1. **Which**: `POST`, `PUT`, `PATCH` and `DELETE` are accepted
//!    ([`accepts_by_default`]); all else passes through untouched, body
//!    streaming, and so do requests to the operations themselves.
//! 2. **Admission**: past the bound on what is in flight, 503 with
//!    `Retry-After`.
//! 3. **Body**: collected, up to a limit (413) and within a time (408).
//! 4. **Idempotency**, where the application wants it: a key that is missing or
//!    malformed is 400, and a repetition gets what the first request got.
//! 5. **Create**: the operation is written to the store, and that is awaited.
//!    If the store fails, 503 with `Retry-After`; the inner service is not called. If
//!    an operation with an idempotency key turns out to be in the store after that, it is
//!    run, since a repetition finds it.
//! 6. **Hand over**: the work goes on in a task of its own, and the 202 goes
//!    out.
//!
//! [After](AsyncAcceptLayer::after) a time and [signaled](AsyncAcceptLayer::when_signaled),
//! the inner service is called before step 5, which comes when the time is over
//! or the handler says so; see [which to choose](crate::guide::modes).
//!
//! From step 5 on nothing depends on the client any more: dropping the response
//! future at any point leaves either no operation or one that finishes.
//!
//! # Readiness
//! The layer is always ready. The inner service's own `poll_ready`
//! (`ConcurrencyLimit`, `Buffer`, …) is awaited in the background, the operation
//! being *pending* until then, and what is called is the very clone that became
//! ready. A `LoadShed` inside makes operations fail; outside of the layer it
//! never sheds. To refuse work use [`max_in_flight`](crate::Operations::max_in_flight).
//!
//! # A body above the limit
//! A `Content-Length` above the limit is answered before a byte is read, so no
//! `100 Continue` goes out. Without one, up to 64 KiB above the limit are read
//! for up to 200 ms and thrown away; if the body ends there, the connection serves on.
//! Otherwise HTTP/1 carries `Connection: close`, what the client is still sending is read
//! and thrown away for a moment so that it gets to see the answer, and HTTP/2
//! resets that stream alone.

mod body;
mod collect;
mod create;
mod departure;
mod disown;
mod drain_over;
mod early;
mod future;
mod going;
mod hand_over;
mod held_tries;
mod hold;
mod idempotency;
mod in_doubt;
mod inner;
mod key_digest;
mod layer;
mod lent_body;
mod look_up;
mod mode;
mod policy;
mod refuse;
mod repeated;
mod reservation;
mod responder;
mod service;

pub use body::{MaybeBuffered, RequestBody, ResponseBody};
pub use future::ResponseFuture;
pub use idempotency::Idempotency;
pub use layer::AsyncAcceptLayer;
pub use policy::accepts_by_default;
pub use service::AsyncAccept;
