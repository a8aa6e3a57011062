//! The small parsers of header fields, paths, queries and settings.

use std::time::{Duration, UNIX_EPOCH};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{ACCEPT, FORWARDED, IF_MATCH, LINK, LOCATION, RANGE},
    uri::PathAndQuery,
};
use tower_operations::{
    Idempotency, MemoryStore, Operation, OperationId, Operations, State, StateSet,
    dialect::{Action, Dialect, Plain, PollRequest, Preferences, RequestView},
    fuzzing,
};

pub fn check(data: &[u8]) {
    let Some((selector, data)) = data.split_first() else {
        return;
    };
    match selector % 14 {
        0 => prefer(data),
        1 => idempotency_key(data),
        2 => accept(data),
        3 => forwarded(data),
        4 => id(data),
        5 => path(data),
        6 => query(data),
        7 => timestamp(data),
        8 => base_url(data),
        9 => event(data),
        10 => references(data),
        11 => if_match(data),
        12 => range(data),
        _ => cursor(data),
    }
}

/// Returns a field whose values are the valid lines of `data`.
fn fields(name: &HeaderName, data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    headers
}

/// A list without quotes is split at commas.
fn prefer(data: &[u8]) {
    let name = HeaderName::from_static("prefer");
    let headers = fields(&name, data);
    let read = Preferences::from_headers(&headers);
    if data.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return;
    }
    let mut wait = None;
    let mut respond_async = false;
    for value in headers.get_all(&name) {
        for preference in value.as_bytes().split(|byte| *byte == b',') {
            let token = preference.split(|byte| *byte == b';').next().unwrap();
            let text = String::from_utf8_lossy(token);
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&*text, None),
            };
            let is = |word| name.trim_ascii().eq_ignore_ascii_case(word);
            respond_async |= is("respond-async");
            if is("wait") && wait.is_none() {
                wait = Some(value.unwrap_or_default().trim_ascii().to_owned());
            }
        }
    }
    assert_eq!(read.respond_async(), respond_async);
    let digits = wait.filter(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()));
    let seconds = digits.map(|digits| digits.parse().unwrap_or(u64::MAX));
    let seconds = seconds.filter(|seconds| *seconds > 0);
    assert_eq!(read.wait(), seconds.map(Duration::from_secs));
}

/// A key is read as it was quoted.
fn idempotency_key(data: &[u8]) {
    for rules in [
        Idempotency::optional(),
        Idempotency::optional().bare_tokens(),
    ] {
        let Some(text) = fuzzing::idempotency_key(&rules, data) else {
            continue;
        };
        assert!(
            text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{text:?}"
        );
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        let quoted = format!("\"{escaped}\"");
        let repeated = fuzzing::idempotency_key(&rules, quoted.as_bytes());
        assert_eq!(repeated.as_deref(), Some(&*text));
    }
}

/// The order of media ranges and their lines has no effect.
fn accept(data: &[u8]) {
    let wants_events = |headers: &HeaderMap| {
        let view = RequestView::new(&Method::GET, "/q3", None, headers);
        match Plain::default().parse(&view) {
            Ok(PollRequest::Operation { action, .. }) => action == Action::Events,
            other => panic!("{other:?}"),
        }
    };
    let headers = fields(&ACCEPT, data);
    let wants = wants_events(&headers);
    let lowercase = data.to_ascii_lowercase();
    let is_named = lowercase.windows(17).any(|it| it == b"text/event-stream");
    assert!(is_named || !wants);
    if data.contains(&b'"') {
        return;
    }
    let mut reversed = HeaderMap::new();
    let mut values: Vec<_> = headers.get_all(ACCEPT).iter().collect();
    values.reverse();
    for value in values {
        for range in value.as_bytes().rsplit(|byte| *byte == b',') {
            reversed.append(ACCEPT, HeaderValue::from_bytes(range).unwrap());
        }
    }
    assert_eq!(wants_events(&reversed), wants, "{headers:?}");
}

/// An origin is a scheme and a host, and nothing else.
fn forwarded(data: &[u8]) {
    let (host, proto) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let mut older = fields(&HeaderName::from_static("x-forwarded-host"), host);
    older.extend(fields(&HeaderName::from_static("x-forwarded-proto"), proto));
    let origins = [
        fuzzing::forwarded_origin(&fields(&FORWARDED, data), false),
        fuzzing::forwarded_origin(&older, true),
    ];
    for origin in origins.into_iter().flatten() {
        let uri: Uri = format!("{origin}/operations/q3")
            .parse()
            .expect("an origin");
        assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{uri}");
        assert_eq!(uri.path(), "/operations/q3");
        let authority = uri.authority().unwrap();
        assert!(
            !authority.as_str().contains('@') && !authority.host().is_empty(),
            "{uri}"
        );
        assert!(HeaderValue::from_str(&origin).is_ok(), "{uri}");
    }
}

