//! A queue between the nodes that accept requests and the workers that run them. It loses,
//! delays, doubles and reorders messages.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use test_customers::Random;
use tokio::{sync::Notify, time::sleep};
use tower_operations::{BoxError, Dispatch, QueuedRequest};

/// The time within which a worker claims an operation, before it is dispatched again.
pub(crate) const CLAIMED_WITHIN: Duration = Duration::from_millis(1_500);

/// A handle to the queue.
#[derive(Debug, Clone)]
pub(crate) struct Queue(Arc<SharedQueue>);

#[derive(Debug)]
struct SharedQueue {
    state: Mutex<QueueState>,
    added: Notify,
}

#[derive(Debug)]
struct QueueState {
    random: Random,
    /// The messages that can be taken, by a random number.
    messages: BTreeMap<u64, Bytes>,
}

/// The course of a message.
struct MessageFate {
    there: Duration,
    back: Duration,
    is_refused: bool,
    loses_answer: bool,
    /// The delay of each delivery.
    deliveries: Vec<Duration>,
}

impl Queue {
    /// Creates an empty queue.
    pub(crate) fn new(random: Random) -> Self {
        Self(Arc::new(SharedQueue {
            state: Mutex::new(QueueState {
                random,
                messages: BTreeMap::new(),
            }),
            added: Notify::new(),
        }))
    }

    /// Takes a message, in no order.
    pub(crate) async fn take(&self) -> Bytes {
        loop {
            let added = self.0.added.notified();
            if let Some((_, message)) = self.state().messages.pop_first() {
                return message;
            }
            added.await;
        }
    }

    /// Puts a message back, which was not run.
    pub(crate) fn put_back(&self, message: Bytes) {
        self.deliver(message, Duration::from_millis(100));
    }

    /// Makes a message available after `delay`. A worker that waits for one is woken.
    fn deliver(&self, message: Bytes, delay: Duration) {
        let queue = self.clone();
        // The task is not one of a node: it outlives each of them.
        tokio::spawn(async move {
            sleep(delay).await;
            {
                let mut state = queue.state();
                let place = state.random.next_u64();
                state.messages.insert(place, message);
            }
            queue.0.added.notify_waiters();
        });
    }

    fn draw(&self) -> MessageFate {
        let random = &mut self.state().random;
        let millis = Duration::from_millis;
        let deliveries = match random.below(40) {
            0 => 0,
            1..=3 => 2,
            _ => 1,
        };
        MessageFate {
            there: millis(random.between(0, 3)),
            back: millis(random.between(0, 3)),
            is_refused: random.one_in(60),
            loses_answer: random.one_in(60),
            deliveries: (0..deliveries)
                .map(|_| match random.one_in(20) {
                    true => millis(random.between(0, 4_000)),
                    false => millis(random.between(0, 30)),
                })
                .collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        // A panic within a critical section fails the simulation.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dispatch for Queue {
    async fn dispatch(&self, request: QueuedRequest) -> Result<(), BoxError> {
        let fate = self.draw();
        sleep(fate.there).await;
        if fate.is_refused {
            return Err("the queue is full".into());
        }
        for delay in fate.deliveries {
            self.deliver(request.to_bytes(), delay);
        }
        sleep(fate.back).await;
        match fate.loses_answer {
            true => Err("the answer of the queue was lost".into()),
            false => Ok(()),
        }
    }

    fn claimed_within(&self) -> Duration {
        CLAIMED_WITHIN
    }
}
