use serde::{Deserialize, Serialize};
use tower_operations::operation::State;

/// A request of a client, from sending it to receiving its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The client that sent the request.
    pub client: String,
    /// The owner on whose behalf the client sent the request: an operation belongs to the owner
    /// that posted it. Without an owner, all clients count as one owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The node to which the request was sent.
    pub node: String,
    /// The time at which the request was sent.
    pub begin: u64,
    /// The time at which the answer was received, or at which it was certain that no answer
    /// comes.
    pub end: u64,
    /// The request.
    pub ask: CallRequest,
    /// The answer.
    pub answer: CallAnswer,
}

/// The request of a client.
///
/// An id that was deleted may be chosen again. The log then calls the second operation of
/// that id `ID#2`, the third `ID#3`, in every request and answer. Runs, lists and damages
/// have the id alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallRequest {
    /// Posts a request that is to be accepted.
    Post {
        /// The title of the request. Its result names the title. No other request of its
        /// owner has the title, except a repetition under the same key.
        title: String,
        /// The idempotency key. A key of an owner belongs to one title.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The operation id that the client chose.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The number of milliseconds for which the answer may be held. A held call whose client or
        /// node goes away frees the key, so a repetition runs again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<u64>,
    },
    /// Reads an operation.
    Poll {
        /// The operation.
        operation: String,
        /// The number of milliseconds for which the answer may be held.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait: Option<u64>,
        /// The version that ends the wait as soon as the operation has another version. Without
        /// a version, the answer is held until the operation has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
    },
    /// Follows the events of an operation.
    Events {
        /// The operation.
        operation: String,
        /// The version in `Last-Event-ID`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// Reads the result of an operation.
    Result {
        /// The operation.
        operation: String,
    },
    /// Cancels an operation.
    Cancel {
        /// The operation.
        operation: String,
    },
    /// Deletes an operation that has ended.
    #[serde(alias = "forget")]
    Delete {
        /// The operation.
        operation: String,
    },
    /// Lists all operations of the owner, from the first page to the last.
    List,
}

impl CallRequest {
    /// Returns the subject of the request: an operation, or the title of the operation to
    /// create.
    pub(super) fn about(&self) -> &str {
        match self {
            Self::Post { title, .. } => title,
            Self::Poll { operation, .. }
            | Self::Events { operation, .. }
            | Self::Result { operation }
            | Self::Cancel { operation }
            | Self::Delete { operation } => operation,
            Self::List => "list",
        }
    }
}

/// The answer to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallAnswer {
    /// The post is accepted (202).
    Accepted {
        /// The operation.
        operation: String,
    },
    /// The operation as it is (200); also the answer to a cancellation.
    Operation(Sighting),
    /// The events until the stream ended, broke, or was left by the client.
    Events {
        /// The events, in the order of the stream.
        seen: Vec<Sighting>,
    },
    /// The version that the client has is the latest (304).
    Unchanged {
        /// The version.
        version: u64,
    },
    /// The result, or the problem in its place. As the answer to a post: the response was
    /// ready before an operation was created.
    Result(SeenResult),
    /// The operation has no result yet (202).
    Unfinished,
    /// The operation has ended with a result that cannot be read (500), not even later.
    Unreadable,
    /// There is no such operation (404).
    Absent,
    /// The operation cannot be canceled: it has succeeded or failed (409).
    Finished,
    /// The operation is deleted (204).
    #[serde(alias = "forgotten")]
    Deleted,
    /// The operations of the owner.
    Listed {
        /// The ids of the operations.
        operations: Vec<String>,
    },
    /// Any other answer that promises nothing, for example at overload or while the store is
    /// away.
    Refused {
        /// The status.
        status: u16,
    },
    /// No answer: the connection was lost, or the client stopped waiting.
    Nothing,
}

impl CallAnswer {
    /// Returns whether the answer says something about the operation.
    pub(super) fn tells(&self) -> bool {
        match self {
            Self::Operation(_)
            | Self::Events { .. }
            | Self::Unchanged { .. }
            | Self::Result(_)
            | Self::Unfinished
            | Self::Unreadable
            | Self::Absent
            | Self::Finished
            | Self::Accepted { .. } => true,
            Self::Deleted | Self::Listed { .. } | Self::Refused { .. } | Self::Nothing => false,
        }
    }
}

/// An operation as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The number of the version, which is in the `ETag`.
    pub version: u64,
    /// The state.
    pub state: State,
    /// A digest of everything that was shown, times and progress included.
    pub content: String,
    /// The result, if it was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<SeenResult>,
}

/// A result as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenResult {
    /// A digest of the bytes of the result, and of everything else that must not change.
    pub digest: String,
    /// The title that the result names, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The type of the problem in place of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
