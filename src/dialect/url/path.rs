//! Normalizing and splitting paths.

use std::borrow::Cow;

use crate::operation::OperationId;

/// Decodes the escapes of unreserved characters (RFC 3986, section 6.2.2.2). Decoding
/// happens once: escapes that result from it are kept.
pub(crate) fn unescaped(path: &str) -> Cow<'_, str> {
    // No early exit, so that the loop vectorizes.
    let has_escapes = path
        .bytes()
        .fold(false, |found, byte| found | (byte == b'%'));
    if !has_escapes {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3);
        match escape.and_then(unreserved) {
            Some(character) => {
                out.push(character);
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Returns the first segment that is a valid operation id, and the path after its slash;
/// `None` if nothing follows.
pub(crate) fn part_of(path: &str) -> Option<(OperationId, &str)> {
    let mut rest = path;
    loop {
        let (segment, after) = rest.split_once('/')?;
        rest = after;
        if let Ok(id) = segment.parse() {
            return (!rest.is_empty()).then_some((id, rest));
        }
    }
}

/// Decodes an escape, if it stands for an unreserved character (RFC 3986, section 2.3).
fn unreserved(escape: &str) -> Option<char> {
    let digit = |place| char::from(*escape.as_bytes().get(place)?).to_digit(16);
    let byte = u8::try_from(digit(1)? * 16 + digit(2)?).ok()?;
    let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    is_unreserved.then(|| char::from(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_unreserved_characters_are_decoded_and_only_once() {
        for (path, expected) in [
            ("/q3", "/q3"),
            ("/%41%2D%2d%2E%5f%7e%7A%30", "/A--._~z0"),
            ("/a%2Fb%00%20%3A%25", "/a%2Fb%00%20%3A%25"),
            ("/%252D", "/%252D"),
            ("/%25%32%44", "/%252D"),
            ("/%%32D", "/%2D"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz%+1", "/%zz%+1"),
            ("/%c3%a4%\u{e4}", "/%c3%a4%\u{e4}"),
        ] {
            assert_eq!(unescaped(path), expected, "{path}");
        }
    }

    #[test]
    fn parts_follow_an_id() {
        let part = |path| part_of(path).map(|(id, rest)| (id.to_string(), rest));
        let is = |id: &str, rest| Some((id.to_owned(), rest));
        assert_eq!(part("/q3/foo"), is("q3", "foo"));
        assert_eq!(part("q3/foo/"), is("q3", "foo/"));
        assert_eq!(part("/q3/result/x"), is("q3", "result/x"));
        assert_eq!(part("/q3//"), is("q3", "/"));
        assert_eq!(part("//result/q3/x"), is("q3", "x"));
        for path in ["", "/", "//", "/q3", "/q3/", "/result/q3", "/a%2Fb/..//q3/"] {
            assert_eq!(part(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn escaped_ids_are_decoded(id in "[A-Za-z0-9._~-]{1,40}", which in any::<u64>(), upper in any::<bool>()) {
            let escape = |(index, byte): (usize, u8)| match (which >> (index % 64) & 1, upper) {
                (0, _) => char::from(byte).to_string(),
                (_, true) => format!("%{byte:02X}"),
                (_, false) => format!("%{byte:02x}"),
            };
            let escaped: String = id.bytes().enumerate().map(escape).collect();
            prop_assert_eq!(unescaped(&escaped), id);
        }

        #[test]
        fn paths_are_decoded_without_a_panic(path in "\\PC{0,60}|[%0-9a-fA-F/]{0,20}") {
            let _ = unescaped(&path);
        }
    }
}
