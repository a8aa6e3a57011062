//! Responses of the service: recorded, described in polls, and replayed.

use test_support::server;

#[path = "failures/common.rs"]
mod common;
#[path = "failures/depth.rs"]
mod depth;
#[path = "failures/final_responses.rs"]
mod final_responses;
#[path = "failures/references.rs"]
mod references;
#[path = "failures/replay.rs"]
mod replay;
#[path = "failures/stacked.rs"]
mod stacked;
#[path = "failures/status.rs"]
mod status;
