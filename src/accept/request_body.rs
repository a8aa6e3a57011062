use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use super::refuse::Refusal;
use crate::{
    operation::{BodyCollector, BufferedBody},
    run::{BodyBytes, UNCOUNTED},
};

/// The number of bytes above the limit that are read and discarded to keep the connection.
const EXCESS: u64 = 64 * 1024;

/// The time to wait for the end of a body above the limit, to keep the connection. A body whose
/// declared length is above the limit is refused without this wait.
const RESPITE: Duration = Duration::from_millis(200);

/// Collects a request body, up to a limit and within a time.
///
/// The body is boxed so that its rest can be passed to [`discard`] once the request is
/// refused.
pub(super) struct CollectBody<B> {
    body: Pin<Box<B>>,
    collecting: BodyCollector,
    /// The bytes in flight, once the body is long enough to count.
    counted: Option<BodyBytes>,
    /// The limit of the body, in bytes.
    limit: u64,
    received: u64,
    at_most: Duration,
    /// The timer, created when the body has to be awaited.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The reason why a body could not be collected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CollectError {
    pub(super) refusal: Refusal,
    /// Whether the client may still be sending the body.
    pub(super) unread: bool,
}

impl CollectError {
    /// The drain ended before the body did.
    pub(super) const SHUT_DOWN: Self = Self {
        refusal: Refusal::Closed,
        unread: true,
    };
}

impl<B> CollectBody<B> {
    pub(super) fn new(body: B, limit: u64, at_most: Duration) -> Self {
        Self {
            body: Box::pin(body),
            collecting: BodyCollector::up_to(limit),
            counted: None,
            limit,
            received: 0,
            at_most,
            timer: None,
        }
    }

    pub(super) fn into_rest(self) -> Pin<Box<B>> {
        self.body
    }
}

impl<B> CollectBody<B>
where
    B: Body<Data = Bytes>,
{
    /// Collects what has come. `none` returns the bytes of a body that does not count yet.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        none: impl Fn() -> BodyBytes,
    ) -> Poll<Result<BufferedBody, CollectError>> {
        loop {
            let Poll::Ready(frame) = self.body.as_mut().poll_frame(context) else {
                let at_most = self.at_most;
                let timer = self
                    .timer
                    .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + at_most)));
                ready!(timer.as_mut().poll(context));
                let refusal = match self.is_above_limit() {
                    true => Refusal::BodyTooLarge,
                    false => Refusal::BodyTimeout,
                };
                return Poll::Ready(Err(CollectError {
                    refusal,
                    unread: true,
                }));
            };
            let unread = match frame {
                None if self.is_above_limit() => false,
                None => {
                    let body = self.collecting.finish();
                    return Poll::Ready(Ok(match self.counted.take() {
                        Some(counted) => counted.hold_until_read(body),
                        None => body,
                    }));
                }
                Some(Err(_)) => {
                    let refusal = Refusal::BodyUnreadable;
                    return Poll::Ready(Err(CollectError {
                        refusal,
                        unread: false,
                    }));
                }
                Some(Ok(frame)) => {
                    let was_above = self.is_above_limit();
                    self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                    if self.received > UNCOUNTED as u64
                        && !self.is_above_limit()
                        && let counted = self.counted.get_or_insert_with(&none)
                        && let Err(exceeded) = counted.grow_to(self.received as usize)
                    {
                        return Poll::Ready(Err(CollectError {
                            refusal: exceeded.into(),
                            unread: true,
                        }));
                    }
                    if self.is_above_limit() && !was_above {
                        self.wait_no_longer_than(RESPITE);
                    }
                    if !self.is_above_limit() && self.collecting.push(frame).is_ok() {
                        continue;
                    }
                    // Bytes above the limit are read but not stored: the body may end soon.
                    (self.collecting, self.counted) = (BodyCollector::up_to(0), None);
                    if self.received <= self.limit.saturating_add(EXCESS) {
                        continue;
                    }
                    true
                }
            };
            return Poll::Ready(Err(CollectError {
                refusal: Refusal::BodyTooLarge,
                unread,
            }));
        }
    }

    fn wait_no_longer_than(&mut self, time: Duration) {
        let until = Instant::now() + time.min(self.at_most);
        match &self.timer {
            Some(timer) if timer.deadline() <= until => {}
            _ => self.timer = Some(Box::pin(sleep_until(until))),
        }
    }

    fn is_above_limit(&self) -> bool {
        self.received > self.limit
    }
}

/// The bounds on reading the body of a refused request, in bytes and in time.
const DISCARDED: u64 = 16 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(2);

/// Reads and discards the rest of a request body.
///
/// A server that closes a connection with unread data resets the connection, and the client
/// may lose the response (RFC 9112, section 9.6).
pub(super) async fn discard<B>(mut body: Pin<Box<B>>, answered: oneshot::Receiver<Infallible>)
where
    B: Body<Data = Bytes>,
{
    let until = Instant::now() + DISCARDING;
    let _ = timeout_at(until, answered).await;
    let mut left = DISCARDED;
    loop {
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
        let Ok(Some(Ok(frame))) = timeout_at(until, frame).await else {
            return;
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Frame;

    use super::*;
    use crate::run::InFlight;

    const AT_ONCE: Duration = Duration::from_millis(250);

    /// An endless body: silent, or with one mebibyte in each frame.
    struct Endless {
        silent: bool,
        sent: std::sync::Arc<std::sync::atomic::AtomicU64>,
    }

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.silent {
                return Poll::Pending;
            }
            let frame = Bytes::from(vec![0; 1 << 20]);
            self.sent
                .fetch_add(frame.len() as u64, std::sync::atomic::Ordering::SeqCst);
            Poll::Ready(Some(Ok(Frame::data(frame))))
        }
    }

    /// A body of three kilobytes, sent one by one, that then stalls.
    struct Stalling(usize);

    impl Body for Stalling {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0 {
                0 => Poll::Pending,
                _ => {
                    self.0 -= 1;
                    Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; 1000])))))
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_above_the_limit_is_too_large_at_once() {
        let at_most = Duration::from_secs(30);
        for (limit, refusal, took) in [
            (2000, Refusal::BodyTooLarge, AT_ONCE),
            (3000, Refusal::BodyTimeout, at_most),
        ] {
            let none = || InFlight::new(1).bytes().body_bytes(None);
            let mut body = CollectBody::new(Stalling(3), limit, at_most);
            let begun = Instant::now();
            let collected = std::future::poll_fn(|context| body.poll(context, none)).await;
            let unread = true;
            assert_eq!(collected.err(), Some(CollectError { refusal, unread }));
            assert!(begun.elapsed() <= took, "{limit}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn discarded_bytes_are_bounded_in_time_and_in_number() {
        for silent in [true, false] {
            let sent = std::sync::Arc::default();
            let body = Endless {
                silent,
                sent: std::sync::Arc::clone(&sent),
            };
            let (answering, answered) = oneshot::channel();
            drop(answering);
            let begun = Instant::now();
            discard(Box::pin(body), answered).await;
            match silent {
                true => assert_eq!(begun.elapsed(), DISCARDING),
                false => {
                    let sent = sent.load(std::sync::atomic::Ordering::SeqCst);
                    assert!(sent > DISCARDED && sent <= DISCARDED + (2 << 20), "{sent}");
                }
            }
        }
    }
}