/// An id is written as it was read, and is found at the end of a path.
fn id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(id) = text.parse::<OperationId>() else {
        return;
    };
    assert_eq!(id.to_string(), text);
    let headers = HeaderMap::new();
    for (path, query) in [
        (format!("/{text}"), None),
        (format!("/operations/{text}/"), None),
        ("/".to_owned(), Some(format!("id={text}"))),
    ] {
        let view = RequestView::new(&Method::GET, &path, query.as_deref(), &headers);
        match Plain::default().parse(&view) {
            Ok(PollRequest::Operation { id: found, .. }) => assert_eq!(found, id, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

/// An id in a path is part of the decoded text.
fn path(data: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/", data].concat()) else {
        return;
    };
    let headers = HeaderMap::new();
    let view = RequestView::new(&Method::GET, uri.path(), uri.query(), &headers);
    let Ok(PollRequest::Operation { id, .. }) = Plain::default().parse(&view) else {
        return;
    };
    let text = id.to_string();
    // A plus is escaped, because the decoder reads it as a space.
    let whole = uri.to_string().replace('+', "%2B");
    let mut decoded = form_urlencoded::parse(whole.as_bytes());
    assert!(
        decoded.any(|(name, value)| name.contains(&text) || value.contains(&text)),
        "{uri}"
    );
}

/// A valid parameter equals that of the standard's decoder.
fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let headers = HeaderMap::new();
    let mut view = RequestView::new(&Method::GET, "/", Some(text), &headers);
    view.lists = true;
    let Ok(PollRequest::List(listing)) = Plain::default().parse(&view) else {
        return;
    };
    let values = |key| {
        let pairs = form_urlencoded::parse(data).filter(move |(name, _)| name == key);
        pairs.map(|(_, value)| value.into_owned())
    };
    assert!(values("cursor").chain(values("limit")).count() <= 2);
    assert_eq!(listing.cursor, values("cursor").next());
    let limit = values("limit").next();
    let limit = limit.map(|limit| limit.parse().unwrap_or(usize::MAX));
    assert_eq!(listing.limit, limit);
    let mut states = values("state").peekable();
    if states.peek().is_none() {
        assert!(listing.states.is_all());
        return;
    }
    let words: Vec<String> = states.collect();
    let words = words.iter().flat_map(|words| words.split(','));
    let states: StateSet = words
        .map(|word| word.parse::<State>().expect("a state"))
        .collect();
    assert_eq!(listing.states, states, "{text}");
}

/// Timestamps are written and read as by `humantime`.
fn timestamp(data: &[u8]) {
    if let Some(millis) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) {
        // Up to the last year of four digits.
        let millis = millis % 253_402_300_800_000;
        let at = UNIX_EPOCH + Duration::from_millis(millis.max(1));
        let mut operation = Operation::<u32>::new("q3".parse().unwrap());
        operation.update(|metadata| metadata.with_created_at(at));
        let value = serde_json::to_value(&operation).unwrap();
        let text = value["created_at"].as_str().unwrap();
        assert_eq!(humantime::parse_rfc3339(text), Ok(at));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let value = serde_json::json!({ "id": "q3", "state": "pending", "created_at": text });
    let read = serde_json::from_value::<Operation<u32>>(value);
    match (humantime::parse_rfc3339(text), read) {
        (Ok(at), Ok(operation)) => {
            let read = operation.metadata().created_at().unwrap();
            // Timestamps have milliseconds, and are at least 1.
            let least = UNIX_EPOCH + Duration::from_millis(1);
            let late = at
                .max(least)
                .duration_since(read)
                .expect("not later than the parsed time");
            assert!(late < Duration::from_millis(1), "{text}");
        }
        // `humantime` ignores text after the `Z`.
        (Ok(_), Err(_)) if text.as_bytes().get(19) == Some(&b'Z') && text.len() > 20 => {}
        (Ok(_), Err(error)) => panic!("{text}: {error}"),
        (Err(_), Ok(_)) => panic!("{text} is no timestamp"),
        (Err(_), Err(_)) => {}
    }
}

/// A base URL has a scheme and a host, and can be extended by a path.
fn base_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let operations = Operations::new(MemoryStore::new()).public_url(text);
    if operations.is_err() {
        return;
    }
    let uri: Uri = format!("{}/q3", text.trim_end_matches('/'))
        .parse()
        .expect("a URL");
    assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{uri}");
    assert!(uri.host().is_some_and(|host| !host.is_empty()), "{uri}");
    assert!(
        uri.path().ends_with("/q3") && uri.query().is_none(),
        "{uri}"
    );
}

