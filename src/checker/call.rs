use serde::{Deserialize, Serialize};

use crate::operation::State;

/// A request of a client, from when it was sent to when its answer was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who asked.
    pub client: String,
    /// As whom: an operation belongs to the owner that posted it. Without one, all
    /// clients are one owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Which node was asked.
    pub node: String,
    /// When it was sent.
    pub begin: u64,
    /// When the answer was there, or it was clear that there is none.
    pub end: u64,
    /// What was asked.
    pub ask: CallRequest,
    /// What was answered.
    pub answer: CallAnswer,
}

/// What a client asks.
///
/// An id that was forgotten may be chosen again. The log then calls the second
/// operation of that id `ID#2`, the third `ID#3`, wherever it is asked for or answered.
/// Runs, lists and damages have the id alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallRequest {
    /// A request that is to be accepted.
    Post {
        /// What it is about. Its result names it, and no other request of its owner
        /// does, but a repetition under the same key.
        title: String,
        /// Its idempotency key. A key of an owner is of one title.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The operation that the client chose.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// How an operation stands.
    Poll {
        /// Which operation.
        operation: String,
        /// The answer may be held for so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait: Option<u64>,
        /// It is held until the version is not this one; until the operation
        /// has ended, without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
    },
    /// The result of an operation.
    Result {
        /// Which operation.
        operation: String,
    },
    /// That an operation be canceled.
    Cancel {
        /// Which operation.
        operation: String,
    },
    /// That an operation which has ended be forgotten.
    Forget {
        /// Which operation.
        operation: String,
    },
    /// All operations of the owner, from the first page to the last.
    List,
}

impl CallRequest {
    /// What it is about: an operation, or the title of one that is to be.
    pub(super) fn about(&self) -> &str {
        match self {
            Self::Post { title, .. } => title,
            Self::Poll { operation, .. }
            | Self::Result { operation }
            | Self::Cancel { operation }
            | Self::Forget { operation } => operation,
            Self::List => "list",
        }
    }
}

/// What a client is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallAnswer {
    /// The post is accepted (202).
    Accepted {
        /// As which operation.
        operation: String,
    },
    /// The operation as it is (200), also of a cancel.
    Operation(Sighting),
    /// The version that the client has is the latest (304).
    Unchanged {
        /// That version.
        version: u64,
    },
    /// The result, or the problem in its place. To a post: the answer came before
    /// there was an operation.
    Result(SeenResult),
    /// There is no result so far (202).
    Unfinished,
    /// There is no such operation (404).
    Absent,
    /// It cannot be canceled: it has succeeded or failed (409).
    Finished,
    /// It is forgotten (204).
    Forgotten,
    /// The operations that there are.
    Listed {
        /// Their ids.
        operations: Vec<String>,
    },
    /// Anything else that promises nothing: overload, a store that is away.
    Refused {
        /// The status.
        status: u16,
    },
    /// None: the connection was lost, or the client lost its patience.
    Nothing,
}

impl CallAnswer {
    /// Whether it says something of the operation.
    pub(super) fn tells(&self) -> bool {
        match self {
            Self::Operation(_)
            | Self::Unchanged { .. }
            | Self::Result(_)
            | Self::Unfinished
            | Self::Absent
            | Self::Finished
            | Self::Accepted { .. } => true,
            Self::Forgotten | Self::Listed { .. } | Self::Refused { .. } | Self::Nothing => false,
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
    /// A digest of all that was shown, times and progress included.
    pub content: String,
    /// The result, if it was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<SeenResult>,
}

/// A result as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenResult {
    /// A digest of its bytes, and of what else is to stay as it was.
    pub digest: String,
    /// The title that it names, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The type of the problem in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
