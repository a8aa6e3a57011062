//! `PostgresStore` on a private server: the laws, crashes, lost connections,
//! notifications, and the number of statements.

use test_support::{large_results, pages, postgres as server, repetition, stranger};

#[path = "postgres/batches.rs"]
mod batches;
#[path = "postgres/common.rs"]
mod common;
#[path = "postgres/crashes.rs"]
mod crashes;
#[path = "postgres/damaged.rs"]
mod damaged;
#[path = "postgres/errors.rs"]
mod errors;
#[path = "postgres/format.rs"]
mod format;
#[path = "postgres/laws.rs"]
mod laws;
#[path = "postgres/lost_answers.rs"]
mod lost_answers;
#[path = "postgres/notices.rs"]
mod notices;
#[path = "postgres/plans.rs"]
mod plans;
#[path = "postgres/proxy.rs"]
mod proxy;
#[path = "postgres/round_trips.rs"]
mod round_trips;
#[path = "postgres/setting_up.rs"]
mod setting_up;
#[path = "postgres/sharing.rs"]
mod sharing;
#[path = "postgres/skew.rs"]
mod skew;
#[path = "postgres/strangers.rs"]
mod strangers;
#[path = "postgres/upkeep.rs"]
mod upkeep;
