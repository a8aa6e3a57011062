//! The URI that a client asked for, where routers have changed it.

use http::{Uri, request::Parts};

/// Returns the URI that axum's outermost router saw, if nested routers removed a prefix.
#[cfg(feature = "axum")]
pub(crate) fn original_uri(parts: &Parts) -> Option<&Uri> {
    let ::axum::extract::OriginalUri(original) = parts.extensions.get()?;
    (*original != parts.uri).then_some(original)
}

#[cfg(not(feature = "axum"))]
pub(crate) fn original_uri(_: &Parts) -> Option<&Uri> {
    None
}
