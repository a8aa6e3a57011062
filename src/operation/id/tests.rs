use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn new_ids_are_version_7_and_their_74_random_bits_all_vary() {
    let ids: Vec<u128> = (0..256)
        .map(|_| match OperationId::new().0 {
            Repr::Uuid(uuid) => {
                assert_eq!(uuid.get_version_num(), 7);
                assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
                uuid.as_u128()
            }
            Repr::Text(_) => unreachable!("made as a UUID"),
        })
        .collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    let varying = ids.iter().fold(0, |bits, id| bits | (id ^ ids[0])) & ((1 << 80) - 1);
    assert_eq!(varying.count_ones(), 74);
}

#[test]
fn hostile_texts_are_refused() {
    for (text, why) in [
        ("", InvalidId::Empty),
        (".", InvalidId::Reserved),
        ("..", InvalidId::Reserved),
        ("events", InvalidId::Reserved),
        ("a/b", InvalidId::Character),
        ("a%2Fb", InvalidId::Character),
        ("a\0", InvalidId::Character),
        ("ü", InvalidId::Character),
    ] {
        assert_eq!(text.parse::<OperationId>(), Err(why), "{text:?}");
    }
    assert_eq!(
        "x".repeat(129).parse::<OperationId>(),
        Err(InvalidId::TooLong)
    );
    assert!("x".repeat(128).parse::<OperationId>().is_ok());
}

#[test]
fn reserved_words_are_refused_by_from_str_and_nowhere_else() {
    for word in RESERVED {
        assert_eq!(word.parse::<OperationId>(), Err(InvalidId::Reserved));
        for read in [OperationId::named(word), OperationId::from_stored(word)] {
            assert_eq!(read.unwrap().to_string(), word);
        }
        let json = format!("\"{word}\"");
        let read: OperationId = serde_json::from_str(&json).unwrap();
        assert_eq!(read.to_string(), word);
    }
}

#[test]
fn stored_ids_are_read_whatever_the_present_rules_are() {
    for text in ["a/b", "..", "\u{fc} x", &"x".repeat(1000)] {
        assert_eq!(OperationId::from_stored(text).unwrap().to_string(), text);
        assert!(OperationId::named(text).is_err());
    }
    let uuid = OperationId::new();
    assert_eq!(OperationId::from_stored(&uuid.to_string()), Ok(uuid));
    assert_eq!(OperationId::from_stored(""), Err(InvalidId::Empty));
}

proptest! {
    #[test]
    fn parsed_ids_are_written_unchanged(text in "\\PC{0,140}|[a-f0-9-]{36}|[A-Za-z0-9._~-]{1,128}") {
        if let Ok(id) = text.parse::<OperationId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn uuids_differ_by_case(bytes in any::<[u8; 16]>()) {
        let lower = Uuid::from_bytes(bytes).to_string();
        let upper = lower.to_uppercase();
        let (a, b): (OperationId, OperationId) = (lower.parse().unwrap(), upper.parse().unwrap());
        prop_assert_eq!(a == b, lower == upper);
    }
}
