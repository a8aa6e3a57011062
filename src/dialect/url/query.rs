//! The parameters of a query string (`application/x-www-form-urlencoded`).

use std::borrow::Cow;

use crate::dialect::ApiError;

/// Returns the names of all parameters, decoded, without those that are encoded badly.
pub(crate) fn names(query: Option<&str>) -> impl Iterator<Item = Cow<'_, str>> {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(|pair| decode(pair.split_once('=').map_or(pair, |(name, _)| name)).ok())
}

/// Returns every value of `name`, decoded, with an error for a value that is malformed or
/// not UTF-8.
pub(crate) fn values<'a>(
    query: Option<&'a str>,
    name: &str,
) -> impl Iterator<Item = Result<Cow<'a, str>, MalformedParameter<'a>>> {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_it = decode(key).is_ok_and(|key| key == name);
        is_it.then(|| decode(value))
    })
}

/// Returns the value of `name`, decoded; `None` if it is absent, an error if it is
/// repeated.
pub(crate) fn parameter<'a>(
    query: Option<&'a str>,
    name: &str,
) -> Result<Option<Cow<'a, str>>, MalformedParameter<'a>> {
    let mut values = values(query, name);
    let value = values.next().transpose()?;
    match values.next() {
        None => Ok(value),
        Some(_) => Err(MalformedParameter::Repeated),
    }
}

/// Encodes `text` as the value of a parameter.
pub(crate) fn encode(text: &str) -> String {
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

/// The reason why a parameter cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MalformedParameter<'a> {
    /// The encoding of this raw value is invalid.
    Encoding(&'a str),
    Repeated,
}

impl MalformedParameter<'_> {
    /// Returns the error for the parameter with this name.
    pub(crate) fn fault(self, parameter: &'static str) -> ApiError {
        match self {
            Self::Encoding(text) => {
                ApiError::invalid_query(parameter, text, "UTF-8 in percent-encoding")
            }
            Self::Repeated => ApiError::RepeatedParameter { parameter },
        }
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, MalformedParameter<'_>> {
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
                let (high, low) = digit()
                    .zip(digit())
                    .ok_or(MalformedParameter::Encoding(text))?;
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| MalformedParameter::Encoding(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_values_are_decoded() {
        let get = |query| parameter(Some(query), "id");
        assert_eq!(get("x=1&id=a%2Fb+c&x=d"), Ok(Some("a/b c".into())));
        assert_eq!(get("%69d=a"), Ok(Some("a".into())));
        assert_eq!(get("id"), Ok(Some("".into())));
        assert_eq!(get("ident=1&&=&"), Ok(None));
        assert_eq!(parameter(None, "id"), Ok(None));
        for bad in ["id=%", "id=%2", "id=%zz", "id=%ff", "id=%+1"] {
            let value = bad.strip_prefix("id=").unwrap();
            assert_eq!(get(bad), Err(MalformedParameter::Encoding(value)), "{bad}");
        }
    }

    #[test]
    fn repeated_parameters_are_errors() {
        for twice in ["id=a&id=a", "id=a&id", "id=a&%69d=%ff", "id&x=1&id"] {
            let value = parameter(Some(twice), "id");
            assert_eq!(value, Err(MalformedParameter::Repeated), "{twice}");
        }
    }

    #[test]
    fn repeated_values_keep_their_order() {
        let all: Vec<_> = values(Some("a=1&b=2&a=%33&a=%"), "a").collect();
        let expected = [
            Ok("1".into()),
            Ok("3".into()),
            Err(MalformedParameter::Encoding("%")),
        ];
        assert_eq!(all, expected);
    }
}
