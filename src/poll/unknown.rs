//! The fault of what is not there.

use http::request::Parts;

use super::settings::Settings;
use crate::{
    dialect::{Fault, unescaped},
    operation::OperationId,
    store::Store,
};

/// There is no operation `id` for whoever asks. Where its text follows what may be an
/// operation itself, it was meant for a part of that.
pub(super) fn not_found<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Fault {
    let name = id.to_string();
    let path = unescaped(parts.uri.path());
    match parent(settings.locator.at(), &path, &name) {
        // An application that finds ids by itself has paths of its own.
        Some(id) if settings.operation_id.is_none() => Fault::NoSubResource { id, name },
        _ => Fault::NotFound { id: id.clone() },
    }
}

/// What precedes `name` at the end of a path, unless that is where the operations are.
fn parent(at: &str, path: &str, name: &str) -> Option<OperationId> {
    let (before, last) = last_segment(path);
    if last != name || (!at.is_empty() && before.ends_with(at)) {
        return None;
    }
    last_segment(before).1.parse().ok()
}

/// The last segment of a path, and what precedes it. One trailing slash is ignored.
fn last_segment(path: &str) -> (&str, &str) {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_below_what_precedes_it_but_for_the_root() {
        let below = |path: &str| parent("/operations", path, "foo").map(|id| id.to_string());
        for path in ["/q3/foo", "/q3/foo/", "/operations/q3/foo"] {
            assert_eq!(below(path).as_deref(), Some("q3"), "{path}");
        }
        for path in [
            "/foo",
            "foo",
            "/",
            "/operations/foo",
            "/v1/operations/foo",
            "//foo",
            "/foo/q3",
        ] {
            assert_eq!(below(path), None, "{path}");
        }
        assert_eq!(parent("", "/foo", "foo"), None);
    }
}
