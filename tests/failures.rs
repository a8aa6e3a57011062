//! Failures: whose they are, and with which status they are sent.

#[path = "support/server.rs"]
mod server;

#[path = "failures/common.rs"]
mod common;
#[path = "failures/depth.rs"]
mod depth;
#[path = "failures/final_responses.rs"]
mod final_responses;
#[path = "failures/stacked.rs"]
mod stacked;
#[path = "failures/status.rs"]
mod status;
