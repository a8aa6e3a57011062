//! Media types (RFC 9110, section 8.3.1).

/// Returns whether a media type, without parameters, is JSON (RFC 6839, section 3.1).
pub(super) fn is_json_type(essence: &[u8]) -> bool {
    let ends_with = |end: &[u8]| {
        let at = essence.len().saturating_sub(end.len());
        essence[at..].eq_ignore_ascii_case(end)
    };
    essence.eq_ignore_ascii_case(b"application/json") || ends_with(b"+json")
}

/// Returns whether the `charset` of a text is absent or one that is valid UTF-8.
pub(super) fn is_utf8(media_type: &[u8]) -> bool {
    media_type
        .split(|byte| *byte == b';')
        .skip(1)
        .filter_map(|parameter| {
            let parameter = parameter.trim_ascii().to_ascii_lowercase();
            parameter.strip_prefix(b"charset=").map(<[u8]>::to_vec)
        })
        .all(|charset| matches!(charset.as_slice(), b"utf-8" | b"\"utf-8\"" | b"us-ascii"))
}

/// Returns a media type without its parameters.
pub(crate) fn essence(media_type: &[u8]) -> &[u8] {
    media_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
}
