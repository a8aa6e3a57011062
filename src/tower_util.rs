//! Calls of services: the few utilities of `tower` that the crate needs, without the
//! dependencies of its feature `util`.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

/// Waits until a service is ready to be called.
pub(crate) async fn until_ready<S: Service<R>, R>(service: &mut S) -> Result<(), S::Error> {
    poll_fn(|context| service.poll_ready(context)).await
}

pin_project! {
    /// The future of a service that is called once it is ready.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Oneshot<S: Service<R>, R> {
        #[pin]
        state: OneshotState<S, R, S::Future>,
    }
}

pin_project! {
    #[project = OneshotProjection]
    enum OneshotState<S, R, F> {
        NotReady { service: S, request: Option<R> },
        Called { #[pin] response: F },
    }
}

impl<S: Service<R>, R> Oneshot<S, R> {
    pub(crate) fn new(service: S, request: R) -> Self {
        Self {
            state: OneshotState::NotReady {
                service,
                request: Some(request),
            },
        }
    }
}

impl<S: Service<R>, R> Future for Oneshot<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                OneshotProjection::NotReady { service, request } => {
                    ready!(service.poll_ready(context))?;
                    let request = request.take().expect("polled after completion");
                    let response = service.call(request);
                    state.set(OneshotState::Called { response });
                }
                OneshotProjection::Called { response } => return response.poll(context),
            }
        }
    }
}

/// A service that is always ready, from a closure.
pub(crate) struct ServiceFn<F>(pub(crate) F);

impl<F, R, Fut, T, E> Service<R> for ServiceFn<F>
where
    F: FnMut(R) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Fut {
        (self.0)(request)
    }
}

/// A service whose requests pass through a function first.
#[derive(Clone)]
pub(crate) struct MapRequest<S, F> {
    pub(crate) inner: S,
    pub(crate) map: F,
}

impl<S, F, R, T> Service<R> for MapRequest<S, F>
where
    S: Service<T>,
    F: FnMut(R) -> T,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call((self.map)(request))
    }
}
