//! The tables of the file.
//!
//! Ids, names and owners are stored as the bytes of their text, so that invalid text in a
//! damaged file causes an error instead of a panic.

use ::redb::TableDefinition;

type Bytes = &'static [u8];

/// The version of this layout, and the number of the next operation.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The entry of [`META`] with the version of the layout.
pub(super) const FORMAT: &str = "format";
/// The entry of [`META`] with a number above the numbers of all operations so far.
pub(super) const NEXT_NUMBER: &str = "next_number";

/// The newest layout that this release knows, and the one that it writes.
pub(super) const KNOWN_FORMAT: u64 = 3;

/// The [`CellRow`](super::rows::CellRow) of each operation.
pub(super) const CELLS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("cells");
/// The result of each operation. Results are separate to keep the cells small.
pub(super) const RESULTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("results");
/// The data for a rerun of each live operation.
pub(super) const REQUESTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("requests");
/// The [`KeyRow`](super::rows::KeyRow) of each key, by [scoped
/// name](tower_operations::store::IdempotencyKey::scoped_name).
pub(super) const KEYS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("scoped_keys");
/// The keys by bare name, in files of format 1.
pub(super) const BARE_KEYS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("keys");
/// The operations that have ended, by expiry in milliseconds and by number.
pub(super) const EXPIRY: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("expiry");
/// The keys without an operation, by expiry in milliseconds and by scoped name.
pub(super) const KEY_EXPIRY: TableDefinition<'_, (u64, Bytes), ()> =
    TableDefinition::new("key_expiry");
/// The live operations with a present or former holder, by number.
pub(super) const LEASED: TableDefinition<'_, u64, Bytes> = TableDefinition::new("leased");
/// The operations, by owner and number.
pub(super) const LISTED: TableDefinition<'_, (Option<Bytes>, u64), Bytes> =
    TableDefinition::new("listed");
/// The secrets, by name. A secret is created with the file, or when an older file is opened.
pub(super) const SECRETS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("secrets");
/// The entry of [`SECRETS`] with the secret that list cursors are sealed with.
pub(super) const CURSORS: &str = "cursors";
