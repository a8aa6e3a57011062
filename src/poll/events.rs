//! Following an operation as a stream of events (HTML, section 9.2, *Server-sent events*).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};

use super::{
    body::{EventStreamState, NextEvent, PollBody},
    conditional,
    context::in_context,
    settings::{HeldLimit, HeldPoll, Settings},
};
use crate::{
    dialect::{ApiError, Bound, whole_seconds},
    operation::BufferedBody,
    store::{Reader, Record, Store},
};

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Begins a stream with the current operation. If the client sends `Last-Event-ID`, the stream
/// begins with the events that the client has missed.
///
/// From then on every change is an event. A client that is behind by more changes than a record
/// remembers gets only the latest of them. The stream ends after the terminal event, and when
/// the server shuts down.
pub(super) fn events<S: Store>(
    settings: &Arc<Settings<S>>,
    parts: Parts,
    record: Record<S::Output>,
) -> Response<PollBody> {
    let seen = parts.headers.get(&LAST_EVENT_ID).map(HeaderValue::as_bytes);
    let untold = match seen {
        Some(seen) => missed(&record, seen),
        None => VecDeque::from([record.clone()]),
    };
    if untold.is_empty() && record.operation().state().is_terminal() {
        // This response stops the client from reconnecting.
        let mut response = Response::new(BufferedBody::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response.map(PollBody::from);
    }
    let held = match settings.streams.one(settings.shared.known_owner(&parts)) {
        Ok(held) => held,
        Err(full) => {
            let fault = ApiError::Overloaded {
                bound: match full {
                    HeldLimit::ForAll => Bound::Streams,
                    HeldLimit::ForOwner => Bound::StreamsPerOwner,
                },
                retry_after: Duration::from_secs(whole_seconds(settings.keep_alive)),
            };
            return settings.fault(&fault).map(PollBody::from);
        }
    };
    let stream = EventStream {
        settings: Arc::clone(settings),
        parts,
        record,
        is_closing: false,
        untold,
        _held: held,
    };
    let mut response = Response::new(PollBody::events(stream.next()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-store"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

struct EventStream<S: Store> {
    settings: Arc<Settings<S>>,
    parts: Parts,
    /// The record that was last read.
    record: Record<S::Output>,
    /// Whether no more changes are awaited, since the node closes.
    is_closing: bool,
    /// The records that have not been sent yet.
    untold: VecDeque<Record<S::Output>>,
    _held: HeldPoll,
}

/// Returns the records after the event `id`: all later ones, or the current record alone if
/// the event is not of this record.
fn missed<T: Clone>(record: &Record<T>, id: &[u8]) -> VecDeque<Record<T>> {
    let is_seen = |record: &Record<T>| conditional::tag(record).as_bytes() == id;
    if is_seen(record) {
        return VecDeque::new();
    }
    let remembered = record.remembered();
    let seen = remembered.iter().position(is_seen);
    let since = seen.map_or(remembered.len(), |seen| seen + 1);
    events_of(remembered.into_iter().skip(since), record)
}

fn events_of<T: Clone>(
    between: impl Iterator<Item = Record<T>>,
    record: &Record<T>,
) -> VecDeque<Record<T>> {
    between.chain([record.clone()]).collect()
}

impl<S: Store> EventStream<S> {
    fn next(mut self) -> NextEvent {
        Box::pin(async move {
            if self.untold.is_empty() && !self.until_news().await? {
                return Some((KEEP_ALIVE, self.after()));
            }
            let record = self.untold.pop_front()?;
            let event = self.event(&record)?;
            Some((event, self.after()))
        })
    }

    fn after(self) -> EventStreamState {
        EventStreamState(Box::new(|| self.next()))
    }

    /// Waits for a change. Returns false if a keep-alive comment is due, and `None` if no more
    /// changes will come.
    async fn until_news(&mut self) -> Option<bool> {
        if self.record.operation().state().is_terminal() || self.is_closing {
            return None;
        }
        let (changed, version) = (self.settings.powers.changed?, self.record.version()?);
        let (id, owner) = (self.record.operation().id(), self.record.owner());
        let reader = Reader::new(owner).with_max_body(self.settings.inline_limit);
        let (store, at_most) = (self.settings.store(), self.settings.keep_alive);
        let next = tokio::select! {
            biased;
            next = changed(store, id, version, at_most, reader) => next,
            () = self.settings.closing().cancelled() => return None,
        };
        let next = next
            .inspect_err(|error| {
                tracing::warn!(%id, error = error.report(), "event stream ended, store unavailable");
            })
            .ok()?
            // An operation of another owner may have replaced the operation.
            .filter(|next| next.owner() == owner)?;
        let is_news = next.version() != Some(version);
        if is_news {
            // A run that reports all the time does not keep a node from closing.
            self.is_closing = self.settings.closing().is_cancelled();
            self.untold = events_of(next.between(version), &next);
            self.record = next;
        }
        Some(is_news)
    }

    fn event(&self, record: &Record<S::Output>) -> Option<Bytes> {
        let id = conditional::tag(record);
        let view = record.operation().view();
        let dialect = &self.settings.shared.dialect;
        let event = in_context(&self.settings, &self.parts, record, |context| {
            dialect.event(&view, context)
        });
        event.ok().map(|event| event.encode(&id).into())
    }
}

/// The keep-alive comment: proxies see that the connection lives, clients ignore it.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");
