//! Arguments of store calls, and some of their results.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::Method;

use super::{FencingToken, IdempotencyKey, NodeId, Owner, Record};
use crate::operation::{OperationId, State, StateSet};

/// An operation to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewOperation {
    /// The id of the operation.
    pub id: OperationId,
    /// The token of the first holder, unique to it. A creator recognizes its own operation
    /// by the token, and a late holder of an earlier operation with this id is fenced out.
    pub token: FencingToken,
    /// The owner of the operation.
    pub owner: Option<Owner>,
    /// Whether the application uses owners. If so, a store with a share per owner counts
    /// all operations without an owner as those of one owner.
    pub owners_known: bool,
    /// The method of the request.
    pub method: Option<Method>,
    /// The name of this kind of operation.
    pub name: Option<Arc<str>>,
    /// The lease of the node that will run the operation; `None` if no node holds it yet.
    pub lease: Option<LeaseConfig>,
    /// Whether the holder already runs the operation. The operation is then running from
    /// its first version on, and started once.
    pub is_running: bool,
    /// The arguments that most operations do not have, in one allocation.
    rare: Option<Box<RareArguments>>,
}

#[derive(Debug, Clone, Default)]
struct RareArguments {
    key: Option<IdempotencyKey>,
    reservation: Option<FencingToken>,
    request: Option<Bytes>,
}

impl NewOperation {
    /// Creates an operation without an owner and without a holder.
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
            rare: None,
        }
    }

    /// Returns the key under which a repeated request finds the operation; of the same owner.
    #[must_use]
    pub fn key(&self) -> Option<&IdempotencyKey> {
        self.rare.as_ref()?.key.as_ref()
    }

    /// Returns a mutable reference to the key. An adapter can add a prefix.
    pub fn key_mut(&mut self) -> Option<&mut IdempotencyKey> {
        self.rare.as_mut()?.key.as_mut()
    }

    /// Returns the token of a [reservation](super::IdempotencyKeys::reserve) of that key.
    #[must_use]
    pub fn reservation(&self) -> Option<FencingToken> {
        self.rare.as_ref()?.reservation
    }

    /// Returns the data needed to rerun the operation after its lease is reclaimed, in a format
    /// chosen by the caller.
    #[must_use]
    pub fn request(&self) -> Option<&Bytes> {
        self.rare.as_ref()?.request.as_ref()
    }

    /// Sets the owner of the operation and of its key.
    #[must_use]
    pub fn with_owner(mut self, owner: Option<Owner>) -> Self {
        if let Some(key) = self.key_mut() {
            key.owner.clone_from(&owner);
        }
        Self { owner, ..self }
    }

    /// Sets the method of the request.
    #[must_use]
    pub fn with_method(self, method: Method) -> Self {
        Self {
            method: Some(method),
            ..self
        }
    }

    /// Sets the name of this kind of operation.
    #[must_use]
    pub fn with_name(self, name: Option<Arc<str>>) -> Self {
        Self { name, ..self }
    }

    /// Sets the lease of the node that will run the operation.
    #[must_use]
    pub fn with_lease(self, lease: LeaseConfig) -> Self {
        Self {
            lease: Some(lease),
            ..self
        }
    }

    /// Marks the operation as already run by its holder.
    #[must_use]
    pub fn with_running(self) -> Self {
        Self {
            is_running: true,
            ..self
        }
    }

    /// Sets the key under which a repeated request finds the operation. The key's owner
    /// becomes the operation's owner, whatever it was before.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        let owner = self.owner.clone();
        self.rare().key = Some(IdempotencyKey { owner, ..key });
        self
    }

    /// Sets the data needed to rerun the operation. It is kept while the operation is live.
    #[must_use]
    pub fn with_request(mut self, request: Option<Bytes>) -> Self {
        self.set_request(request);
        self
    }

    /// Sets the token under which the key was reserved.
    #[must_use]
    pub fn with_reservation(mut self, token: FencingToken) -> Self {
        self.rare().reservation = Some(token);
        self
    }

    /// Sets the data for a rerun, or drops it.
    pub(crate) fn set_request(&mut self, request: Option<Bytes>) {
        if request.is_some() || self.rare.is_some() {
            self.rare().request = request;
        }
    }

    fn rare(&mut self) -> &mut RareArguments {
        self.rare.get_or_insert_default()
    }
}

/// The place of an operation that was [created at once](super::Repository::create_now), by
/// which the store finds it without a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// The time of the creation.
    pub created_at: SystemTime,
    /// The place, in a form that only the store knows.
    pub place: u64,
}

