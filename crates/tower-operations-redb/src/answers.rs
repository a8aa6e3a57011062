//! The thread that answers.
//!
//! Each answer wakes a task of a runtime, which takes longer than a change. So the writer passes
//! the answers of a batch on, and begins with the next batch.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SendError, Sender, channel},
    thread,
};

use super::writer::{Batch, Job};

/// The way to the thread, which ends after this was dropped, once it has sent all answers.
pub(super) struct Answers(Sender<Batch>);

impl Answers {
    pub(super) fn start() -> io::Result<Self> {
        let (batches, written) = channel();
        thread::Builder::new()
            .name("operations-answers".into())
            .spawn(move || answer_all(written))?;
        Ok(Self(batches))
    }

    /// Answers the changes of a batch, which are durable.
    pub(super) fn send(&self, batch: Batch) {
        if let Err(SendError(batch)) = self.0.send(batch) {
            answer(batch);
        }
    }
}

fn answer_all(written: Receiver<Batch>) {
    written.into_iter().for_each(answer);
}

fn answer(batch: Batch) {
    for job in batch {
        // The waker of one caller must not keep the answers from the others.
        let _ = catch_unwind(AssertUnwindSafe(|| Job::done(job)));
    }
}
