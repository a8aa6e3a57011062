//! Whether a client prefers an event stream to JSON, by its `Accept` (RFC 9110, sections
//! 12.4.2 and 12.5.1).

use http::{HeaderMap, header::ACCEPT};

use super::prefer::split;
use crate::operation::essence;

/// Returns whether the client names an event stream and gives it a higher weight than JSON. Each
/// media type has the weight of the most specific range it matches. If the weights are equal,
/// the stream is preferred if only a wildcard matches JSON.
pub(super) fn prefers_events(headers: &HeaderMap) -> bool {
    let Some(stream) = weight(headers, RangeMatch::of_events) else {
        return false;
    };
    if stream.range != RangeMatch::Name || stream.thousandths == 0 {
        return false;
    }
    match weight(headers, RangeMatch::of_json) {
        None => true,
        Some(json) if json.range == RangeMatch::Name => stream.thousandths > json.thousandths,
        Some(json) => stream.thousandths >= json.thousandths,
    }
}

/// The match of a media range with a media type, in ascending specificity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RangeMatch {
    /// The range `*/*`.
    Any,
    /// A range such as `text/*`.
    Type,
    /// The media type itself, with any parameters.
    Name,
}

impl RangeMatch {
    fn of_events(range: &[u8]) -> Option<Self> {
        Self::from_range(range, b"text/event-stream", b"text/*")
    }

    fn of_json(range: &[u8]) -> Option<Self> {
        Self::from_range(range, b"application/json", b"application/*")
    }

    fn from_range(range: &[u8], name: &[u8], of_type: &[u8]) -> Option<Self> {
        match range {
            b"*/*" => Some(Self::Any),
            range if range.eq_ignore_ascii_case(name) => Some(Self::Name),
            range if range.eq_ignore_ascii_case(of_type) => Some(Self::Type),
            _ => None,
        }
    }
}

/// The weight of a media type. The most specific range counts; of equally specific ranges,
/// the one with the highest weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct MediaWeight {
    range: RangeMatch,
    thousandths: u16,
}

/// Returns the weight of a media type; `None` if no range matches. Ranges with an invalid weight
/// are ignored.
fn weight(headers: &HeaderMap, matches: fn(&[u8]) -> Option<RangeMatch>) -> Option<MediaWeight> {
    let values = headers.get_all(ACCEPT).iter();
    let ranges = values.flat_map(|value| split(value.as_bytes(), b','));
    let weights = ranges.filter_map(|element| {
        let range = matches(essence(element))?;
        let thousandths = thousandths(element)?;
        Some(MediaWeight { range, thousandths })
    });
    weights.max()
}

/// Returns the weight of an element in thousandths: its parameter `q` at any position; 1 by
/// default.
fn thousandths(element: &[u8]) -> Option<u16> {
    let mut parameters = split(element, b';').skip(1).map(<[u8]>::trim_ascii);
    let weight = parameters.find_map(|parameter| match parameter {
        [b'q' | b'Q', b'=', value @ ..] => Some(value),
        _ => None,
    });
    match weight {
        None => Some(1000),
        Some(value) => qvalue(value),
    }
}