impl Placed {
    /// Returns the place of an operation that was created at this time.
    #[must_use]
    pub fn new(created_at: SystemTime, place: u64) -> Self {
        Self { created_at, place }
    }
}

/// The right of a node to run an operation, for a limited time. The default is a node with
/// a generated name, and 30 seconds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseConfig {
    /// The node.
    pub node: NodeId,
    /// The time the lease lasts without renewal.
    pub term: Duration,
}

impl LeaseConfig {
    /// Returns leases of a node that last `term` without renewal.
    #[must_use]
    pub fn new(node: NodeId, term: Duration) -> Self {
        Self { node, term }
    }

    /// Sets the node.
    #[must_use]
    pub fn with_node(self, node: NodeId) -> Self {
        Self { node, ..self }
    }

    /// Sets the time that the lease lasts without renewal.
    #[must_use]
    pub fn with_term(self, term: Duration) -> Self {
        Self { term, ..self }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self::new(NodeId::new(), Duration::from_secs(30))
    }
}

/// An operation that a node holds, with its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHandle {
    /// The operation.
    pub id: OperationId,
    /// The token.
    pub token: FencingToken,
}

impl LeaseHandle {
    /// Returns the handle of a holder.
    #[must_use]
    pub fn new(id: OperationId, token: FencingToken) -> Self {
        Self { id, token }
    }
}

/// An operation whose lease was reclaimed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reclaimed<T> {
    /// The operation. The record's token is that of the new holder.
    pub record: Record<T>,
    /// The request that the operation was [created](NewOperation::with_request) with, to rerun
    /// it.
    pub request: Option<Bytes>,
}

impl<T> Reclaimed<T> {
    /// Returns a reclaimed operation with its stored request.
    #[must_use]
    pub fn new(record: Record<T>, request: Option<Bytes>) -> Self {
        Self { record, request }
    }
}

/// A query for the operations of one owner, newest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListQuery {
    /// The owner; `None` lists operations without an owner.
    pub owner: Option<Owner>,
    /// The states of the operations to list.
    pub states: StateSet,
    /// The maximum number of operations.
    pub limit: usize,
    /// The length in bytes up to which the body of a result is needed, as in
    /// [`Reader::max_body`](super::Reader::max_body).
    pub max_body: usize,
    /// The maximum size of a page in bytes of results that are read. The page ends with the
    /// operation whose result reaches this size.
    pub max_bytes: usize,
    /// The cursor of the page that the list continues after; `None` begins with the newest
    /// operations.
    pub after: Option<Cursor>,
}

impl ListQuery {
    /// Creates a query for the newest `limit` operations of `owner`.
    #[must_use]
    pub fn new(owner: Option<Owner>, limit: usize) -> Self {
        Self {
            owner,
            states: StateSet::ALL,
            limit,
            max_body: usize::MAX,
            max_bytes: usize::MAX,
            after: None,
        }
    }

    /// Sets the length in bytes up to which the body of a result is needed.
    #[must_use]
    pub fn with_max_body(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }

    /// Sets the maximum size of a page in bytes of results that are read. The page ends with the
    /// operation whose result reaches this size, so a page is bounded by this size plus the
    /// largest result.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Limits the list to operations in this state.
    #[must_use]
    pub fn with_state(self, state: State) -> Self {
        self.with_states([state])
    }

    /// Limits the list to operations in one of these states.
    #[must_use]
    pub fn with_states(self, states: impl IntoIterator<Item = State>) -> Self {
        Self {
            states: states.into_iter().collect(),
            ..self
        }
    }

    /// Limits the list to operations after the page that returned this cursor.
    #[must_use]
    pub fn with_after(self, cursor: Cursor) -> Self {
        Self {
            after: Some(cursor),
            ..self
        }
    }
}

/// The position where the next page begins. The text of a cursor is specific to the store, and
/// can be part of a URL unchanged.
///
/// A cursor continues the list that returned it, for the same owner and the same filters, and no
/// other list. The stores of this crate seal their cursors: clients can neither read nor forge
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Arc<str>);

/// A page of a list.
#[derive(Debug)]
#[non_exhaustive]
pub struct Page<T> {
    /// The operations, newest first.
    pub records: Vec<Record<T>>,
    /// The position where the next page begins; `None` on the last page.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Returns a page, with the position where the next one begins.
    #[must_use]
    pub fn new(records: Vec<Record<T>>, next: Option<Cursor>) -> Self {
        Self { records, next }
    }
}
