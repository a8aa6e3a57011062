use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tower_operations::BufferedBody;

use crate::work::Run;

/// The number of frames of a long document, and the length of the shortest one in bytes.
const FRAMES: usize = 8;
const SHORTEST: usize = 200;

/// The body of a response, which is produced in frames. The run ends with the last one.
pub(crate) struct ReportBody {
    rest: Bytes,
    /// The length of a frame, in bytes.
    frame: usize,
    /// The time before each frame.
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    run: Option<Run>,
}

impl ReportBody {
    /// Returns the body of a document that a run makes.
    pub(crate) fn new(document: Bytes, run: Run) -> Self {
        let frame = document.len().div_ceil(FRAMES).max(SHORTEST);
        let pause = match document.len() > frame {
            true => [0, 3, 10, 30, 80][document.len() % 5],
            false => 0,
        };
        Self {
            rest: document,
            frame,
            pause: Duration::from_millis(pause),
            sleep: None,
            run: Some(run),
        }
    }
}

/// Returns the body of a response that is whole.
impl From<BufferedBody> for ReportBody {
    fn from(body: BufferedBody) -> Self {
        let (rest, _) = body.into_parts();
        Self {
            frame: rest.len(),
            rest,
            pause: Duration::ZERO,
            sleep: None,
            run: None,
        }
    }
}

impl Body for ReportBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            if !this.pause.is_zero() {
                let pause = this.pause;
                let wait = this.sleep.get_or_insert_with(|| Box::pin(sleep(pause)));
                ready!(wait.as_mut().poll(context));
                this.sleep = None;
            }
            let frame = this.rest.split_to(this.frame.min(this.rest.len()));
            if this.rest.is_empty()
                && let Some(run) = this.run.take()
            {
                run.end();
            }
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.len() > self.frame {
            // A service that streams does not know the length.
            true => SizeHint::new(),
            false => SizeHint::with_exact(self.rest.len() as u64),
        }
    }
}
