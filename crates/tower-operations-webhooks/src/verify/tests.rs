use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::Secret;

const TOLERANCE: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn secrets(byte: u8) -> Secrets {
    Secrets::new(Secret::from_bytes(&[byte; 32]).unwrap())
}

fn signed(secrets: &Secrets, id: &str, seconds: u64, body: &[u8]) -> HeaderMap {
    let signature = secrets.sign(&id.parse().unwrap(), at(seconds), body);
    HeaderMap::from_iter([
        (WEBHOOK_ID, id.parse().unwrap()),
        (WEBHOOK_TIMESTAMP, seconds.into()),
        (WEBHOOK_SIGNATURE, signature.parse().unwrap()),
    ])
}

fn with(name: HeaderName, value: &str) -> HeaderMap {
    let mut headers = signed(&secrets(1), "msg", 1000, b"{}");
    headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    headers
}

fn judge(headers: &HeaderMap) -> Result<VerifiedWebhook, VerifyError> {
    verify_at(headers, b"{}", &secrets(1), TOLERANCE, at(1000))
}

#[test]
fn a_signed_webhook_is_verified() {
    let headers = signed(&secrets(1), "msg", 1000, b"{}");
    let webhook = judge(&headers).unwrap();
    assert_eq!(webhook.id().as_str(), "msg");
    assert_eq!(webhook.timestamp(), at(1000));
}

#[test]
fn the_tolerance_holds_in_both_directions() {
    let headers = signed(&secrets(1), "msg", 1000, b"");
    let judge = |now| verify_at(&headers, b"", &secrets(1), TOLERANCE, now).map(|_| ());
    assert_eq!(judge(at(1300)), Ok(()));
    assert_eq!(judge(at(1300) + Duration::from_millis(999)), Ok(()));
    assert_eq!(judge(at(1301)), Err(VerifyError::TooOld));
    assert_eq!(judge(at(700)), Ok(()));
    assert_eq!(judge(at(699)), Err(VerifyError::TooNew));
    assert_eq!(judge(at(u32::MAX.into())), Err(VerifyError::TooOld));
    assert_eq!(judge(at(0)), Err(VerifyError::TooNew));
}

#[test]
fn each_field_is_needed_once() {
    for name in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
        let mut headers = signed(&secrets(1), "msg", 1000, b"{}");
        let value = headers.remove(&name).unwrap();
        assert_eq!(
            judge(&headers),
            Err(VerifyError::MissingHeader(name.clone()))
        );
        headers.append(&name, value.clone());
        headers.append(&name, value);
        assert_eq!(judge(&headers), Err(VerifyError::InvalidHeader(name)));
    }
}

#[test]
fn invalid_fields_are_refused() {
    for id in ["", "a.b", "a b", "é"] {
        let invalid = VerifyError::InvalidHeader(WEBHOOK_ID);
        assert_eq!(judge(&with(WEBHOOK_ID, id)), Err(invalid), "{id}");
    }
    let huge = u64::MAX.to_string();
    for timestamp in [
        "", "+1000", "-1000", "01000", "1000.0", "1e3", "x", " 1000", &huge,
    ] {
        let invalid = VerifyError::InvalidHeader(WEBHOOK_TIMESTAMP);
        let judged = judge(&with(WEBHOOK_TIMESTAMP, timestamp));
        let is_refused = judged == Err(invalid) || judged == Err(VerifyError::TooNew);
        assert!(is_refused, "{timestamp}: {judged:?}");
    }
    let invalid = VerifyError::InvalidHeader(WEBHOOK_SIGNATURE);
    assert_eq!(judge(&with(WEBHOOK_SIGNATURE, "v1,é")), Err(invalid));
}

#[test]
fn bytes_cannot_move_between_the_signed_parts() {
    // The same bytes are signed for ("a", 1000, "1000.{}") and for ("a.1000", 1000, "{}").
    let mut headers = signed(&secrets(1), "a", 1000, b"1000.{}");
    headers.insert(WEBHOOK_ID, HeaderValue::from_static("a.1000"));
    assert_eq!(judge(&headers), Err(VerifyError::InvalidHeader(WEBHOOK_ID)));
}

