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
//! 5. **Once**: a key leads to one operation; the inner service is called once an
//!    attempt, at most [so often](Rules::attempts), and what succeeded has run.
//! 6. **Canceled stays canceled**, once the client was told, and the work
//!    [stops](Rules::stop).
//! 7. **In time**: what is accepted ends within *(lease + recovery + time-outs) ×
//!    attempts*, outages excluded; who reads it later than that sees its end.
//! 8. **Woken**: a held poll is answered [soon](Rules::wake) after others could
//!    see what it waits for, and when its time is over.
//!
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

mod absence;
mod check;
mod entry;
mod history;
mod judge;
mod rules;
#[cfg(test)]
mod tests;
mod verdict;
mod violation;

pub use check::{Checker, check};
pub use entry::{Answer, Ask, Away, Call, Entry, Kill, LogError, Outcome, Run, RunEvent, Sighting};
pub use rules::Rules;
pub use verdict::{Counts, Verdict};
pub use violation::{Reading, Violation};
