//! References in header fields, resolved against the original request.
//!
//! A relative reference has another meaning below the result resource. It is resolved to a
//! reference that begins with a path (RFC 3986, section 4.2), which has the same meaning
//! everywhere on its server.

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::PathAndQuery};

use crate::codec::has_field;

/// Resolves `Location`, `Content-Location` (RFC 9110, sections 10.2.2 and 8.7) and the
/// targets of `Link` (RFC 8288, section 3.1) against the target of the request.
pub(crate) fn resolve_references(headers: &mut HeaderMap, base: &PathAndQuery) {
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        rewrite(headers, &name, |reference| resolve(reference, base));
    }
    rewrite(headers, &header::LINK, |links| {
        Some(resolve_links(links, base))
    });
}

/// Replaces each value of the field by the result of `new`.
fn rewrite(headers: &mut HeaderMap, name: &HeaderName, new: impl Fn(&str) -> Option<String>) {
    // `entry` would reserve space for a field that is usually absent.
    if !has_field(headers, name) {
        return;
    }
    let header::Entry::Occupied(mut values) = headers.entry(name) else {
        return;
    };
    for value in values.iter_mut() {
        let text = std::str::from_utf8(value.as_bytes()).ok();
        let new = text.and_then(&new).map(HeaderValue::try_from);
        // Values that cannot be parsed are unchanged.
        if let Some(Ok(new)) = new {
            *value = new;
        }
    }
}

/// Resolves a relative reference (RFC 3986, section 5.2); `None` for a reference that has
/// the same meaning everywhere on the server.
fn resolve(reference: &str, base: &PathAndQuery) -> Option<String> {
    let reference = reference.trim();
    if reference.starts_with('/') || has_scheme(reference) {
        return None;
    }
    let path_ends = reference.find(['?', '#']).unwrap_or(reference.len());
    let (path, after_path) = reference.split_at(path_ends);
    let base_path = base.path();
    Some(match (path, after_path.starts_with('?')) {
        ("", true) => format!("{}{after_path}", rooted(base_path)),
        ("", false) => {
            let query = base.query().map(|query| format!("?{query}"));
            let query = query.unwrap_or_default();
            format!("{}{query}{after_path}", rooted(base_path))
        }
        (path, _) => {
            let folder = base_path.rfind('/').map_or("/", |end| &base_path[..=end]);
            let path = without_dot_segments(&format!("{folder}{path}"));
            format!("{}{after_path}", rooted(&path))
        }
    })
}

/// Returns a path that cannot be mistaken for a host (RFC 3986, section 4.2), since clients
/// choose the beginning of the path.
fn rooted(path: &str) -> String {
    match path.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => format!("/.{path}"),
        Some(_) => path.to_owned(),
        None => format!("/{path}"),
    }
}

/// Returns whether a reference begins with a scheme (RFC 3986, section 3.1).
fn has_scheme(reference: &str) -> bool {
    let is_of_scheme = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(is_of_scheme)
    })
}

/// Removes dot segments (RFC 3986, section 5.2.4) from a path that begins with a slash.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let Some(levels) = levels_up(segment) else {
            kept.push(segment);
            continue;
        };
        kept.truncate(kept.len().saturating_sub(levels));
        // A final dot segment names a directory.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Returns how many directories a dot segment goes up; `None` for any other segment. An escaped
/// dot is a dot (RFC 3986, section 6.2.2.2).
fn levels_up(segment: &str) -> Option<usize> {
    let mut rest = segment;
    let mut dots = 0_usize;
    while !rest.is_empty() {
        rest = ["%2e", "%2E", "."]
            .iter()
            .find_map(|dot| rest.strip_prefix(dot))?;
        dots += 1;
    }
    matches!(dots, 1 | 2).then(|| dots - 1)
}

/// Resolves the targets in a list of links (RFC 8288, section 3). Text from the first
/// syntax error on is unchanged.
fn resolve_links(links: &str, base: &PathAndQuery) -> String {
    let mut out = String::with_capacity(links.len() + 64);
    let mut rest = links;
    loop {
        let begins = rest.find(|letter: char| !matches!(letter, ' ' | '\t' | ','));
        let (before, link) = rest.split_at(begins.unwrap_or(rest.len()));
        out.push_str(before);
        let target = link.strip_prefix('<').and_then(|link| link.split_once('>'));
        let Some((target, parameters)) = target else {
            out.push_str(link);
            return out;
        };
        let resolved = resolve(target, base);
        out.push('<');
        out.push_str(resolved.as_deref().unwrap_or(target));
        out.push('>');
        let (parameters, after) = parameters.split_at(parameters_end(parameters));
        out.push_str(parameters);
        rest = after;
    }
}

/// Returns the end of the parameters of a link: the first comma outside a quoted string
/// (RFC 9110, section 5.6.4).
fn parameters_end(text: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;
