//! References in header fields, resolved against the original request.
//!
//! A relative reference has another meaning below the result resource. It is resolved to a
//! reference that begins with a path (RFC 3986, section 4.2), which has the same meaning
//! everywhere on its server.

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::PathAndQuery};

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
    if !headers.contains_key(name) {
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

/// Whether a reference begins with a scheme (RFC 3986, section 3.1).
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
        // A final dot segment names a folder.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Returns how many folders a dot segment goes up; `None` for any other segment. An escaped dot
/// is a dot (RFC 3986, section 6.2.2.2).
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(base: &str, reference: &str) -> String {
        let base = base.parse().unwrap();
        resolve(reference, &base).unwrap_or_else(|| reference.to_owned())
    }

    /// The examples of RFC 3986, section 5.4, without scheme and authority.
    #[test]
    fn references_are_resolved_as_in_the_examples_of_the_standard() {
        for (reference, expected) in [
            ("g:h", "g:h"),
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("//g", "//g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q#s"),
            ("g#s", "/b/c/g#s"),
            ("g?y#s", "/b/c/g?y#s"),
            (";x", "/b/c/;x"),
            ("g;x", "/b/c/g;x"),
            ("g;x?y#s", "/b/c/g;x?y#s"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../", "/"),
            ("../../g", "/g"),
            ("../../../g", "/g"),
            ("../../../../g", "/g"),
            ("g.", "/b/c/g."),
            (".g", "/b/c/.g"),
            ("g..", "/b/c/g.."),
            ("..g", "/b/c/..g"),
            ("./../g", "/b/g"),
            ("./g/.", "/b/c/g/"),
            ("g/./h", "/b/c/g/h"),
            ("g/../h", "/b/c/h"),
            ("g;x=1/./y", "/b/c/g;x=1/y"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/./x", "/b/c/g?y/./x"),
            ("g?y/../x", "/b/c/g?y/../x"),
            ("g#s/./x", "/b/c/g#s/./x"),
            ("g#s/../x", "/b/c/g#s/../x"),
            ("http:g", "http:g"),
            ("https://example.com/x", "https://example.com/x"),
        ] {
            assert_eq!(resolved("/b/c/d;p?q", reference), expected, "{reference:?}");
        }
        assert_eq!(resolved("/reports", "42"), "/42");
        assert_eq!(resolved("/a/b/c", "g./../%2e./../d"), "/d");
        assert_eq!(resolved("/a/b/c", "%2E/d"), "/a/b/d");
        assert_eq!(resolved("/a/b/c", "%2e.."), "/a/b/%2e..");
        assert_eq!(resolved("/reports/", "42"), "/reports/42");
        assert_eq!(resolved("/", "a:b/c"), "a:b/c");
        assert_eq!(resolved("/", "./a:b/c"), "/a:b/c");
    }

    #[test]
    fn no_path_that_a_client_chooses_becomes_a_host() {
        for (reference, expected) in [
            ("x", "/.//evil.example/x"),
            ("?a", "/.//evil.example/reports?a"),
            ("", "/.//evil.example/reports"),
        ] {
            assert_eq!(resolved("//evil.example/reports", reference), expected);
        }
        assert_eq!(resolved("/a/b", "..//evil.example"), "/.//evil.example");
    }

    #[test]
    fn of_links_the_targets_are_resolved_and_nothing_else() {
        let base = "/reports/7".parse().unwrap();
        for (links, expected) in [
            ("<8>; rel=next", "</reports/8>; rel=next"),
            (
                "<8>; rel=\"next\"; title=\"a, <b> \\\" c\" , <../x>;rel=up,</y>",
                "</reports/8>; rel=\"next\"; title=\"a, <b> \\\" c\" , </x>;rel=up,</y>",
            ),
            (", ,<?page=2>; rel=next", ", ,</reports/7?page=2>; rel=next"),
            (
                "<https://example.com/>; anchor=\"#a\"",
                "<https://example.com/>; anchor=\"#a\"",
            ),
            ("8; rel=next, <9>", "8; rel=next, <9>"),
            ("<8", "<8"),
            ("<8>, <", "</reports/8>, <"),
            ("", ""),
        ] {
            assert_eq!(resolve_links(links, &base), expected, "{links}");
        }
    }

    #[test]
    fn every_value_of_a_field_is_resolved_and_others_are_left_alone() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", "42"),
            ("content-location", "?v=2"),
            ("link", "<a>"),
            ("link", "<b>; rel=x"),
            ("refresh", "a"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("location", HeaderValue::from_bytes(b"gr\xfcn").unwrap());
        resolve_references(&mut headers, &"/reports/".parse().unwrap());
        let all = |name: &'static str| -> Vec<_> {
            headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect()
        };
        assert_eq!(all("location"), [&b"/reports/42"[..], b"gr\xfcn"]);
        assert_eq!(all("content-location"), [b"/reports/?v=2"]);
        assert_eq!(all("link"), [&b"</reports/a>"[..], b"</reports/b>; rel=x"]);
        assert_eq!(all("refresh"), [b"a"]);
    }

    proptest! {
        #[test]
        fn whatever_is_resolved_is_on_the_same_server_and_stays_so(
            base in "/[a-z./]{0,12}(\\?[a-z/]{0,4})?",
            reference in "[a-z./?#:;]{0,12}|\\PC{0,12}",
        ) {
            let base: PathAndQuery = base.parse().unwrap();
            if let Some(once) = resolve(&reference, &base) {
                prop_assert!(once.starts_with('/') && !once.starts_with("//"), "{}", once);
                prop_assert_eq!(resolve(&once, &base), None);
            }
        }

        #[test]
        fn no_list_of_links_makes_it_panic(links in "[<>,;\" a/\\\\]{0,30}|\\PC{0,30}") {
            resolve_links(&links, &"/a/b?c".parse().unwrap());
        }
    }
}
