//! An accepted request on its way to a worker, through a queue.

use bytes::{BufMut, Bytes};
use http::Request;
use serde::{Deserialize, Serialize};

use super::stored_request::{self, StoredRequest};
use crate::{
    BoxError,
    operation::{BufferedBody, OperationId, RecordedResponse},
    store::{FencingToken, LeaseHandle, Owner, Record},
};

/// An accepted request as it goes through a queue: the id of the operation, its fencing token,
/// its owner, and the request with its headers and body verbatim.
///
/// A layer with a [result store](crate::Operations::result_store) puts a body above the threshold
/// there, and the message has its key, length and SHA-256 instead. The worker reads the body from
/// [its result store](super::RunService::result_store).
///
/// The queue may lose the message, or deliver it late, twice, or to several workers. A
/// [`RunService`](super::RunService) claims the operation with the token before it runs
/// anything, and exactly one of all claims with the same token succeeds.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http::{Request, Response};
/// use tower::{ServiceExt, service_fn};
/// use tower_operations::{
///     MemoryStore, OperationId, QueuedRequest, RunOutcome, RunService, State, BufferedBody,
///     store::{Created, NewOperation, Repository},
/// };
///
/// let store = MemoryStore::new();
/// let Created::New(record) = store.create(NewOperation::new(OperationId::new())).await? else {
///     unreachable!("the id is new");
/// };
/// let request = Request::post("/reports").body(BufferedBody::from("Q3"))?;
/// let message = QueuedRequest::new(&record, request).to_bytes();
///
/// // Elsewhere, twice.
/// let app = service_fn(|_: Request<BufferedBody>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(BufferedBody::from("done")))
/// });
/// let workers = RunService::new(store, app);
/// let queued = QueuedRequest::from_bytes(&message)?;
/// let ran = workers.clone().oneshot(queued.clone()).await?;
/// assert_eq!(ran, RunOutcome::Recorded(State::Succeeded));
/// assert_eq!(workers.oneshot(queued).await?, RunOutcome::Refused);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct QueuedRequest {
    held: LeaseHandle,
    owner: Option<Owner>,
    /// The request in its stored form.
    request: Bytes,
}

/// The version of the layout. Version 1: the length of the head (`u32`, little endian), the
/// head as JSON, the request in a layout of its own.
const LAYOUT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct MessageHead {
    id: String,
    token: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

impl QueuedRequest {
    /// Creates the message of the operation that `record` shows. The creator of the operation
    /// holds it.
    ///
    /// `Authorization`, `Proxy-Authorization`, `Cookie` and fields that are marked as
    /// sensitive are left out. Extensions do not go through a queue.
    #[must_use]
    pub fn new(record: &Record<RecordedResponse>, request: Request<BufferedBody>) -> Self {
        Self::stored(record, request, false)
    }

    /// Creates the message with credentials; otherwise as [`new`](Self::new).
    #[must_use]
    pub fn with_credentials(
        record: &Record<RecordedResponse>,
        request: Request<BufferedBody>,
    ) -> Self {
        Self::stored(record, request, true)
    }

    fn stored(
        record: &Record<RecordedResponse>,
        request: Request<BufferedBody>,
        with_credentials: bool,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let request = stored_request::store(&parts, &parts.uri, &body, with_credentials);
        // No part of a request exceeds its length field.
        Self::from_record(record, request.unwrap_or_default())
    }

    /// Creates the message of a request that is already stored.
    pub(crate) fn from_record(record: &Record<RecordedResponse>, request: Bytes) -> Self {
        let held = LeaseHandle {
            id: record.operation().id().clone(),
            token: record.token(),
        };
        let owner = record.owner().cloned();
        Self {
            held,
            owner,
            request,
        }
    }

    /// Returns the id of the operation.
    #[must_use]
    pub fn id(&self) -> &OperationId {
        &self.held.id
    }

    /// Returns the owner of the operation. The worker uses the owner in the store.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Returns the message as bytes. Law 10: later releases read these bytes, and so does the
    /// previous release.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let head = MessageHead {
            id: self.held.id.to_string(),
            token: self.held.token.get(),
            owner: self.owner.as_ref().map(|owner| owner.as_str().to_owned()),
        };
        // The head is text and numbers: serialization cannot fail.
        let head = serde_json::to_vec(&head).unwrap_or_default();
        let mut out = Vec::with_capacity(1 + 4 + head.len() + self.request.len());
        out.put_u8(LAYOUT);
        out.put_u32_le(head.len() as u32);
        out.put_slice(&head);
        out.put_slice(&self.request);
        out.into()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Returns [`InvalidMessage`] if this release cannot read the message.
    pub fn from_bytes(message: &Bytes) -> Result<Self, InvalidMessage> {
        let read = || -> Result<Self, BoxError> {
            let (layout, rest) = message.split_first().ok_or(CUT)?;
            if *layout != LAYOUT {
                return Err(format!("a message of layout {layout} is of a newer release").into());
            }
            let (length, rest) = rest.split_first_chunk().ok_or(CUT)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (head, request) = rest.split_at_checked(length).ok_or(CUT)?;
            let head: MessageHead = serde_json::from_slice(head)?;
            let queued = Self {
                held: LeaseHandle {
                    id: OperationId::from_stored(&head.id)?,
                    token: FencingToken::from_number(head.token),
                },
                owner: head.owner.map(Owner::new),
                request: message.slice_ref(request),
            };
            queued.request()?;
            Ok(queued)
        };
        read().map_err(InvalidMessage)
    }

    pub(super) fn lease_handle(&self) -> &LeaseHandle {
        &self.held
    }

    pub(super) fn request(&self) -> Result<StoredRequest, BoxError> {
        stored_request::restore(&self.request)
    }
}

