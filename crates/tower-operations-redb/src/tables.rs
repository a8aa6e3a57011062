//! The tables of the file.
//!
//! Ids, names and owners are stored as the bytes of their text, so that invalid text in a
//! damaged file causes an error instead of a panic.

use ::redb::TableDefinition;

type Bytes = &'static [u8];

/// The version of this layout, and the next operation's number.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// In [`META`]: the version of the layout.
pub(super) const FORMAT: &str = "format";
/// In [`META`]: a number above the numbers of all operations so far.
pub(super) const NEXT_NUMBER: &str = "next_number";

/// The newest layout that this release knows, and the one that it writes.
pub(super) const KNOWN_FORMAT: u64 = 2;

/// By operation: a [`CellRow`](super::rows::CellRow).
pub(super) const CELLS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("cells");
/// By operation: its result. Results are separate to keep the cells small.
pub(super) const RESULTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("results");
/// By live operation: the data for a rerun.
pub(super) const REQUESTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("requests");
/// By [scoped name](tower_operations::store::IdempotencyKey::scoped_name): a [`KeyRow`](super::rows::KeyRow).
pub(super) const KEYS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("scoped_keys");
/// The keys by bare name, until format 2.
pub(super) const BARE_KEYS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("keys");
/// By expiry in milliseconds, and number: an operation that ended.
pub(super) const EXPIRY: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("expiry");
/// By expiry in milliseconds, and scoped name: a key without an operation.
pub(super) const KEY_EXPIRY: TableDefinition<'_, (u64, Bytes), ()> =
    TableDefinition::new("key_expiry");
/// By number: a live operation with a present or former holder.
pub(super) const LEASED: TableDefinition<'_, u64, Bytes> = TableDefinition::new("leased");
/// By owner and number: an operation.
pub(super) const LISTED: TableDefinition<'_, (Option<Bytes>, u64), Bytes> =
    TableDefinition::new("listed");
/// By name: a secret, made with the file or when an older file is opened.
pub(super) const SECRETS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("secrets");
/// In [`SECRETS`]: the secret that list cursors are sealed with.
pub(super) const CURSORS: &str = "cursors";
