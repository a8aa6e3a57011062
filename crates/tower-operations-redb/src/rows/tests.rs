use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20))
}

proptest! {
    #[test]
    fn cells_survive_a_round_trip_and_truncated_cells_are_errors(
        (version, token, number, expires_at) in
            (1_u64.., 0_u64.., 0_u64.., proptest::option::of(1_u64..)),
        (state, parts, result) in (1_u8..=5, 0_u8..4, proptest::option::of(0_u64..)),
        (owner, key, head) in (text(), text(), proptest::collection::vec(any::<u8>(), 0..50)),
    ) {
        let row = CellRow {
            stamp: Stamp::new(
                Version::from_number(version).unwrap(),
                FencingToken::from_number(token),
            ),
            number,
            expires_at,
            state: state_of(state).unwrap(),
            parts: CellParts {
                lease: parts & 1 != 0,
                request: parts & 2 != 0,
                result: result.map_or(ResultPart::None, ResultPart::Length),
            },
            owner: owner.as_deref(),
            key: key.as_deref(),
            head: &head,
        };
        let bytes = row.encode();
        prop_assert_eq!(CellRow::decode(&bytes).unwrap(), row);
        let len = bytes.len() - head.len();
        for end in 0..len {
            prop_assert!(CellRow::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn keys_survive_a_round_trip(
        (token, until) in (0_u64.., proptest::option::of(1_u64..)),
        (kind, owner, content) in (0..3, text(), proptest::collection::vec(any::<u8>(), 0..50)),
        fingerprint in any::<[u8; 32]>(),
    ) {
        let row = KeyRow {
            owner: owner.as_deref(),
            fingerprint,
            token: FencingToken::from_number(token),
            until,
            bound: match kind {
                0 => RowBinding::Operation(&content),
                1 => RowBinding::Remains(&content),
                _ => RowBinding::Answer(&content),
            },
        };
        let bytes = row.encode();
        prop_assert_eq!(KeyRow::decode(&bytes).unwrap(), row);
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = (CellRow::decode(&bytes), KeyRow::decode(&bytes));
    }
}

#[test]
fn later_layouts_are_refused() {
    for layout in [0, WITH_LENGTH + 1] {
        assert!(CellRow::decode(&[layout; 200]).is_err());
    }
    for layout in [0, LAYOUT + 1] {
        assert!(KeyRow::decode(&[layout; 200]).is_err());
    }
}