/// Parses a number from 0 to 1 with at most three decimals, in thousandths.
fn qvalue(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |place| {
        fraction
            .get(place)
            .map_or(0, |digit: &u8| u16::from(digit - b'0'))
    };
    let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2);
    match whole {
        b'0' => Some(thousandths),
        b'1' => (thousandths == 0).then_some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn prefers(fields: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(ACCEPT, HeaderValue::from_str(field).unwrap());
        }
        prefers_events(&headers)
    }

    #[test]
    fn clients_that_prefer_a_stream_to_json_get_a_stream() {
        for fields in [
            &["text/event-stream"][..],
            &["Text/Event-Stream ; Q=0.001"],
            &["text/event-stream, */*"],
            &["text/event-stream, application/*"],
            &["text/event-stream;q=0.5, application/json;q=0.4"],
            &["text/event-stream;q=0.5", "application/json;q=0.499"],
            &["text/event-stream, application/json;q=0"],
            &["*/*;q=0.9, application/json;q=0.1, text/event-stream;q=0.2"],
            &["application/json;q=0.1, application/*;q=1, text/event-stream;q=0.2"],
            &["text/event-stream;charset=utf-8"],
            &["text/event-stream;x=\"a,b;q=0\""],
            &["text/event-stream;q=1.000, application/json;q=0.999"],
            &[", ,text/event-stream,"],
            &["text/event-stream;q=1, application/json;q=x"],
        ] {
            assert!(prefers(fields), "{fields:?}");
        }
    }

    #[test]
    fn all_other_clients_get_json() {
        for fields in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/*"],
            &["text/*, application/json;q=0.1"],
            &["application/json, text/event-stream;q=0.1"],
            &["application/json", "text/event-stream"],
            &["text/event-stream, application/json"],
            &["text/event-stream;q=0.00"],
            &["text/event-stream; Q=0"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=0.000, */*"],
            &["text/event-stream ; charset=utf-8 ; q=0.1, application/*;q=0.2"],
            &["text/event-stream;q=0.1, */*;q=0.2"],
            &["text/plain;x=\", text/event-stream\""],
            &["text/plain;x=\"\\\", text/event-stream\""],
            &["text/event-stream;q=x"],
            &["text/event-stream;q=2"],
            &["text/event-stream;q=1.001"],
            &["text/event-stream;q=0.1234"],
            &["text/event-stream;q=-1"],
            &["text/event-stream;q="],
            &["text/event-stream;q=\"1\""],
            &["text/event-streams", "x-text/event-stream"],
        ] {
            assert!(!prefers(fields), "{fields:?}");
        }
    }

    /// Ranges, with their matches for a stream and for JSON.
    const RANGES: [(&str, Option<RangeMatch>, Option<RangeMatch>); 6] = [
        ("text/event-stream", Some(RangeMatch::Name), None),
        ("application/json", None, Some(RangeMatch::Name)),
        ("text/*", Some(RangeMatch::Type), None),
        ("application/*", None, Some(RangeMatch::Type)),
        ("*/*", Some(RangeMatch::Any), Some(RangeMatch::Any)),
        ("text/html", None, None),
    ];

    fn written(thousandths: u16) -> BoxedStrategy<String> {
        let short = match thousandths {
            1000 => "1".to_owned(),
            0 => "0".to_owned(),
            part => format!("0.{part:03}").trim_end_matches('0').to_owned(),
        };
        let long = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        prop_oneof![Just(short), Just(long)].boxed()
    }

    fn element() -> impl Strategy<Value = (String, usize, u16)> {
        let weight = prop_oneof![Just(0), Just(1), Just(500), Just(1000), 0_u16..=1000];
        (0..RANGES.len(), weight, any::<bool>(), any::<bool>()).prop_flat_map(
            |(range, weight, upper, spaced)| {
                (written(weight), "(;x=[a-z]{0,3}|;x=\"[a-z,; ]{0,5}\")?").prop_map(
                    move |(q, parameter)| {
                        let name = match upper {
                            true => RANGES[range].0.to_uppercase(),
                            false => RANGES[range].0.to_owned(),
                        };
                        let (before, q_name) = if spaced { (" ; ", "Q") } else { (";", "q") };
                        let text = format!("{name}{parameter}{before}{q_name}={q}");
                        (text, range, weight)
                    },
                )
            },
        )
    }

    proptest! {
        #[test]
        fn the_most_specific_range_counts(
            elements in prop::collection::vec(element(), 0..6),
            lines in any::<bool>(),
        ) {
            let texts: Vec<&str> = elements.iter().map(|(text, ..)| text.as_str()).collect();
            let joined = texts.join(" , ");
            let is_preferred = match lines {
                true => prefers(&texts),
                false => prefers(&[&joined]),
            };
            let best = |matches: fn(usize) -> Option<RangeMatch>| {
                let weights = elements.iter();
                weights.filter_map(|(_, range, weight)| Some((matches(*range)?, *weight))).max()
            };
            let stream = best(|range| RANGES[range].1);
            let json = best(|range| RANGES[range].2);
            let expected = match (stream, json) {
                (Some((RangeMatch::Name, 1..)), None) => true,
                (Some((RangeMatch::Name, stream @ 1..)), Some((RangeMatch::Name, json))) => stream > json,
                (Some((RangeMatch::Name, stream @ 1..)), Some((_, json))) => stream >= json,
                _ => false,
            };
            prop_assert_eq!(is_preferred, expected, "{}", joined);
        }

        #[test]
        fn any_bytes_are_understood_or_ignored(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(ACCEPT, value);
                let _ = prefers_events(&headers);
            }
        }
    }
}
