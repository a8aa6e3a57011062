//! The settings that a layer and a poll service share.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::{Uri, request::Parts};

use crate::{
    dialect::{AdaptiveRetryAfter, Dialect, Locator, Plain, Replay, RetryAfter},
    owner::ExtractOwner,
    store::Owner,
};

/// The common settings of the services of one [`Operations`](crate::Operations): the
/// owner of a request, the wording and URLs of answers, and the header fields that a replay
/// repeats.
#[derive(Clone)]
pub(crate) struct SharedSettings {
    pub(crate) owner: Option<Arc<dyn ExtractOwner>>,
    pub(crate) dialect: Arc<dyn Dialect>,
    pub(crate) locator: Locator,
    pub(crate) retry_after: Arc<dyn RetryAfter>,
    pub(crate) replay: Replay,
    /// Whether a wrong public path was logged.
    said: Arc<AtomicBool>,
}

impl SharedSettings {
    /// Returns the owner of the operation that a request creates or reads.
    pub(crate) fn owner(&self, parts: &Parts) -> Option<Owner> {
        self.owner.as_ref().and_then(|owner| owner.owner(parts))
    }

    /// Returns the owner to whom a bound per owner applies; `None` if the application knows
    /// no owners.
    pub(crate) fn known_owner(&self, parts: &Parts) -> Option<Option<Owner>> {
        Some(self.owner.as_ref()?.owner(parts))
    }

    /// Returns whether a request may see an operation of `owner`. If the application knows no
    /// owners, every request may see operations without an owner.
    pub(crate) fn owns(&self, parts: &Parts, owner: Option<&Owner>) -> bool {
        match &self.owner {
            Some(extract) => extract.owns(parts, owner),
            None => owner.is_none(),
        }
    }

    /// Logs once that `Location` may be wrong: a layer below a nested router has accepted a
    /// request, and no public path was set.
    pub(crate) fn accepted_below(&self, original: &Uri, seen: &Uri) {
        let prefix = original.path().strip_suffix(seen.path());
        if let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty())
            && self.is_first_to_say()
        {
            let location = self.locator.at();
            tracing::error!(
                prefix,
                location,
                "a layer is nested and no public path is set: set Operations::public_path to the \
                 whole path of the poll service"
            );
        }
    }

    /// Logs once that `Location` is wrong: operations are polled at another path, and no public
    /// path was set.
    pub(crate) fn polled_at(&self, mount: &str) {
        let location = self.locator.at();
        if mount != location && self.is_first_to_say() {
            tracing::error!(
                mount,
                location,
                "operations are polled at another path than Location says: set \
                 Operations::public_path"
            );
        }
    }

    fn is_first_to_say(&self) -> bool {
        !self.locator.is_set() && !self.said.swap(true, Relaxed)
    }
}

impl Default for SharedSettings {
    fn default() -> Self {
        Self {
            owner: None,
            dialect: Arc::new(Plain::default()),
            locator: Locator::default(),
            retry_after: Arc::new(AdaptiveRetryAfter),
            replay: Replay::default(),
            said: Arc::default(),
        }
    }
}

impl fmt::Debug for SharedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSettings")
            .field("dialect", &self.dialect)
            .field("locator", &self.locator)
            .finish_non_exhaustive()
    }
}