/// A resolved reference has the same target below the result resource as in the answer.
/// `data` is the target of the request, a line break and the reference.
fn references(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let reference = lines.next().unwrap_or_default();
    let (Ok(target), Ok(value)) = (
        PathAndQuery::try_from(target),
        HeaderValue::from_bytes(reference),
    ) else {
        return;
    };
    // fluent-uri reads dots at the end of a base as a folder; the standard drops them
    // (RFC 3986, section 5.2.3).
    let last = target.path().rsplit('/').next().unwrap_or_default();
    let is_up = last.to_ascii_lowercase().replace("%2e", ".") == "..";
    if is_up || !target.as_str().starts_with('/') {
        return;
    }
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, value.clone());
    let link = [b"<", value.as_bytes(), b">; rel=\"next\""].concat();
    headers.insert(LINK, HeaderValue::from_bytes(&link).unwrap());
    fuzzing::resolve(&mut headers, &target);

    let (Ok(reference), Ok(resolved)) = (value.to_str(), headers[LOCATION].to_str()) else {
        return;
    };
    let origin = "http://a.example";
    let absolute = |target: &str, reference: &str| -> Option<String> {
        let base = format!("{origin}{target}");
        let base = fluent_uri::Uri::parse(base.as_str()).ok()?;
        let reference = fluent_uri::UriRef::parse(reference).ok()?;
        let resolved = reference.resolve_against(&base).ok()?;
        // The target keeps its own dots until it is resolved again.
        Some(resolved.normalize().as_str().to_owned())
    };
    if let Some(expected_target) = absolute(target.as_str(), reference) {
        let read = absolute("/operations/q3/result", resolved);
        assert_eq!(
            read.as_deref(),
            Some(&*expected_target),
            "{reference} of {target}: {resolved}"
        );
        let link = headers[LINK].to_str().unwrap();
        assert_eq!(link, format!("<{resolved}>; rel=\"next\""));
    }
}

/// The lines of an event are its data.
fn event(data: &[u8]) {
    let encoded = fuzzing::event("failed", data.to_vec(), "7");
    let rest = encoded.strip_prefix(b"id: 7\nevent: failed\n").unwrap();
    let lines = rest.strip_suffix(b"\n\n").unwrap();
    let mut read = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        assert!(!line.contains(&b'\r'), "{line:?}");
        read.push(line.strip_prefix(b"data: ").expect("a line of data"));
    }
    let normal = String::from_utf8_lossy(data)
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    assert_eq!(String::from_utf8_lossy(&read.join(&b'\n')), normal);
}

/// A part is within the body, and is what a simple field says.
fn range(data: &[u8]) {
    let Some((length, field)) = data.split_first() else {
        return;
    };
    let length = usize::from(*length);
    let headers = fields(&RANGE, field);
    let etag = HeaderValue::from_static("\"a\"");
    let part = fuzzing::range(&headers, &etag, length);
    if let Some(part) = &part {
        assert!(part.start < part.end && part.end <= length, "{part:?}");
    }
    let simple = std::str::from_utf8(field).ok().and_then(|text| {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| text.parse::<u8>().ok().filter(|it| it.to_string() == text);
        Some((usize::from(number(first)?), usize::from(number(last)?)))
    });
    if let Some((first, last)) = simple
        && first <= last
        && first < length
    {
        assert_eq!(part, Some(first..length.min(last + 1)));
    }
}

/// A field without quotes is valid only as a star. A line with quotes is a list of quoted
/// tags with commas between them, each with an optional weakness mark.
fn if_match(data: &[u8]) {
    let headers = fields(&IF_MATCH, data);
    let etag = HeaderValue::from_static("W/\"2-a\"");
    let read = fuzzing::matches(&headers, &etag);
    let values = headers.get_all(IF_MATCH).iter();
    let lines: Vec<&[u8]> = values.map(|value| value.as_bytes().trim_ascii()).collect();
    let expected = match lines[..] {
        [] => None,
        [b"*"] => Some(true),
        _ => {
            let tags: Option<Vec<_>> = lines.iter().map(|line| tags(line)).collect();
            // An empty list is invalid.
            let tags = tags
                .map(|lines| lines.concat())
                .filter(|tags| !tags.is_empty());
            tags.map(|tags| tags.contains(&&b"2-a"[..]))
        }
    };
    assert_eq!(read, expected, "{headers:?}");
}

/// Returns the entity tags of a line, without their quotes.
fn tags(line: &[u8]) -> Option<Vec<&[u8]>> {
    let pieces: Vec<&[u8]> = line.split(|byte| *byte == b'"').collect();
    let last = pieces.len() - 1;
    if last % 2 == 1 {
        return None;
    }
    for (at, piece) in pieces.iter().enumerate() {
        let is_well_formed = match at % 2 {
            0 => {
                let is_weak = at < last && piece.ends_with(b"W/");
                let between = &piece[..piece.len() - 2 * usize::from(is_weak)];
                let first = between.trim_ascii().first();
                let is_parted = at == 0 || at == last || first.is_some();
                is_parted && between.iter().all(|byte| b" \t,".contains(byte))
            }
            _ => !piece.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)),
        };
        if !is_well_formed {
            return None;
        }
    }
    Some(pieces.into_iter().skip(1).step_by(2).collect())
}

/// A cursor has one spelling, and opening reverses sealing.
fn cursor(data: &[u8]) {
    if let Some(number) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) {
        let sealed = fuzzing::seal_cursor(number);
        assert_eq!(fuzzing::open_cursor(&sealed), Some(number));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(number) = fuzzing::open_cursor(text) {
        assert_eq!(fuzzing::seal_cursor(number), text);
    }
}
