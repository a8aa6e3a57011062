//! The surroundings of the crate: the wall clock, randomness and tasks.
//!
//! The crate asks for these only here. With the feature `testing`, a test replaces them by
//! [entering](Environment::enter) an [`Environment`]; without the feature they are those of the
//! system and of tokio. Monotonic time is tokio's, which a test pauses and advances.

mod random;
#[cfg(feature = "testing")]
mod replaced;
#[cfg(feature = "testing")]
mod task_group;

use std::{future::Future, time::SystemTime};

use tokio::{runtime::Handle, task::JoinHandle};

#[cfg(feature = "testing")]
pub use self::{
    replaced::{EnteredEnvironment, Environment},
    task_group::TaskGroup,
};
pub(crate) use random::{random_bytes, random_hasher};

/// Returns the time by the wall clock.
pub(crate) fn wall_clock() -> SystemTime {
    #[cfg(feature = "testing")]
    if let Some(now) = replaced::wall_clock() {
        return now;
    }
    SystemTime::now()
}

/// Starts a task.
///
/// # Panics
/// Panics outside of a runtime.
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    #[cfg(feature = "testing")]
    if let Some(environment) = replaced::current() {
        return environment.spawn_on(&Handle::current(), task);
    }
    tokio::spawn(task)
}

/// Starts a task on a runtime.
pub(crate) fn spawn_on<F>(runtime: &Handle, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    #[cfg(feature = "testing")]
    if let Some(environment) = replaced::current() {
        return environment.spawn_on(runtime, task);
    }
    runtime.spawn(task)
}
