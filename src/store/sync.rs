//! The synchronization primitives of [`wait`](super::wait) and of the keys in memory, in
//! one place so that a model checker can replace them.

pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
