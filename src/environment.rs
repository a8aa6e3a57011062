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

/// Returns the time by the wall clock, which a test can replace.
#[must_use]
pub fn wall_clock() -> SystemTime {
    #[cfg(feature = "testing")]
    if let Some(now) = replaced::wall_clock() {
        return now;
    }
    SystemTime::now()
}

/// Starts a task, which a test can add to a group.
///
/// # Panics
/// Panics outside of a runtime.
#[track_caller]
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    #[cfg(feature = "testing")]
    if let Some(environment) = replaced::current() {
        return environment.spawn_on(&Handle::current(), task);
    }
    tokio::spawn(task)
}

/// Runs a function that takes long on a thread that may be blocked. A test cannot replace it.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Starts tasks on a runtime and in an environment: those that were current when it was created.
pub(crate) struct Spawner {
    runtime: Handle,
    #[cfg(feature = "testing")]
    environment: Option<Environment>,
}

impl Spawner {
    /// Returns the spawner of the current runtime and environment.
    ///
    /// # Panics
    /// Panics outside of a runtime.
    #[track_caller]
    pub(crate) fn current() -> Self {
        Self {
            runtime: Handle::current(),
            #[cfg(feature = "testing")]
            environment: replaced::current(),
        }
    }

    /// Starts a task.
    #[track_caller]
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        #[cfg(feature = "testing")]
        if let Some(environment) = &self.environment {
            return environment.spawn_on(&self.runtime, task);
        }
        self.runtime.spawn(task)
    }
}
