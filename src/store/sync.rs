//! The synchronization primitives of [`wait`](super::wait), of the live runs and of the keys in
//! memory, and their hasher, in one place so that a model checker can replace them.

pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use foldhash::quality::SeedableRandomState as RandomState;

pub(crate) use crate::environment::random_hasher;
