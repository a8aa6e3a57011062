//! The arguments of scripts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::Cmd;
use tower_operations::{
    operation::{State, StateSet},
    store::{FencingToken, IdempotencyKey, Stamp},
};

/// The time by which the server removes expired data later than a node would. Their clocks may
/// differ by this time.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// The entry of a key.
pub(super) struct KeyArguments<'a> {
    pub(super) class: &'static str,
    pub(super) data: Option<&'a str>,
    pub(super) token: Option<FencingToken>,
}

impl KeyArguments<'_> {
    /// Returns the number of values of the entry.
    pub(super) fn len(&self) -> usize {
        let options = [self.data.is_some(), self.token.is_some()];
        4 + 2 * options.into_iter().filter(|is_there| *is_there).count()
    }

    pub(super) fn push_to(&self, call: &mut Cmd, key: &IdempotencyKey) {
        call.arg("c").arg(self.class);
        call.arg("f").arg(&key.fingerprint[..]);
        if let Some(data) = self.data {
            call.arg("d").arg(data);
        }
        if let Some(token) = self.token {
            call.arg("t").arg(token.get());
        }
    }
}

pub(super) fn push_stamp(call: &mut Cmd, stamp: Stamp) {
    call.arg(stamp.version.get()).arg(stamp.token.get());
}

pub(super) fn push_cell(call: &mut Cmd, stamp: Stamp, state: State, head: &[u8]) {
    call.arg("v").arg(stamp.version.get());
    call.arg("t").arg(stamp.token.get());
    call.arg("s").arg(state.as_str());
    call.arg("h").arg(head);
}

/// Returns the states with a comma around each; all states are the empty argument.
pub(super) fn words(states: StateSet) -> String {
    let words = states.iter().map(|state| format!("{state},"));
    match states.is_all() {
        true => String::new(),
        false => [",".to_owned()].into_iter().chain(words).collect(),
    }
}

/// Adds a value; `None` is the empty argument.
pub(super) fn optional(call: &mut Cmd, value: Option<u64>) {
    match value {
        Some(value) => call.arg(value),
        None => call.arg(""),
    };
}

/// A time that is far enough in the future, and exact in Lua and Redis.
const FOREVER: u64 = 1 << 52;

/// Returns a time in milliseconds since 1970.
pub(super) fn moment(at: SystemTime) -> u64 {
    let age = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(age.as_millis()).map_or(FOREVER, |at| at.min(FOREVER))
}

/// Returns the time at which the server removes data that expires at this time.
pub(super) fn removal(at: SystemTime) -> u64 {
    moment(at) + millis(GRACE)
}

/// Returns a term in milliseconds, rounded up.
pub(super) fn millis(term: Duration) -> u64 {
    let millis = term.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).map_or(FOREVER, |term| term.min(FOREVER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_and_times_are_exact_numbers_of_the_server() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::MAX), FOREVER);
        assert_eq!(moment(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(moment(UNIX_EPOCH + Duration::from_micros(1999)), 1);
        // Lua's numbers are exact up to 2^53. That suffices for a term that begins in this
        // century.
        const { assert!(FOREVER + 4_000_000_000_000 < 1 << 53) };
    }
}
