//! Waiting no longer than a drain does.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::run::InFlight;

/// Ready once the time of a drain is over. Made when something has to be waited for:
/// most requests never have to.
#[derive(Default)]
pub(super) struct DrainOver(Option<Pin<Box<WaitForCancellationFutureOwned>>>);

impl DrainOver {
    pub(super) fn poll(&mut self, of: &InFlight, context: &mut Context<'_>) -> Poll<()> {
        let over = || Box::pin(of.over().clone().cancelled_owned());
        self.0.get_or_insert_with(over).as_mut().poll(context)
    }
}
