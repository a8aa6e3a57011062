use proptest::prelude::*;
use serde_json::json;

use super::*;

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("\\PC*", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn problems_survive_a_round_trip_through_json(
        kind in prop::option::of("\\PC*"),
        title in "\\PC*",
        status in 100_u16..1000,
        extensions in prop::collection::hash_map("\\PC*", json_value(), 0..4),
    ) {
        let mut problem = Problem::new(StatusCode::from_u16(status).unwrap()).with_title(title);
        if let Some(kind) = kind {
            problem = problem.with_type(kind);
        }
        for (name, value) in extensions {
            problem = problem.with(name, value);
        }
        let back: Problem = serde_json::from_slice(&problem.to_json()).unwrap();
        prop_assert_eq!(back, problem);
    }
}

#[test]
fn members_of_another_type_are_ignored() {
    let problem: Problem = serde_json::from_value(json!({
        "type": 1, "title": null, "status": "422", "detail": [], "instance": {}, "code": "X",
    }))
    .unwrap();
    assert_eq!(problem, Problem::default().with("code", "X"));
    assert_eq!(problem.type_uri(), "about:blank");
    for status in [
        json!(0),
        json!(99),
        json!(1000),
        json!(70_000),
        json!(-1),
        json!(4.5),
    ] {
        let problem: Problem = serde_json::from_value(json!({ "status": status })).unwrap();
        assert_eq!(problem.status(), None);
    }
    assert!(serde_json::from_str::<Problem>("[]").is_err());
}

#[test]
fn extensions_cannot_shadow_the_standard_members() {
    let problem = Problem::new(StatusCode::CONFLICT).with("status", 200);
    assert_eq!(problem.to_json(), br#"{"title":"Conflict","status":409}"#);
}
