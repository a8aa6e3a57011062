use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use proptest::prelude::*;

use super::*;
use crate::operation::BufferedBody;

fn status() -> impl Strategy<Value = Status<String>> {
    prop_oneof![
        Just(Status::Pending),
        Just(Status::Running),
        prop::option::of("\\PC*").prop_map(|text| Outcome::Succeeded(text).into()),
        "\\PC*".prop_map(|text| {
            Outcome::failed(Problem::new(StatusCode::CONFLICT).with_detail(text)).into()
        }),
        Just(Outcome::Canceled.into()),
        "\\PC*".prop_map(|reason| Outcome::CanceledFor(reason.into()).into()),
    ]
}

prop_compose! {
    fn operation()(
        status in status(),
        created in prop::option::of(1..4_000_000_000_000_u64),
        expires in prop::option::of(1..4_000_000_000_000_u64),
        message in prop::option::of("\\PC*"),
        name in prop::option::of("\\PC*"),
    ) -> Operation<String> {
        let time = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let mut metadata = Metadata::default();
        if let Some(created) = created {
            metadata = metadata.with_created_at(time(created)).with_updated_at(time(created + 1));
        }
        if let Some(name) = name {
            metadata = metadata.with_name(name);
        }
        if let Some(expires) = expires {
            metadata = metadata.with_expires_at(time(expires));
        }
        if let Some(message) = message {
            metadata = metadata.with_progress(Progress::from_count(1, 3).with_message(message));
        }
        Operation::from_parts(OperationId::new(), Snapshot { status, metadata })
    }
}

proptest! {
    #[test]
    fn handwritten_json_equals_the_json_of_serde(operation in operation()) {
        let mut by_hand = Vec::new();
        operation.view().write_json(usize::MAX, &mut by_hand).unwrap();
        let by_serde = serde_json::to_vec(&operation).unwrap();
        prop_assert_eq!(String::from_utf8(by_hand).unwrap(), String::from_utf8(by_serde).unwrap());
    }

    #[test]
    fn operations_survive_a_round_trip_through_json(operation in operation()) {
        let text = serde_json::to_string(&operation).unwrap();
        prop_assert_eq!(serde_json::from_str::<Operation<String>>(&text).unwrap(), operation);
    }
}

#[test]
fn contradictory_members_do_not_parse() {
    for (text, why) in [
        (r#"{"id":"a","state":"cancelled"}"#, "unknown variant"),
        (r#"{"id":"a","state":"failed"}"#, "has a problem"),
        (r#"{"id":"a","state":"running","result":1}"#, "has a result"),
        (
            r#"{"id":"a","state":"running","reason":""}"#,
            "has a reason",
        ),
        (
            r#"{"id":"a","state":"canceled","problem":{}}"#,
            "has a problem",
        ),
        (
            r#"{"id":"a/b","state":"running"}"#,
            "an operation id consists",
        ),
        (r#"{"state":"running"}"#, "missing field `id`"),
    ] {
        let error = serde_json::from_str::<Operation<u32>>(text).unwrap_err();
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
}

#[test]
fn a_recorded_body_is_embedded_byte_for_byte_up_to_the_limit() {
    let body = r#"{"b" : 1.0000000000000000000001, "a":[ ] }"#;
    let mut response = Response::new(BufferedBody::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let recorded = RecordedResponse::new(response);
    let operation = Operation::from_parts("x".parse().unwrap(), recorded.into_outcome());
    let text = |limit| {
        let mut out = Vec::new();
        operation.view().write_json(limit, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        text(body.len()),
        format!(r#"{{"id":"x","state":"succeeded","result":{body}}}"#)
    );
    let own = Operation::from_parts("x".parse().unwrap(), Outcome::Succeeded(Some("12345678")));
    let mut out = Vec::new();
    own.view().write_json(9, &mut out).unwrap();
    assert_eq!(out, br#"{"id":"x","state":"succeeded"}"#);
    assert_eq!(text(body.len() - 1), r#"{"id":"x","state":"succeeded"}"#);
}