#[test]
fn unknown_versions_and_malformed_entries_are_skipped() {
    let headers = signed(&secrets(1), "msg", 1000, b"{}");
    let valid = headers[WEBHOOK_SIGNATURE].to_str().unwrap();
    let (_, base64) = valid.split_once(',').unwrap();
    for list in [
        format!("v1a,AAAA {valid}"),
        format!("{valid} v2,AAAA"),
        format!("v1,!!! v1 , v1,AAAA  {valid}"),
    ] {
        assert!(judge(&with(WEBHOOK_SIGNATURE, &list)).is_ok(), "{list}");
    }
    for list in [
        String::new(),
        base64.to_owned(),
        format!("v1a,{base64}"),
        format!("V1,{base64}"),
        format!("v1,v1,{base64}"),
        valid.trim_end_matches('=').to_owned(),
        valid[..valid.len() - 4].to_owned(),
        "v1,".to_owned(),
    ] {
        let judged = judge(&with(WEBHOOK_SIGNATURE, &list));
        assert_eq!(judged, Err(VerifyError::NoMatchingSignature), "{list}");
    }
}

#[test]
fn secrets_rotate() {
    let [old, new] = [1, 2].map(|byte| Secret::from_bytes(&[byte; 32]).unwrap());
    let both = Secrets::new(new.clone()).previous(old.clone());
    let (old, new) = (Secrets::new(old), Secrets::new(new));
    let judge = |by: &Secrets, with: &Secrets| {
        let headers = signed(by, "msg", 1000, b"{}");
        verify_at(&headers, b"{}", with, TOLERANCE, at(1000)).map(|_| ())
    };
    // The sender rotates: receivers with either secret accept.
    assert_eq!(judge(&both, &old), Ok(()));
    assert_eq!(judge(&both, &new), Ok(()));
    // The receiver rotates: it accepts senders with either secret.
    assert_eq!(judge(&old, &both), Ok(()));
    assert_eq!(judge(&new, &both), Ok(()));
    assert_eq!(judge(&old, &new), Err(VerifyError::NoMatchingSignature));
    let headers = signed(&both, "msg", 1000, b"{}");
    assert_eq!(
        headers[WEBHOOK_SIGNATURE]
            .to_str()
            .unwrap()
            .split(' ')
            .count(),
        2
    );
}

proptest! {
    #[test]
    fn what_is_signed_is_verified_and_any_change_is_noticed(
        key in proptest::collection::vec(any::<u8>(), 24..=64),
        id in "[!-\\-/-~]{1,40}",
        seconds in 0..u64::from(u32::MAX),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        at_byte in any::<proptest::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let secrets = Secrets::new(Secret::from_bytes(&key).unwrap());
        let headers = signed(&secrets, &id, seconds, &body);
        let now = at(seconds);
        let judge = |headers: &HeaderMap, body: &[u8], secrets: &Secrets| {
            verify_at(headers, body, secrets, TOLERANCE, now).is_ok()
        };
        prop_assert!(judge(&headers, &body, &secrets));

        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let index = at_byte.index(bytes.len());
            bytes[index] ^= 1 << bit;
            bytes
        };
        if !body.is_empty() {
            prop_assert!(!judge(&headers, &flipped(&body), &secrets));
        }
        let mut longer = body.clone();
        longer.push(0);
        prop_assert!(!judge(&headers, &longer, &secrets));
        let other = Secrets::new(Secret::from_bytes(&flipped(&key)).unwrap());
        prop_assert!(!judge(&headers, &body, &other));
        for name in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
            let Ok(value) = HeaderValue::from_bytes(&flipped(headers[&name].as_bytes())) else {
                continue;
            };
            let mut headers = headers.clone();
            headers.insert(&name, value);
            prop_assert!(!judge(&headers, &body, &secrets), "{}", name);
        }
    }
}
