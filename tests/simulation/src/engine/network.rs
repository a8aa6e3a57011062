use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use test_customers::Random;
use tokio::time::{Instant, sleep};
use tower_operations::engine::{Notice, Notifier};

/// The network between the nodes and the database.
#[derive(Debug)]
pub struct Network {
    state: Mutex<NetworkState>,
}

/// How often the network fails. Each number `n` stands for one call in `n`; 0 for none.
#[derive(Debug, Clone, Copy)]
pub struct NetworkFaults {
    /// Requests that never arrive.
    pub lost_requests: usize,
    /// Answers that never arrive.
    pub lost_answers: usize,
    /// Calls that take up to 400 ms.
    pub slow_calls: usize,
    /// Notices that never arrive.
    pub lost_notices: usize,
    /// The number of renewals, three in a term, by which a node has certainly heard that it lost a
    /// lease.
    pub renewals: u32,
}

/// The number of faults so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Calls to the database.
    pub calls: u64,
    /// Lost requests.
    pub lost_requests: u64,
    /// Lost answers.
    pub lost_answers: u64,
    /// Lost notices.
    pub lost_notices: u64,
}

#[derive(Debug)]
struct NetworkState {
    random: Random,
    faults: NetworkFaults,
    is_away: bool,
    /// The last outage: its beginning, and its end.
    outage: Option<(Instant, Option<Instant>)>,
    /// The time at which each node continued after a stop.
    resumed: BTreeMap<usize, Instant>,
    counts: NetworkCounts,
    notifiers: Vec<Weak<Notifier>>,
}

/// The course of one call.
#[derive(Debug)]
pub(crate) struct CallFate {
    pub(crate) there: Duration,
    pub(crate) back: Duration,
    /// The time after which a lost call counts as failed.
    pub(crate) silence: Duration,
    pub(crate) loses_request: bool,
    pub(crate) loses_answer: bool,
}

impl NetworkFaults {
    /// Returns a network that only takes time.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            lost_requests: 0,
            lost_answers: 0,
            slow_calls: 0,
            lost_notices: 0,
            renewals: 3,
        }
    }

    /// Returns a network that fails now and then.
    #[must_use]
    pub const fn usual() -> Self {
        Self {
            lost_requests: 300,
            lost_answers: 300,
            slow_calls: 100,
            lost_notices: 20,
            renewals: 3,
        }
    }

    /// Returns a network that fails all the time.
    #[must_use]
    pub const fn bad() -> Self {
        Self {
            lost_requests: 25,
            lost_answers: 25,
            slow_calls: 15,
            lost_notices: 3,
            renewals: 6,
        }
    }
}

impl Network {
    /// Creates a network for this number of nodes.
    #[must_use]
    pub fn new(nodes: usize, faults: NetworkFaults, random: Random) -> Arc<Self> {
        let state = NetworkState {
            random,
            faults,
            is_away: false,
            outage: None,
            resumed: BTreeMap::new(),
            counts: NetworkCounts::default(),
            notifiers: (0..nodes).map(|_| Weak::new()).collect(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// Connects a node, which receives notices from now on.
    pub fn connect(&self, node: usize, notifier: &Arc<Notifier>) {
        self.state().notifiers[node] = Arc::downgrade(notifier);
    }

    /// Takes the database away, or brings it back.
    pub fn set_away(&self, is_away: bool) {
        {
            let mut state = self.state();
            state.is_away = is_away;
            let now = Instant::now();
            state.outage = match (is_away, state.outage) {
                (true, _) => Some((now, None)),
                (false, outage) => outage.map(|(begin, _)| (begin, Some(now))),
            };
        }
        if !is_away {
            // A node that reconnects to its database may have missed notices.
            let notifiers = self.state().notifiers.clone();
            for notifier in notifiers.iter().filter_map(Weak::upgrade) {
                notifier.notify_all();
            }
        }
    }

    /// Ends the faults of the network. Calls only take time from now on.
    pub fn heal(&self) {
        self.state().faults = NetworkFaults::none();
    }

    /// Notes that a node continues after a stop.
    pub fn resume(&self, node: usize) {
        self.state().resumed.insert(node, Instant::now());
    }

    /// Returns whether leases may have ended because their holders could not renew them: during
    /// an outage, and for a term after one of more than a third of it. A node that was stopped
    /// during the outage does not notice it.
    pub(super) fn distrusts_leases(&self, node: usize, term: Duration) -> bool {
        let state = self.state();
        let Some((begin, end)) = state.outage else {
            return false;
        };
        let has_slept = state.resumed.get(&node).is_some_and(|at| *at > begin);
        let is_recent = match end {
            None => true,
            Some(end) => end - begin > term / 3 && end.elapsed() < term,
        };
        is_recent && !has_slept
    }

    /// Returns the number of faults so far.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        self.state().counts
    }

    pub(crate) fn is_away(&self) -> bool {
        self.state().is_away
    }

    /// Draws the course of a call.
    pub(crate) fn draw(&self) -> CallFate {
        let mut state = self.state();
        let faults = state.faults;
        state.counts.calls += 1;
        let happens = |random: &mut Random, one_in: usize| one_in > 0 && random.one_in(one_in);
        let loses_request = happens(&mut state.random, faults.lost_requests);
        let loses_answer = !loses_request && happens(&mut state.random, faults.lost_answers);
        let longest = match happens(&mut state.random, faults.slow_calls) {
            true => 400,
            false => 3,
        };
        state.counts.lost_requests += u64::from(loses_request);
        state.counts.lost_answers += u64::from(loses_answer);
        let there = state.random.between(0, longest);
        // Most answers come in the same millisecond.
        let back = match state.random.one_in(4) {
            true => state.random.between(1, longest),
            false => 0,
        };
        CallFate {
            there: Duration::from_millis(there),
            back: Duration::from_millis(back),
            silence: Duration::from_millis(state.random.between(10, 600)),
            loses_request,
            loses_answer,
        }
    }

    /// Sends a notice to the other nodes.
    pub(super) fn publish(&self, from: usize, notice: &Notice) {
        let mut state = self.state();
        let NetworkState {
            random,
            faults,
            counts,
            notifiers,
            ..
        } = &mut *state;
        for (node, notifier) in notifiers.iter().enumerate() {
            if node == from {
                continue;
            }
            let delay = Duration::from_millis(random.between(1, 10));
            if faults.lost_notices > 0 && random.one_in(faults.lost_notices) {
                counts.lost_notices += 1;
                continue;
            }
            let (notifier, notice) = (Weak::clone(notifier), notice.clone());
            tokio::spawn(async move {
                sleep(delay).await;
                if let Some(notifier) = notifier.upgrade() {
                    notifier.notify(&notice);
                }
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, NetworkState> {
        // A panic within a critical section fails the simulation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
