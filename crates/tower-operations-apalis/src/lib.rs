#![doc = include_str!("../README.md")]

mod dispatch;
mod task;
mod worker;

pub use dispatch::ApalisDispatch;
pub use task::ApalisTask;
pub use worker::{ApalisFuture, ApalisWorker, NotRun};
