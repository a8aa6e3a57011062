use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20))
}

proptest! {
    #[test]
    fn a_cell_comes_back_and_no_part_of_it_is_one(
        (version, token, number, expires_at) in
            (1_u64.., 0_u64.., 0_u64.., proptest::option::of(1_u64..)),
        (state, parts) in (1_u8..=5, 0_u8..8),
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
                result: parts & 4 != 0,
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
    fn a_key_comes_back(
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
    fn bytes_of_any_kind_are_refused_or_read_but_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = (CellRow::decode(&bytes), KeyRow::decode(&bytes));
    }
}

#[test]
fn a_later_layout_is_refused() {
    for layout in [0, LAYOUT + 1] {
        assert!(CellRow::decode(&[layout; 200]).is_err());
        assert!(KeyRow::decode(&[layout; 200]).is_err());
    }
}
