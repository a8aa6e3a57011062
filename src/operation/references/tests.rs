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
fn paths_chosen_by_clients_never_become_hosts() {
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
fn targets_of_links_are_resolved_and_nothing_else() {
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
fn every_value_of_the_three_fields_is_resolved_and_no_other_field() {
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
    fn resolved_references_stay_on_the_same_server(
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
    fn lists_of_links_never_cause_a_panic(links in "[<>,;\" a/\\\\]{0,30}|\\PC{0,30}") {
        resolve_links(&links, &"/a/b?c".parse().unwrap());
    }
}