const CUT: &str = "truncated message";

/// The error of a message that this release cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be read by this release")]
pub struct InvalidMessage(#[source] BoxError);

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    fn queued() -> QueuedRequest {
        queued_by(None)
    }

    fn queued_by(owner: Option<Owner>) -> QueuedRequest {
        let id = "invoice-7".parse().unwrap();
        let mut new = crate::store::NewOperation::new(id).with_owner(owner);
        new.token = FencingToken::from_number(7);
        let record = Record::create(&new, std::time::UNIX_EPOCH);
        let request = Request::post("http://example.com/reports?a=%20b")
            .version(Version::HTTP_2)
            .header(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            .header("authorization", "Bearer abc")
            .body(BufferedBody::from("{\"pages\":3}"));
        QueuedRequest::new(&record, request.unwrap())
    }

    #[test]
    fn messages_survive_a_round_trip() {
        let back = QueuedRequest::from_bytes(&queued().to_bytes()).unwrap();
        assert_eq!(back.held, queued().held);
        let request = back.request().unwrap().request;
        assert_eq!(request.body().data(), "{\"pages\":3}");
        assert!(request.headers().contains_key("traceparent"));
        assert!(!request.headers().contains_key("authorization"));
    }

    #[test]
    fn messages_are_read_whose_id_has_become_a_reserved_word() {
        let bytes = queued().to_bytes();
        let at = bytes.windows(9).position(|at| at == b"invoice-7").unwrap();
        let mut bytes = bytes.to_vec();
        bytes[at..at + 9].copy_from_slice(b"terminate");
        let read = QueuedRequest::from_bytes(&bytes.into()).unwrap();
        assert_eq!(read.id().to_string(), "terminate");
    }

    #[test]
    fn truncated_messages_and_other_layouts_are_errors() {
        let bytes = queued().to_bytes();
        let whole = bytes.len() - "{\"pages\":3}".len();
        for length in 0..whole {
            let cut = QueuedRequest::from_bytes(&bytes.slice(..length));
            assert!(cut.is_err(), "{length}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert!(QueuedRequest::from_bytes(&newer.into()).is_err());
    }

    /// Law 10: written messages remain readable.
    #[test]
    fn written_messages_have_not_changed() {
        let bytes = queued().to_bytes();
        assert_eq!(&bytes[..], include_bytes!("golden/queued-1.bin"));
        let bytes = queued_by(Some(Owner::new("ada"))).to_bytes();
        assert_eq!(&bytes[..], include_bytes!("golden/queued-1-owner.bin"));
        let back = QueuedRequest::from_bytes(&bytes).unwrap();
        assert_eq!(back.owner(), Some(&Owner::new("ada")));
    }
}
