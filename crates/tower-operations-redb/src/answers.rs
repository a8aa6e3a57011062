//! The thread that answers.
//!
//! Each answer wakes a task of a runtime, which costs the writer about as much as a change. So the
//! writer passes the answers of a batch on, and begins with the next batch.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{SendError, Sender, channel},
    thread::{self, JoinHandle},
};

use super::writer_request::{Batch, Job};

/// Passes batches to the thread. The thread ends once this is dropped and all answers are sent.
/// Without a thread, answers are sent at once.
#[derive(Default)]
pub(super) struct Answers(Option<(Sender<Batch>, JoinHandle<()>)>);

impl Answers {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (batches, written) = channel();
        let thread = thread::Builder::new()
            .name("operations-answers".into())
            .spawn(move || written.into_iter().for_each(answer_all))?;
        Ok(Self(Some((batches, thread))))
    }

    /// Answers the changes of a batch, which are durable.
    pub(super) fn send(&self, batch: Batch) {
        let unsent = match &self.0 {
            Some((batches, _)) => batches.send(batch).err().map(|SendError(batch)| batch),
            None => Some(batch),
        };
        unsent.into_iter().for_each(answer_all);
    }

    /// Waits until all answers are sent. Later answers are sent at once.
    pub(super) fn finish(&mut self) {
        if let Some((batches, thread)) = self.0.take() {
            drop(batches);
            let _ = thread.join();
        }
    }
}

fn answer_all(batch: Batch) {
    for job in batch {
        answer(|| Job::done(job));
    }
}

/// Answers a caller, whose waker must not keep the answers from the other callers.
pub(super) fn answer(send: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(send));
}
