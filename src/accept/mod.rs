//! Accepting requests, from their arrival to their `202 Accepted`.
//!
//! [`AsyncAcceptLayer`] wraps a service over `http`. For each request it takes these steps:
//!
//! 1. **Selection**: `POST`, `PUT`, `PATCH` and `DELETE` are accepted
//!    ([`accepts_by_default`]). Other requests pass through untouched, with a streaming body,
//!    and so do requests to the operations themselves.
//! 2. **Admission**: past the bound on requests in flight, the answer is 503 with `Retry-After`.
//! 3. **Body**: the body is collected, up to a limit (413) and within a time (408).
//! 4. **Idempotency**, if the application turns it on: a missing or malformed key is 400.
//! 5. **Creation**: the operation is written to the store. A repetition finds the operation of
//!    the first request by its key, and gets its answer. If the store fails, the answer is 503 with
//!    `Retry-After`, and the inner service is not called.
//! 6. **Run**: the work continues in a task of its own, and the 202 is sent.
//!
//! [After](AsyncAcceptLayer::after) a time and [when
//! signaled](AsyncAcceptLayer::when_signaled), the inner service is called before step 5,
//! which follows when the time is over or the handler signals. A repetition is found out before
//! that call. See [which mode to choose](crate::guide::modes).
//!
//! From step 5 on nothing depends on the client: dropping the response future at any point
//! leaves either no operation or one that ends.
//!
//! # Readiness
//! The layer is always ready. The inner service's own `poll_ready` (`ConcurrencyLimit`,
//! `Buffer`, …) is asked once before step 5. If the service is ready, the operation is created as
//! *running*, with its attempt counted, so that a durable operation costs two writes: its create
//! and its outcome. Otherwise `poll_ready` is awaited in the background, while the operation is
//! *pending*. The clone that became ready is the one that is called. The 202 says *pending* in
//! either case. A permit that makes the service ready is held while the operation is created. A `LoadShed` inside makes operations fail; a
//! `LoadShed` outside of the layer never sheds. To refuse work use
//! [`max_in_flight`](crate::Operations::max_in_flight).
//!
//! # Bodies above the limit
//! A `Content-Length` above the limit is answered before a byte is read, so no `100 Continue`
//! is sent. Without a `Content-Length`, up to 64 KiB above the limit are read for up to 200 ms
//! and discarded. If the body ends there, the connection stays open. Otherwise an HTTP/1
//! response carries `Connection: close`, and the rest of the body is discarded for a moment so
//! that the client can read the response. HTTP/2 resets that stream alone.
//!
//! # Reading the code
//! A request that is accepted at once takes six files, in this order:
//!
//! 1. `service.rs` admits the request. `policy.rs` and `mode.rs` decide whether it is accepted.
//! 2. `future.rs` is the response: one step at a time, each an arm of one enum. The first step
//!    collects the body, with `request_body.rs`.
//! 3. `arrival.rs` decides which way the complete request takes.
//! 4. `submission.rs` has the operation created, and starts its run, here or through a dispatcher.
//! 5. `creation.rs` creates the operation: at once in a store that never waits, otherwise in a task,
//!    where it asks until the answer of the store is certain.
//! 6. `responder.rs` writes the 202.
//!
//! The run itself is `operate` in [`run`](crate::run). The operation takes its key in step 5.
//! `reservation.rs` reserves the key between 3 and 4 only where something comes before the create:
//! a race, a look at an id that the client chose, or an upload.
//!
//! A request [after](AsyncAcceptLayer::after) a time or [when
//! signaled](AsyncAcceptLayer::when_signaled) goes from 3 to `race.rs`, the client's end of the race.
//! Its call runs in `run/race`, which asks `race_creator.rs` for the operation; that calls
//! `creation.rs`. If the call ends first, `direct_answer.rs` stores its answer under the key.

mod arrival;
mod body;
mod creation;
mod direct_answer;
mod disown;
mod drain_over;
mod future;
mod idempotency;
mod in_doubt;
mod inner;
mod layer;
mod lent_body;
mod mode;
mod policy;
mod race;
mod race_creator;
mod refuse;
mod repeated;
mod request_body;
mod reservation;
mod responder;
mod service;
mod submission;

pub use body::{MaybeBuffered, RequestBody, ResponseBody};
pub use future::ResponseFuture;
pub use idempotency::Idempotency;
pub use layer::AsyncAcceptLayer;
pub use policy::accepts_by_default;
pub use service::AsyncAccept;
