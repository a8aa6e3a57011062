/// The work and the faults of a result store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultCounts {
    /// Uploads that were finished.
    pub finished: u64,
    /// Uploads that were finished seconds after the call was given up.
    pub finished_late: u64,
    /// Uploads that ended halfway because their node was killed.
    pub killed_halfway: u64,
    /// Uploads that ended halfway because their run was given up.
    pub aborted_halfway: u64,
    /// Kills of a node after an upload was finished, before the node knew it.
    pub killed_unrecorded: u64,
    /// Kills of a node within milliseconds after it knew that an upload was finished.
    pub killed_recording: u64,
    /// Stops of a node after an upload was finished, before the node knew it.
    pub stopped_unrecorded: u64,
    /// Chunks that were written again.
    pub repeated_chunks: u64,
    /// Uploads that were finished again.
    pub repeated_finishes: u64,
    /// Bodies that were read.
    pub reads: u64,
    /// Reads that failed between two chunks.
    pub broken_reads: u64,
    /// Uploads that were deleted.
    pub deleted: u64,
    /// Times that the store was away on its own.
    pub outages: u64,
}
