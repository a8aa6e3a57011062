//! List cursors, sealed so that only their store can read or create them.
//!
//! A cursor holds the number of the last operation of its page. The number counts the
//! operations of all owners. The cursor is encrypted and authenticated like a synthetic IV (RFC 5297, section
//! 1.3.2): its tag is an HMAC-SHA-256 (RFC 2104) of version, list and number, truncated to
//! 128 bits, and an HMAC of the tag hides the number.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Cursor, ListQuery, StoreError};
use crate::{environment::random_bytes, operation::State};

/// The version of this format, and the first character of a cursor.
const VERSION: u8 = b'1';

/// The length of the tag, in bytes.
const TAG: usize = 16;
/// The length of the hidden number, in bytes.
const NUMBER: usize = 8;

/// Domain separation: the input of an HMAC begins with one of these.
const LIST_DOMAIN: [u8; 2] = [VERSION, 0];
const TAG_DOMAIN: [u8; 2] = [VERSION, 1];

/// The key that seals the cursors of a store, the same on all its nodes.
#[derive(Clone)]
pub(crate) struct CursorKey(Hmac<Sha256>);

/// Returns a random secret, as a new engine needs it for list cursors.
#[must_use]
pub fn new_secret() -> [u8; 32] {
    random_bytes()
}

impl CursorKey {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes any key"))
    }

    /// Seals the number of a page's last operation in the list that `query` asks for.
    pub(crate) fn seal(&self, query: &ListQuery, number: u64) -> Cursor {
        let tag: [u8; TAG] = first_of(self.mac(query, number));
        let hidden = number ^ self.mask(&tag);
        let mut text = String::with_capacity(1 + 2 * (TAG + NUMBER));
        text.push(char::from(VERSION));
        for byte in tag.into_iter().chain(hidden.to_be_bytes()) {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Cursor(text.into())
    }

    /// Opens a cursor of the list that `query` asks for.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the cursor is forged or belongs to another list.
    pub(crate) fn open(&self, query: &ListQuery, cursor: &Cursor) -> Result<u64, StoreError> {
        self.number(query, &cursor.0)
            .ok_or_else(|| StoreError::refused("the cursor does not belong to this list"))
    }

    fn number(&self, query: &ListQuery, text: &str) -> Option<u64> {
        let bytes = bytes_of(text.strip_prefix(char::from(VERSION))?)?;
        let (tag, hidden) = bytes.split_first_chunk::<TAG>()?;
        let number = u64::from_be_bytes(hidden.try_into().ok()?) ^ self.mask(tag);
        // The tag is compared in constant time.
        let verified = self.mac(query, number).verify_truncated_left(tag);
        verified.is_ok().then_some(number)
    }

    /// Authenticates the owner and the states of a list, and the number.
    fn mac(&self, query: &ListQuery, number: u64) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&LIST_DOMAIN);
        let owner = query.owner.as_ref().map(|owner| owner.as_str().as_bytes());
        mac.update(&[u8::from(owner.is_some())]);
        let owner = owner.unwrap_or_default();
        mac.update(&(owner.len() as u64).to_be_bytes());
        mac.update(owner);
        mac.update(&State::ALL.map(|state| u8::from(query.states.contains(state))));
        mac.update(&number.to_be_bytes());
        mac
    }

    fn mask(&self, tag: &[u8; TAG]) -> u64 {
        let mac = self.0.clone().chain_update(TAG_DOMAIN).chain_update(tag);
        u64::from_be_bytes(first_of(mac))
    }
}

fn first_of<const N: usize>(mac: Hmac<Sha256>) -> [u8; N] {
    let digest = mac.finalize().into_bytes();
    std::array::from_fn(|index| digest[index])
}

/// Decodes lower-case hexadecimal digits, so that a cursor has one spelling.
fn bytes_of(text: &str) -> Option<[u8; TAG + NUMBER]> {
    let mut bytes = [0; TAG + NUMBER];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{operation::StateSet, store::Owner};

    fn query() -> impl Strategy<Value = ListQuery> {
        let owner = proptest::option::of("[a-c]{0,2}".prop_map(Owner::new));
        let states = proptest::collection::vec(any::<bool>(), State::ALL.len());
        (owner, states, 1_usize..100).prop_map(|(owner, states, limit)| {
            let states = State::ALL.into_iter().zip(states);
            let states = states.filter(|(_, is_in)| *is_in).map(|(state, _)| state);
            ListQuery::new(owner, limit).with_states(states)
        })
    }

    fn opened(key: &CursorKey, query: &ListQuery, cursor: &str) -> Result<u64, StoreError> {
        key.open(query, &Cursor(cursor.into()))
    }

    proptest! {
        #[test]
        fn cursors_open_in_their_own_list_and_in_no_other(
            (one, other) in (query(), query()),
            number: u64,
        ) {
            let key = CursorKey::new(&[7; 32]);
            let Cursor(text) = key.seal(&one, number);
            prop_assert_eq!(opened(&key, &one, &text).unwrap(), number);
            let is_same = one.owner == other.owner && one.states == other.states;
            prop_assert_eq!(opened(&key, &other, &text).is_ok(), is_same);
            let stranger = CursorKey::new(&[8; 32]);
            prop_assert!(opened(&stranger, &one, &text).is_err());
        }

        #[test]
        fn changed_cursors_are_refused(
            query in query(),
            number: u64,
            (at, by) in (0_usize..49, "[0-9a-gA-F]"),
        ) {
            let key = CursorKey::new(&[7; 32]);
            let Cursor(text) = key.seal(&query, number);
            let mut changed = text.to_string();
            changed.replace_range(at..=at, &by);
            prop_assert_eq!(opened(&key, &query, &changed).is_ok(), *changed == *text);
            for wrong in [&text[..at], &format!("{text}{by}")] {
                prop_assert!(opened(&key, &query, wrong).is_err());
            }
        }

        #[test]
        fn invented_cursors_are_refused(query in query(), text in "\\PC{0,60}|1[0-9a-f]{48}") {
            prop_assert!(opened(&CursorKey::new(&[7; 32]), &query, &text).is_err());
        }
    }

    /// A later release either opens the cursors of this release or uses another version.
    #[test]
    fn sealed_cursors_have_not_changed() {
        let query = ListQuery::new(Some(Owner::new("ada")), 20).with_state(State::Failed);
        let Cursor(text) = CursorKey::new(&[7; 32]).seal(&query, 1000);
        assert_eq!(&*text, "1188791d3fcf7bb5b4c96e31dc85f67b0dcfca15d29d77e30");
        let all = ListQuery {
            states: StateSet::ALL,
            ..query
        };
        assert_ne!(CursorKey::new(&[7; 32]).seal(&all, 1000), Cursor(text));
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(new_secret(), new_secret());
    }
}
