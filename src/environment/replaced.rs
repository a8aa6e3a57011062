use std::{
    cell::RefCell,
    fmt,
    future::Future,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::{runtime::Handle, task::JoinHandle};

use super::task_group::{TaskGroup, TaskInGroup};

/// A replacement of the wall clock, of randomness and of the tasks that the crate starts, for
/// tests.
///
/// An environment holds for the thread that has [entered](Self::enter) it, and for the tasks that
/// the crate starts there. What is not replaced is that of the system.
///
/// In a [`MemoryStore`](crate::MemoryStore) operations expire by tokio's clock, in a store on an
/// [`Engine`](crate::engine::Engine) by the wall clock. An engine may measure leases and keys by a
/// clock of its own, such as that of its server, which is not replaced.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_operations::{OperationId, testing::Environment};
///
/// let new_year = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
/// let ids = [(); 2].map(|()| {
///     let environment = Environment::new().wall_clock(move || new_year).seed(7);
///     let _entered = environment.enter();
///     OperationId::new()
/// });
/// assert_eq!(ids[0], ids[1]);
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Environment {
    wall_clock: Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>,
    random: Option<Arc<Mutex<SplitMix>>>,
    tasks: Option<TaskGroup>,
}

impl Environment {
    /// Creates an environment that replaces nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the wall clock.
    pub fn wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.wall_clock = Some(Arc::new(now));
        self
    }

    /// Replaces randomness by a sequence of numbers that depends only on `seed`. Ids, tokens and
    /// secrets can then be predicted.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = Some(Arc::new(Mutex::new(SplitMix(seed))));
        self
    }

    /// Adds the tasks that the crate starts to a group.
    pub fn tasks(mut self, group: TaskGroup) -> Self {
        self.tasks = Some(group);
        self
    }

    /// Makes this the environment of the current thread, until the returned guard is dropped.
    #[must_use = "the environment is left when the guard is dropped"]
    pub fn enter(&self) -> EnteredEnvironment {
        let before = CURRENT.replace(Some(self.clone()));
        EnteredEnvironment {
            before,
            not_send: PhantomData,
        }
    }

    /// Starts a task in this environment.
    ///
    /// # Panics
    /// Panics outside of a runtime.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn_on(&Handle::current(), task)
    }

    pub(super) fn spawn_on<F>(&self, runtime: &Handle, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (task, member) = TaskInGroup::new(self.clone(), self.tasks.as_ref(), task);
        let handle = runtime.spawn(task);
        if let Some(member) = member {
            member.spawned(handle.abort_handle());
        }
        handle
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Environment>> = const { RefCell::new(None) };
}

/// An environment that holds for the current thread until this guard is dropped. The guards of a
/// thread are dropped in the reverse order of their creation.
#[derive(Debug)]
pub struct EnteredEnvironment {
    before: Option<Environment>,
    /// The guard belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for EnteredEnvironment {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// Returns the environment of the current thread.
pub(super) fn current() -> Option<Environment> {
    CURRENT.with_borrow(Clone::clone)
}

/// Returns the time by the wall clock, if it is replaced.
pub(super) fn wall_clock() -> Option<SystemTime> {
    let now = CURRENT.with_borrow(|current| current.as_ref()?.wall_clock.clone())?;
    Some(now())
}

/// Fills `bytes` from the randomness of the environment; returns false if it is not replaced.
pub(super) fn fill_random(bytes: &mut [u8]) -> bool {
    CURRENT.with_borrow(|current| {
        let Some(random) = current.as_ref().and_then(|current| current.random.as_ref()) else {
            return false;
        };
        // A critical section only counts.
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        true
    })
}

/// `SplitMix64`, which is small and the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
