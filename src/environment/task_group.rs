use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::task::AbortHandle;

use super::Environment;

/// Tasks that a test stops and ends together, like a process.
///
/// Clones are handles to the same group.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct TaskGroup(Arc<Mutex<GroupState>>);

#[derive(Debug, Default)]
struct GroupState {
    mode: GroupMode,
    next: u64,
    /// The tasks that have not ended, by number. A task has no handle until it is spawned.
    tasks: BTreeMap<u64, Option<AbortHandle>>,
    /// The wakers of the tasks that wait for the group to resume.
    suspended: BTreeMap<u64, Waker>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum GroupMode {
    #[default]
    Running,
    Suspended,
    Aborted,
}

impl TaskGroup {
    /// Creates a group without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops all tasks, as `SIGSTOP` does. No task of the group is polled until the group
    /// [resumes](Self::resume). A task that another thread is polling stops after that poll.
    pub fn suspend(&self) {
        let mut state = self.state();
        if state.mode == GroupMode::Running {
            state.mode = GroupMode::Suspended;
        }
    }

    /// Lets stopped tasks continue.
    pub fn resume(&self) {
        let suspended = {
            let mut state = self.state();
            if state.mode == GroupMode::Suspended {
                state.mode = GroupMode::Running;
            }
            mem::take(&mut state.suspended)
        };
        suspended.into_values().for_each(Waker::wake);
    }

    /// Ends all tasks, as `SIGKILL` does: no task of the group is polled any more, and tasks that
    /// are started in the group from now on do not begin. A task that another thread is polling ends
    /// after that poll. The runtime drops the futures of the tasks soon.
    pub fn abort(&self) {
        let tasks = {
            let mut state = self.state();
            state.mode = GroupMode::Aborted;
            state.suspended.clear();
            state.tasks.values().flatten().cloned().collect::<Vec<_>>()
        };
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// Returns whether the tasks of the group have been ended.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.state().mode == GroupMode::Aborted
    }

    /// Returns the number of tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().tasks.len()
    }

    /// Returns whether no task of the group is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, GroupState> {
        // A critical section only moves finished values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a task in its group.
#[derive(Debug, Clone)]
pub(super) struct GroupMember {
    group: TaskGroup,
    number: u64,
}

impl GroupMember {
    fn join(group: &TaskGroup) -> Self {
        let group = group.clone();
        let number = {
            let mut state = group.state();
            state.next += 1;
            let number = state.next;
            state.tasks.insert(number, None);
            number
        };
        Self { group, number }
    }

    /// Notes that the task is spawned. On another thread it may have ended by now.
    pub(super) fn spawned(&self, task: AbortHandle) {
        let mut state = self.group.state();
        if state.mode == GroupMode::Aborted {
            drop(state);
            task.abort();
        } else if let Some(handle) = state.tasks.get_mut(&self.number) {
            *handle = Some(task);
        }
    }

    /// Returns the mode of the group. In a suspended group the waker is kept.
    fn mode(&self, context: &Context<'_>) -> GroupMode {
        let mut state = self.group.state();
        if state.mode == GroupMode::Suspended {
            let waker = context.waker().clone();
            state.suspended.insert(self.number, waker);
        }
        state.mode
    }

    fn ended(&self) {
        let mut state = self.group.state();
        state.tasks.remove(&self.number);
        state.suspended.remove(&self.number);
    }
}

/// A task in its environment.
pub(super) struct TaskInGroup<F> {
    environment: Environment,
    member: Option<GroupMember>,
    /// `None` once the task has ended.
    task: Option<Pin<Box<F>>>,
}

impl<F: Future> TaskInGroup<F> {
    pub(super) fn new(
        environment: Environment,
        group: Option<&TaskGroup>,
        task: F,
    ) -> (Self, Option<GroupMember>) {
        let member = group.map(GroupMember::join);
        let task = Self {
            environment,
            member: member.clone(),
            task: Some(Box::pin(task)),
        };
        (task, member)
    }
}

impl<F: Future> Future for TaskInGroup<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let member = self.member.as_ref();
        let mode = member.map_or(GroupMode::Running, |member| member.mode(context));
        if mode != GroupMode::Running {
            return Poll::Pending;
        }
        let this = &mut *self;
        let _entered = this.environment.enter();
        let task = this
            .task
            .as_mut()
            .expect("a task is not polled after it ended");
        let polled = task.as_mut().poll(context);
        if polled.is_ready() {
            this.task = None;
        }
        polled
    }
}

impl<F> Drop for TaskInGroup<F> {
    fn drop(&mut self) {
        let _entered = self.environment.enter();
        self.task = None;
        if let Some(member) = &self.member {
            member.ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::{sync::oneshot, task::yield_now};

    use super::*;
    use crate::environment;

    fn node() -> (TaskGroup, Environment) {
        let group = TaskGroup::new();
        let environment = Environment::new().tasks(group.clone());
        (group, environment)
    }

    async fn settle() {
        for _ in 0..10 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn tasks_of_tasks_belong_to_the_group() {
        let (group, node) = node();
        let outer = node.spawn(async {
            let inner = environment::spawn(std::future::pending::<()>());
            inner.await
        });
        settle().await;
        assert_eq!(group.len(), 2);
        group.abort();
        settle().await;
        assert!(group.is_empty() && outer.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn suspended_tasks_continue_where_they_were() {
        let (group, node) = node();
        let (sender, receiver) = oneshot::channel();
        let task = node.spawn(receiver);
        settle().await;
        group.suspend();
        sender.send(7).unwrap();
        let late = node.spawn(async { 8 });
        settle().await;
        assert!(!task.is_finished() && !late.is_finished());
        group.resume();
        assert_eq!((task.await.unwrap(), late.await.unwrap()), (Ok(7), 8));
        assert!(group.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tasks_that_end_at_once_leave_their_group() {
        let (group, node) = node();
        let tasks: Vec<_> = (0..2_000).map(|_| node.spawn(async {})).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(group.is_empty(), "{} are left", group.len());
    }

    /// A future that starts a task when it is dropped.
    struct Parting(Arc<AtomicUsize>);

    impl Drop for Parting {
        fn drop(&mut self) {
            let parted = Arc::clone(&self.0);
            environment::spawn(async move { parted.fetch_add(1, SeqCst) });
        }
    }

    #[tokio::test]
    async fn nothing_runs_after_the_end_of_the_group() {
        for aborts in [false, true] {
            let (group, node) = node();
            let parted = Arc::default();
            let parting = Parting(Arc::clone(&parted));
            let task = node.spawn(async move {
                let _parting = parting;
                std::future::pending::<()>().await;
            });
            settle().await;
            match aborts {
                true => group.abort(),
                false => task.abort(),
            }
            settle().await;
            assert_eq!(parted.load(SeqCst), usize::from(!aborts));
        }
    }

    #[tokio::test]
    async fn tasks_have_the_clock_and_the_randomness_of_their_environment() {
        let at = std::time::SystemTime::UNIX_EPOCH;
        let environment = Environment::new().wall_clock(move || at).seed(7);
        let draw = async { (environment::wall_clock(), environment::random_bytes::<16>()) };
        let (now, drawn) = environment.spawn(draw).await.unwrap();
        assert_eq!(now, at);
        assert!(environment::wall_clock() > at);
        let again = Environment::new().seed(7);
        let _entered = again.enter();
        assert_eq!(environment::random_bytes::<16>(), drawn);
        assert_ne!(environment::random_bytes::<16>(), drawn);
    }
}
