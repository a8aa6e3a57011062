//! Recovering the unread rest of a request body when its call is dropped.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, Version};
use http_body::{Body, Frame, SizeHint};

use super::refuse::discard_after;
use crate::operation::BufferedBody;

/// A body that is read by the inner service. A body that is dropped before its end is returned.
pub(super) struct LentBody<B> {
    /// `None` after the end.
    body: Option<Pin<Box<B>>>,
    place: Arc<ReturnSlot<B>>,
}

/// The slot that the body is returned to.
struct ReturnSlot<B>(Mutex<BodyLocation<B>>);

enum BodyLocation<B> {
    Lent,
    Back(Pin<Box<B>>),
    /// The body has ended, or its rest is being discarded.
    Gone,
}

impl<B> ReturnSlot<B> {
    fn lock(&self) -> MutexGuard<'_, BodyLocation<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body<Data = Bytes>> LentBody<B> {
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = body.as_mut().poll_frame(context);
        // An error ends the body as well.
        if let Poll::Ready(None | Some(Err(_))) = &frame {
            self.body = None;
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let ended = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(ended, Body::size_hint)
    }
}

impl<B> Drop for LentBody<B> {
    fn drop(&mut self) {
        let back = self.body.take();
        *self.place.lock() = back.map_or(BodyLocation::Gone, BodyLocation::Back);
    }
}

impl<B> fmt::Debug for LentBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentBody").finish_non_exhaustive()
    }
}

/// The unread rest of a body that the inner service reads; nothing for any other body.
#[derive(Default)]
pub(super) struct RemainingBody(Option<Arc<dyn Discard>>);

trait Discard: Send + Sync {
    fn is_unread(&self) -> bool;

    fn discard_after(&self, version: Version, response: &mut Response<BufferedBody>);
}

impl<B: Body<Data = Bytes> + Send + 'static> Discard for ReturnSlot<B> {
    fn is_unread(&self) -> bool {
        match &*self.lock() {
            BodyLocation::Lent => true,
            BodyLocation::Back(body) => !body.is_end_stream(),
            BodyLocation::Gone => false,
        }
    }

    fn discard_after(&self, version: Version, response: &mut Response<BufferedBody>) {
        let mut place = self.lock();
        // Another task may still be reading the body.
        if matches!(*place, BodyLocation::Lent) {
            return;
        }
        let left = mem::replace(&mut *place, BodyLocation::Gone);
        drop(place);
        match left {
            BodyLocation::Back(body) if !body.is_end_stream() => {
                discard_after(version, response, body);
            }
            _ => {}
        }
    }
}

impl RemainingBody {
    /// Splits a body into the part for the inner service and the slot for the unread rest.
    pub(super) fn split<B>(body: B) -> (LentBody<B>, Self)
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let place = Arc::new(ReturnSlot(Mutex::new(BodyLocation::Lent)));
        let lent = LentBody {
            body: Some(Box::pin(body)),
            place: Arc::clone(&place),
        };
        (lent, Self(Some(place)))
    }

    /// Returns whether the client may still be sending.
    pub(super) fn is_unread(&self) -> bool {
        self.0.as_ref().is_some_and(|rest| rest.is_unread())
    }

    /// Discards the rest once the client was answered.
    pub(super) fn discard_after(&self, version: Version, response: &mut Response<BufferedBody>) {
        if let Some(rest) = &self.0 {
            rest.discard_after(version, response);
        }
    }
}
