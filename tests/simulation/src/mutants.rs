//! Bugs to plant, which show that the laws are checked.

use std::fmt;

use crate::StoreKind;

/// A bug that a world can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutant {
    /// The store changes an operation whatever version and token the node knows.
    FencingOff,
    /// The store answers a write before it is durable; the write is lost if the node dies.
    AnswerBeforeWrite,
    /// The store answers a create that it has lost.
    CreateLost,
    /// The store answers a change that it has lost.
    ChangeLost,
    /// The store loses the end of an operation a while after it was recorded.
    EndUndone,
    /// The store records an end a second time, with another outcome.
    EndedTwice,
    /// The store answers a read with the version before.
    StaleRead,
    /// The store answers a read with the result of another operation.
    ResultsMixedUp,
    /// The store does not bind a key to its operation.
    KeyForgotten,
    /// The store does not keep the direct answer to a request with a key.
    AnswerForgotten,
    /// No node hears of changes on another node.
    NoticesLost,
    /// The store lets a node reclaim an operation whose lease is valid.
    ReclaimedEarly,
    /// An outage cuts off renewals alone, so a recovery trusts the store during the outage.
    RecoveryDuringOutage,
    /// The store says of no lease that it is lost, and sends no notice.
    CancelNotTold,
    /// The store does not count attempts.
    AttemptsNotCounted,
    /// The store writes the report of a run after the end of the operation.
    ProgressAfterEnd,
    /// The store deletes operations long before they expire.
    PurgedEarly,
    /// The store deletes an operation that is live.
    LivePurged,
    /// The store restores an operation that was deleted.
    DeletionUndone,
    /// The store leaves an operation out of a list.
    ListSkipsARow,
    /// A stream begins anew, whatever the client has seen.
    LastEventIgnored,
    /// The application takes every tenant for the same owner.
    OwnerIgnored,
    /// The nodes run no recovery.
    NoRecovery,
    /// A drain ends a node at once.
    DrainCutsOff,
    /// The store lets two workers claim an operation at the same time.
    ClaimedTwice,
    /// The disk of a file answers a sync before it takes effect.
    SyncDelayed,
    /// The result store loses an upload a while after it was finished.
    UploadLost,
    /// The result store answers the end of an upload before it is durable; the upload is lost if
    /// the node dies.
    FinishBeforeWrite,
    /// The result store finishes an upload without its last chunk.
    UploadCutShort,
    /// The result store changes a byte of an upload.
    UploadDamaged,
    /// The result store adds a chunk that is written again a second time.
    ChunkTwice,
    /// The result store answers a read with another upload.
    UploadsMixedUp,
    /// The result store deletes the next upload, too.
    NeighborDeleted,
    /// The result store deletes nothing.
    UploadsUndeleted,
    /// The result store leaves some uploads out of its lists.
    UploadsUnlisted,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 35] = [
        Self::FencingOff,
        Self::AnswerBeforeWrite,
        Self::CreateLost,
        Self::ChangeLost,
        Self::EndUndone,
        Self::EndedTwice,
        Self::StaleRead,
        Self::ResultsMixedUp,
        Self::KeyForgotten,
        Self::AnswerForgotten,
        Self::NoticesLost,
        Self::ReclaimedEarly,
        Self::RecoveryDuringOutage,
        Self::CancelNotTold,
        Self::AttemptsNotCounted,
        Self::ProgressAfterEnd,
        Self::PurgedEarly,
        Self::LivePurged,
        Self::DeletionUndone,
        Self::ListSkipsARow,
        Self::LastEventIgnored,
        Self::OwnerIgnored,
        Self::NoRecovery,
        Self::DrainCutsOff,
        Self::ClaimedTwice,
        Self::SyncDelayed,
        Self::UploadLost,
        Self::FinishBeforeWrite,
        Self::UploadCutShort,
        Self::UploadDamaged,
        Self::ChunkTwice,
        Self::UploadsMixedUp,
        Self::NeighborDeleted,
        Self::UploadsUndeleted,
        Self::UploadsUnlisted,
    ];

    /// Returns the store that can have the bug.
    #[must_use]
    pub fn store(self) -> StoreKind {
        match self {
            Self::SyncDelayed => StoreKind::Redb,
            _ => StoreKind::Engine,
        }
    }

    /// Returns the number of workers with which the bug can show.
    #[must_use]
    pub fn workers(self) -> usize {
        match self {
            Self::ClaimedTwice => 2,
            _ => 0,
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Words instead of one name.
        for (index, letter) in format!("{self:?}").char_indices() {
            match letter.is_uppercase() && index > 0 {
                true => write!(f, " {}", letter.to_lowercase())?,
                false => write!(f, "{}", letter.to_lowercase())?,
            }
        }
        Ok(())
    }
}
