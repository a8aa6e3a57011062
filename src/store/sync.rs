//! The primitives of [`wait`](super::wait) and of the keys in memory, in one place so that a model
//! checker can put its own in their stead.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
