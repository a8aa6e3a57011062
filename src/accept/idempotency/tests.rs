use http::Request;
use proptest::prelude::*;

use super::*;

fn key(
    rules: &Idempotency,
    values: &[&[u8]],
    body: &'static str,
) -> Result<Option<IdempotencyKey>, Refusal> {
    let mut request = Request::post("/reports?a=1");
    for value in values {
        request = request.header(&IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
    }
    let (parts, body) = request.body(Bytes::from(body)).unwrap().into_parts();
    rules.key(&parts, &body, None, true)
}

fn invalid(value: &str) -> Refusal {
    let value = value.into();
    Refusal::KeyInvalid { value, shortest: 1 }
}

#[test]
fn a_key_is_one_structured_field_string() {
    let strict = Idempotency::optional();
    let name = |value: &[u8]| key(&strict, &[value], "").map(|key| key.unwrap().name.to_string());
    assert_eq!(name(br#""8e03978e""#).as_deref(), Ok("key:8e03978e"));
    assert_eq!(
        name(br#"  "a \"b\" \\" ;x=1"#).as_deref(),
        Ok(r#"key:a "b" \"#)
    );
    for bad in [
        &b"8e03978e"[..],
        b"\"",
        b"\"a",
        b"\"a\\x\"",
        b"\"a\" b",
        b"\"\"",
        b"\"\xff\"",
        b"\"a\tb\"",
    ] {
        assert_eq!(
            name(bad),
            Err(invalid(&String::from_utf8_lossy(bad))),
            "{bad:?}"
        );
    }
    let long = format!("\"{}\"", "x".repeat(256));
    assert_eq!(name(long.as_bytes()), Err(invalid(&long)));
    assert_eq!(
        key(&strict, &[b"\"a\"", b"\"a\""], ""),
        Err(invalid("\"a\", \"a\""))
    );
    assert_eq!(key(&strict, &[], ""), Ok(None));
    assert_eq!(
        key(&Idempotency::required(), &[], ""),
        Err(Refusal::KeyMissing)
    );

    let tolerant = Idempotency::optional().bare_tokens();
    assert_eq!(
        key(&tolerant, &[b"8e03978e"], ""),
        key(&strict, &[b"\"8e03978e\""], "")
    );
    assert_eq!(key(&tolerant, &[b"a b"], ""), Err(invalid("a b")));
}

#[test]
fn keys_have_to_be_long_without_owners() {
    let (parts, body) = Request::post("/")
        .header(&IDEMPOTENCY_KEY, "\"fifteen letters\"")
        .body(Bytes::new())
        .unwrap()
        .into_parts();
    let rules = Idempotency::optional();
    assert!(rules.key(&parts, &body, None, true).is_ok());
    assert_eq!(
        rules.key(&parts, &body, None, false),
        Err(Refusal::KeyInvalid {
            value: "\"fifteen letters\"".into(),
            shortest: 16,
        })
    );
}

#[test]
fn the_default_fingerprint_covers_the_whole_request() {
    let of =
        |rules: &Idempotency, body| key(rules, &[b"\"a\""], body).unwrap().unwrap().fingerprint;
    let whole = Idempotency::optional();
    assert_eq!(of(&whole, "x"), of(&whole, "x"));
    assert_ne!(of(&whole, "x"), of(&whole, "y"));
    let path = Idempotency::optional().fingerprint(|parts, _| parts.uri.path().into());
    assert_eq!(of(&path, "x"), of(&path, "y"));
}

proptest! {
    #[test]
    fn quoted_keys_are_read_as_sent(name in "[ -~]{1,255}") {
        let quoted = format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
        let read = key(&Idempotency::optional(), &[quoted.as_bytes()], "").unwrap().unwrap();
        prop_assert_eq!(&*read.name, format!("key:{name}"));
    }
}
