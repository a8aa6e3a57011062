//! An independent judge of what a system with operations did to its clients.
//!
//! Clients of one or many nodes write down what they asked and what they were
//! answered, the inner service writes down its runs, and whoever disturbs the
//! system writes down when. [`check`] holds that log against the laws of this
//! crate. It knows nothing of the system but the log, so the log may come from
//! any store, dialect or program.
//!
//! # What is judged
//! 1. **Nothing accepted is lost**: what got a 202 is there at every later
//!    reading, for as long as it is [kept](Rules::kept), and was seen at its end.
//! 2. **One end**: one terminal state, which nothing leaves; the version, the
//!    content and the bytes of the result stay as they were first seen.
//! 3. **Versions**: no version is seen with two contents, and who begins to read
//!    after another reading has ended sees nothing older, whichever node it asks.
//! 4. **Nothing is mixed up**: a result names the title that was posted, and so
//!    does every run.
//! 5. **Once**: a key of an owner leads to one operation; the inner service is called
//!    once an attempt, at most [so often](Rules::attempts), and what succeeded has run.
//! 6. **Canceled stays canceled**, once the client was told, and the work
//!    [stops](Rules::stop).
//! 7. **In time**: what is accepted ends within *(lease + recovery + time-outs) ×
//!    attempts*, outages excluded; who reads it later than that sees its end.
//! 8. **Woken**: a held poll is answered [soon](Rules::wake) after others could
//!    see what it waits for, and when its time is over.
//! 9. **For its owner alone**: nobody else is told of an operation, and a key is
//!    answered as a used one (409, 410, 422) only to an owner that has used it.
//! 10. **Forgotten stays forgotten**, once the client was told. An id that is chosen
//!     again is of another operation, of which all of this holds anew.
//! 11. **Listed**: the list of an owner has all that was accepted before it was asked
//!     for, and nothing that was forgotten by then.
//! 12. **Nothing is cut off**: what a node had been sent when it began to drain is
//!     answered, and what fails as interrupted has [a cause](Rules::causes) in the log.
//! 13. **Back at once**: what a killed node held has ended or is run again
//!     [soon](Rules::reclaim) after the node is back, where the store is its own.
//!
//! What became of an operation that was damaged in the store is excused.
//! An operation for which no client holds a 202 may exist and end as it likes.
//!
//! # The log
//! One JSON object a line, in any order; see [`Entry`]. Times are milliseconds
//! by one clock, so the clients are best on one machine. At the end of a test,
//! when all is healed, every accepted operation is polled until it has ended:
//! what was never seen at its end counts as lost.
//!
//! ```
//! use tower_operations::checker::{Entry, Rules, Violation, check};
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
//! # Ok::<(), tower_operations::checker::LogError>(())
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
