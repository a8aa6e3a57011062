//! Recording a response: its body is collected, or goes to the result store if it is long.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, uri::PathAndQuery};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;

use super::{
    failures::{inner_error, not_stored, too_large},
    in_flight::{ByteBudget, ResultBytes},
    run_context::RunContext,
    upload::Upload,
};
use crate::{
    BoxError,
    operation::{
        BodyCollector, BodyTooLarge, OperationId, Outcome, RecordedResponse, resolve_references,
    },
    results::{ResultKey, ResultStorage},
};

/// The rules by which a response is recorded.
#[derive(Clone, Copy)]
pub(crate) struct Recording<'a> {
    /// The operation.
    pub(crate) id: &'a OperationId,
    /// The URI against which references in the header are resolved, so that they mean the same
    /// wherever the response is replayed; `None` if it is replayed where it came from.
    pub(crate) base: Option<&'a PathAndQuery>,
    /// The largest body in bytes.
    pub(crate) limit: u64,
    /// The budget in which the bytes of the body count.
    pub(crate) budget: &'a ByteBudget,
    /// The result store for a long body, and the run that uploads it.
    pub(crate) apart: Option<(&'a ResultStorage, &'a RunContext)>,
}

impl Recording<'_> {
    fn too_large(&self) -> Outcome<RecordedResponse> {
        too_large(self.id, self.limit, self.apart.is_some())
    }
}

pin_project! {
    /// The future of [`collect`]. An `async` function would store the response twice, whole and
    /// in parts, while the body is collected.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Collect<'a, B> {
        rules: Recording<'a>,
        head: Response<()>,
        #[pin]
        body: B,
        collecting: BodyCollector,
        // The bytes of a result are counted and never refused.
        counted: ResultBytes<'a>,
        // The upload of a long body.
        upload: Option<Box<Upload>>,
    }
}

/// Records a response. Returns the outcome if the body is above the limit, breaks off, or cannot
/// be stored.
pub(crate) fn collect<B>(response: Response<B>, rules: Recording<'_>) -> Collect<'_, B> {
    let (parts, body) = response.into_parts();
    Collect {
        rules,
        head: Response::from_parts(parts, ()),
        body,
        collecting: BodyCollector::up_to(rules.limit),
        counted: rules.budget.result_bytes(0),
        upload: None,
    }
}

impl<B> Future for Collect<'_, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<RecordedResponse, Outcome<RecordedResponse>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let rules = *this.rules;
        if this.upload.is_none() && this.body.size_hint().lower() > rules.limit {
            return Poll::Ready(Err(rules.too_large()));
        }
        loop {
            if let Some(upload) = this.upload {
                if !ready!(poll_upload(upload, &rules, context))? {
                    break;
                }
                this.counted.set(upload.buffered());
            }
            match ready!(this.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => match this.upload {
                    None => {
                        this.counted.add(frame.data_ref().map_or(0, Bytes::len));
                        if this.collecting.push(frame).is_err() {
                            return Poll::Ready(Err(rules.too_large()));
                        }
                        if is_long(this.collecting, &rules) {
                            *this.upload = begin_upload(this.collecting, this.head, &rules);
                        }
                    }
                    Some(upload) => {
                        if upload_frame(frame, upload, this.collecting, this.counted, rules.limit)
                            .is_err()
                        {
                            return Poll::Ready(Err(rules.too_large()));
                        }
                    }
                },
                Some(Err(error)) => return Poll::Ready(Err(inner_error(rules.id, &error.into()))),
                None => match this.upload {
                    None => break,
                    Some(upload) => upload.finish(),
                },
            }
        }
        if this.upload.is_some() {
            crash_point!("uploaded");
        }
        crash_point!("collected");
        let mut head = std::mem::take(this.head);
        if let Some(base) = rules.base {
            resolve_references(head.headers_mut(), base);
        }
        let body = this.collecting.finish();
        Poll::Ready(Ok(match (&this.upload, rules.apart) {
            (Some(upload), Some((_, work))) => {
                let (_, trailers) = body.into_parts();
                // The limit is within the lengths that a `usize` has.
                let length = usize::try_from(upload.length()).unwrap_or(usize::MAX);
                let (head, ()) = head.into_parts();
                RecordedResponse::apart(
                    &head,
                    trailers,
                    length,
                    upload.digest(),
                    work.token().get(),
                )
            }
            _ => RecordedResponse::new(head.map(|()| body)),
        }))
    }
}

fn is_long(collecting: &BodyCollector, rules: &Recording<'_>) -> bool {
    let threshold = rules.apart.map(|(results, _)| results.threshold);
    threshold.is_some_and(|threshold| collecting.len() as u64 > threshold)
}

#[cold]
fn begin_upload(
    collecting: &mut BodyCollector,
    head: &Response<()>,
    rules: &Recording<'_>,
) -> Option<Box<Upload>> {
    let (results, work) = rules.apart?;
    let key = ResultKey::new(work.id.clone(), work.token());
    let upload = Upload::begin(
        results.store.clone(),
        key,
        head.headers().clone(),
        collecting.take_data(),
    );
    Some(Box::new(upload))
}

/// Waits until an upload takes another chunk. Returns false once the upload has ended.
fn poll_upload(
    upload: &mut Upload,
    rules: &Recording<'_>,
    context: &mut Context<'_>,
) -> Poll<Result<bool, Outcome<RecordedResponse>>> {
    let ready = upload.poll_ready(context);
    if let Some((_, work)) = rules.apart {
        work.set_storing_fails(ready.is_pending() && upload.is_failing());
    }
    match ready!(ready) {
        Ok(()) => Poll::Ready(Ok(!upload.is_over())),
        Err(error) => Poll::Ready(Err(not_stored(rules.id, &error))),
    }
}

/// Uploads the data of a frame, and collects trailers.
fn upload_frame(
    frame: Frame<Bytes>,
    upload: &mut Upload,
    collecting: &mut BodyCollector,
    counted: &mut ResultBytes<'_>,
    limit: u64,
) -> Result<(), BodyTooLarge> {
    let data = match frame.into_data() {
        Ok(data) => data,
        Err(trailers) => return collecting.push(trailers),
    };
    if upload.length() + data.len() as u64 > limit {
        return Err(BodyTooLarge);
    }
    counted.add(data.len());
    upload.write(data);
    Ok(())
}
