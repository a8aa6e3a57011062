//! An independent judge of how a system with operations treated its clients.
//!
//! Clients of one or many nodes record their requests and answers, the inner service
//! records its runs, and the program that disturbs the system records each disturbance with
//! its time. [`check`] compares that log with the laws of this crate. The checker knows the
//! system only by its log, so the log may come from any store, dialect or program.
//!
//! # Laws
//! 1. **Nothing accepted is lost**: every later reading of an operation with a 202 finds
//!    the operation for as long as it is [kept](Rules::kept), and its end was seen.
//! 2. **One end**: an operation has one terminal state and never leaves it; its version,
//!    its content and the bytes of its result stay as they were first seen.
//! 3. **Versions**: no version is seen with two contents. A reading that begins after
//!    another reading has ended sees nothing older, on any node.
//! 4. **Nothing is mixed up**: every result and every run names the title that was posted.
//! 5. **Once**: a key of an owner leads to one operation, or to one direct answer of a post that
//!    is held; the inner service is called once
//!    an attempt, with at most [this many attempts](Rules::attempts), and an operation that
//!    succeeded has run.
//! 6. **Canceled stays canceled** from the answer to the client on, and the work
//!    [stops](Rules::stop).
//! 7. **In time**: an accepted operation ends within *(lease + recovery + time-outs) ×
//!    attempts*, outages excluded; a later reading sees its end.
//! 8. **Woken**: a held poll is answered [soon](Rules::wake) after other clients could see
//!    the change that it waits for, and when its time is over.
//! 9. **Only for its owner**: no other owner sees an operation, and a key is answered as a
//!    used key (409, 410, 422) only to an owner that has used the key.
//! 10. **Deleted stays deleted** from the answer to the client on. An id that is chosen
//!     again belongs to another operation, and all laws apply to that operation anew.
//! 11. **Listed**: the list of an owner has every operation that was accepted before the
//!     list was requested, and none that was deleted by then.
//! 12. **Nothing is cut off**: a request that a node had received when it began to drain is
//!     answered, and an operation that fails as interrupted has [a cause](Rules::causes) in
//!     the log.
//! 13. **Back at once**: an operation that a killed node held has ended or is rerun
//!     [soon](Rules::reclaim) after the node is back, where the store belongs to that node
//!     alone.
//! 14. **Events in order**: a stream of events shows no version twice and none before an earlier
//!     one, and only versions after the one that the client named in `Last-Event-ID`.
//! 15. **Readable**: the result of an operation can be read for as long as the operation is
//!     [kept](Rules::kept) and no client has asked to delete it.
//!
//! The fate of an operation that was damaged in the store is excused. An operation for
//! which no client holds a 202 may exist and end in any way.
//!
//! # The log
//! One JSON object a line, in any order; see [`Entry`]. Times are milliseconds by one
//! clock, so the clients are best on one machine. At the end of a test, after all
//! disturbances, every accepted operation is polled until it has ended: an operation whose
//! end was never seen counts as lost.
//!
//! ```
//! use tower_operations_conformance::checker::{Entry, Rules, Violation, check};
//!
//! let log = r#"
//! {"entry":"call","client":"c1","node":"a","begin":0,"end":3,
//!  "ask":{"post":{"title":"Q3","key":"k-1"}},"answer":{"accepted":{"operation":"op-1"}}}
//! {"entry":"run","operation":"op-1","attempt":1,"node":"a","title":"Q3","event":"begin","at":2}
//! {"entry":"kill","node":"a","at":5}
//! {"entry":"call","client":"c1","node":"b","begin":9,"end":12,
//!  "ask":{"poll":{"operation":"op-1"}},"answer":"absent"}
//! "#;
//! let log = log.replace(",\n", ",");
//! let log: Vec<Entry> = Entry::read(log.as_bytes()).collect::<Result<_, _>>()?;
//!
//! let verdict = check(&log, &Rules::new().attempts(2));
//! let operation = "op-1".to_owned();
//! assert_eq!(verdict.violations, [Violation::Lost { operation }]);
//! # Ok::<(), tower_operations_conformance::checker::LogError>(())
//! ```

mod call;
mod check;
mod disturbances;
mod entry;
mod execution;
mod histories;
mod history;
mod judge;
mod keys;
mod lists;
mod rules;
mod runs;
#[cfg(test)]
mod tests;
mod verdict;
mod violation;

pub use call::{Call, CallAnswer, CallRequest, SeenResult, Sighting};
pub use check::{Checker, check};
pub use entry::{Away, Damage, DrainEntry, Entry, Kill, LogError, RunEntry, RunEvent};
pub use rules::Rules;
pub use verdict::{Counts, Verdict};
pub use violation::{Reading, Violation};
