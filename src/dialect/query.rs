//! The parameters of a query string (`application/x-www-form-urlencoded`).

use std::borrow::Cow;

/// The first value of `name`, decoded; `None` if there is none, an error if it
/// is encoded badly or is not UTF-8.
pub(super) fn parameter<'a>(
    query: Option<&'a str>,
    name: &str,
) -> Result<Option<Cow<'a, str>>, BadEncoding> {
    let Some(query) = query else {
        return Ok(None);
    };
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key).is_ok_and(|key| key == name) {
            return decode(value).map(Some);
        }
    }
    Ok(None)
}

/// `text` as the value of a parameter.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadEncoding;

fn decode(text: &str) -> Result<Cow<'_, str>, BadEncoding> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or(BadEncoding)?;
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_decoded() {
        let get = |query| parameter(Some(query), "id");
        assert_eq!(get("x=1&id=a%2Fb+c&id=d"), Ok(Some("a/b c".into())));
        assert_eq!(get("%69d=a"), Ok(Some("a".into())));
        assert_eq!(get("id"), Ok(Some("".into())));
        assert_eq!(get("ident=1&&=&"), Ok(None));
        assert_eq!(parameter(None, "id"), Ok(None));
        for bad in ["id=%", "id=%2", "id=%zz", "id=%ff", "id=%+1"] {
            assert_eq!(get(bad), Err(BadEncoding), "{bad}");
        }
    }
}
