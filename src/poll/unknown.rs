//! The error for unknown resources.

use http::request::Parts;

use super::settings::Settings;
use crate::{
    dialect::{ApiError, part_of, unescaped},
    operation::OperationId,
    store::Store,
};

/// Returns the error that operation `id` does not exist for this request. If the id is below
/// another possible operation id in the path, the request was meant for a part of that
/// operation.
pub(super) fn not_found<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> ApiError {
    match owner_of_part(settings, parts, id) {
        Some((id, name)) => ApiError::NoSubResource { id, name },
        None => ApiError::NotFound { id: id.clone() },
    }
}

/// Returns the possible operation id in a path, and the rest of the path, where `id` was
/// found in that rest.
pub(super) fn owner_of_part<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Option<(OperationId, String)> {
    // An application that extracts ids by itself has its own paths.
    if settings.operation_id.is_some() {
        return None;
    }
    below(
        settings.shared.locator.at(),
        &unescaped(parts.uri.path()),
        id,
    )
}

fn below(at: &str, path: &str, id: &OperationId) -> Option<(OperationId, String)> {
    let (first, rest) = part_of(below_root(at, path))?;
    (first != *id).then(|| (first, rest.strip_suffix('/').unwrap_or(rest).into()))
}

/// Returns the path below that of the operations; the whole path if the operations' path is
/// not found.
fn below_root<'a>(at: &str, path: &'a str) -> &'a str {
    if at.is_empty() {
        return path;
    }
    let is_whole = |(begin, _): &(usize, &str)| path[begin + at.len()..].starts_with('/');
    let root = path.rmatch_indices(at).find(is_whole);
    root.map_or(path, |(begin, _)| &path[begin + at.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_below_the_preceding_segment_except_below_the_root() {
        let of = |at, path| {
            let below = below(at, path, &"foo".parse().unwrap());
            below.map(|(id, name)| format!("{id} {name}"))
        };
        for (path, expected) in [
            ("/q3/foo", "q3 foo"),
            ("/q3/foo/", "q3 foo"),
            ("/q3/result/foo", "q3 result/foo"),
            ("/q3/x/foo/result", "q3 x/foo/result"),
            ("/operations/q3/foo", "q3 foo"),
            ("/v1/operations/q3/foo", "q3 foo"),
            ("/operations/v1/operations/q3/foo", "q3 foo"),
            ("/operationsx/foo", "operationsx foo"),
        ] {
            assert_eq!(of("/operations", path).as_deref(), Some(expected), "{path}");
        }
        for path in [
            "/foo",
            "foo",
            "/",
            "/foo/result",
            "/operations/foo",
            "/operations/foo/result",
            "/v1/operations/foo",
            "//foo",
            "/foo/q3",
        ] {
            assert_eq!(of("/operations", path), None, "{path}");
        }
        assert_eq!(of("", "/foo"), None);
        assert_eq!(of("", "/q3/foo").as_deref(), Some("q3 foo"));
    }
}
