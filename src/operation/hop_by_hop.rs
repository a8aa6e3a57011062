//! Header fields about the connection or the framing of a message, which are not recorded.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::codec::{has_field, push_number};

/// Returns the predicate of the fields that are recorded of a message whose body has this length.
pub(super) fn recorded_fields(
    headers: &HeaderMap,
    length: usize,
) -> impl Fn(&HeaderName, &HeaderValue) -> bool + use<> {
    let named = named_by_connection(headers);
    move |name, value| {
        !is_hop_by_hop(name)
            && !named.contains(name)
            && (*name != header::CONTENT_LENGTH || is_length(value, length))
    }
}

/// Returns whether a field is about one connection (RFC 9110, section 7.6.1). `Trailer` is not:
/// it announces fields of the message.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Compared as text, which is faster than comparing header names.
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns whether a `Content-Length` has this value.
fn is_length(value: &HeaderValue, length: usize) -> bool {
    let mut digits = Vec::new();
    push_number::<10>(length as u64, &mut digits);
    value.as_bytes() == digits
}

/// Returns the further hop-by-hop fields that `Connection` names.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    if !has_field(headers, &header::CONNECTION) {
        return Vec::new();
    }
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}
