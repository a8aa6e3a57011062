//! What stores are asked with, and some of what they answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;

use super::{FencingToken, IdempotencyKey, NodeId, Owner, Record};
use crate::operation::{OperationId, State, StateSet};

/// An operation to be created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewOperation {
    /// Its name.
    pub id: OperationId,
    /// The token of its first holder, which nobody else has: by it a creator
    /// knows its own operation again, and the late holder of an earlier one of
    /// this id is shut out.
    pub token: FencingToken,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Whether the application knows owners. Operations without an owner then count as
    /// one owner's, in a store that gives each owner a share.
    pub owners_known: bool,
    /// The method of the request.
    pub method: Option<Method>,
    /// The name of this kind of operation.
    pub name: Option<Arc<str>>,
    /// Who is going to run it; `None` if nobody holds it yet.
    pub lease: Option<LeaseConfig>,
    /// Whether its holder runs it already: it is running from its first version on,
    /// started once.
    pub is_running: bool,
    /// The key under which a repetition finds it again; of the same owner.
    pub key: Option<IdempotencyKey>,
    /// The token of a [reservation](super::IdempotencyKeys::reserve) of that key.
    pub reservation: Option<FencingToken>,
    /// What whoever takes it over needs to run it again; its form is the
    /// caller's.
    pub request: Option<Bytes>,
}

impl NewOperation {
    /// An operation that is nobody's and held by nobody.
    #[must_use]
    pub fn new(id: OperationId) -> Self {
        Self {
            id,
            token: FencingToken::random(),
            owner: None,
            owners_known: false,
            method: None,
            name: None,
            lease: None,
            is_running: false,
            key: None,
            reservation: None,
            request: None,
        }
    }

    /// Sets whose it is, and so is its key.
    #[must_use]
    pub fn owner(mut self, owner: Option<Owner>) -> Self {
        if let Some(key) = &mut self.key {
            key.owner.clone_from(&owner);
        }
        Self { owner, ..self }
    }

    /// Sets the method of the request.
    #[must_use]
    pub fn method(self, method: Method) -> Self {
        Self {
            method: Some(method),
            ..self
        }
    }

    /// Sets the name of this kind of operation.
    #[must_use]
    pub fn name(self, name: Option<Arc<str>>) -> Self {
        Self { name, ..self }
    }

    /// Sets who is going to run it.
    #[must_use]
    pub fn lease(self, lease: LeaseConfig) -> Self {
        Self {
            lease: Some(lease),
            ..self
        }
    }

    /// Its holder runs it already.
    #[must_use]
    pub fn running(self) -> Self {
        Self {
            is_running: true,
            ..self
        }
    }

    /// Sets the key under which a repetition finds it again. It becomes a key of the
    /// operation's owner, whoever's it was.
    #[must_use]
    pub fn key(self, key: IdempotencyKey) -> Self {
        let key = IdempotencyKey {
            owner: self.owner.clone(),
            ..key
        };
        Self {
            key: Some(key),
            ..self
        }
    }

    /// Sets what is needed to run it again. It is kept while the operation is
    /// live.
    #[must_use]
    pub fn request(self, request: Option<Bytes>) -> Self {
        Self { request, ..self }
    }

    /// Sets the token by which the key was reserved.
    #[must_use]
    pub fn reservation(self, token: FencingToken) -> Self {
        Self {
            reservation: Some(token),
            ..self
        }
    }
}

/// The right of a node to run an operation, for a time. By default a node without
/// a name of its own, and 30 seconds.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// The node.
    pub node: NodeId,
    /// How long the lease lasts without being renewed.
    pub term: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            node: NodeId::new(),
            term: Duration::from_secs(30),
        }
    }
}

/// An operation that a node holds, with the token it holds it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHandle {
    /// The operation.
    pub id: OperationId,
    /// The token.
    pub token: FencingToken,
}

/// An operation whose lease was taken over.
#[derive(Debug)]
pub struct Reclaimed<T> {
    /// The operation. The record's token is the new holder's.
    pub record: Arc<Record<T>>,
    /// What it was [created](NewOperation::request) with, for running it again.
    pub request: Option<Bytes>,
}

/// Which operations to list: those of one owner, newest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListQuery {
    /// Whose; `None` lists what is nobody's.
    pub owner: Option<Owner>,
    /// Only those in one of these states.
    pub states: StateSet,
    /// At most so many.
    pub limit: usize,
    /// A page ends with the operation whose result brings its results to so many bytes.
    pub max_bytes: usize,
    /// Only what comes after the page that gave this cursor.
    pub after: Option<Cursor>,
}

impl ListQuery {
    /// The newest `limit` operations of `owner`.
    #[must_use]
    pub fn new(owner: Option<Owner>, limit: usize) -> Self {
        Self {
            owner,
            states: StateSet::ALL,
            limit,
            max_bytes: usize::MAX,
            after: None,
        }
    }

    /// Ends a page with the operation whose result brings its results to so many bytes,
    /// so that a page is bounded by that and the largest result.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Only those in this state.
    #[must_use]
    pub fn state(self, state: State) -> Self {
        self.states([state])
    }

    /// Only those in one of these states.
    #[must_use]
    pub fn states(self, states: impl IntoIterator<Item = State>) -> Self {
        Self {
            states: states.into_iter().collect(),
            ..self
        }
    }

    /// Only what comes after the page that gave this cursor.
    #[must_use]
    pub fn after(self, cursor: Cursor) -> Self {
        Self {
            after: Some(cursor),
            ..self
        }
    }
}

/// Where the next page begins. Its text is the store's own, and goes into a URL as it is.
///
/// It continues the list that it came from, for the same owner and the same filters, and
/// no other. The stores of this crate give cursors that nobody else can read or make up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Arc<str>);

/// A part of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The operations, newest first.
    pub records: Vec<Arc<Record<T>>>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
}
