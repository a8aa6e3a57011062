//! Waiting no longer than a drain lasts.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::run::InFlight;

/// A future that is ready once the time of a drain is over. The future is created only when
/// something has to be awaited: most requests never wait.
#[derive(Default)]
pub(super) struct DrainOver(Option<Pin<Box<WaitForCancellationFutureOwned>>>);

impl DrainOver {
    pub(super) fn poll(&mut self, of: &InFlight, context: &mut Context<'_>) -> Poll<()> {
        let over = || Box::pin(of.over().clone().cancelled_owned());
        self.0.get_or_insert_with(over).as_mut().poll(context)
    }
}
