use tower_operations::operation::State;

use super::{call, convicts, good, id, passes, sighting, with};
use crate::checker::{CallAnswer, CallRequest, Entry, Violation};

/// Returns the events that a client got who named this version.
fn events(after: Option<u64>, seen: &[(u64, State)]) -> Entry {
    let operation = id();
    let seen = seen
        .iter()
        .map(|(version, state)| sighting(*version, *state));
    let seen = seen.collect();
    call(
        80,
        90,
        CallRequest::Events { operation, after },
        CallAnswer::Events { seen },
    )
}

fn out_of_order(before: u64, then: u64) -> Violation {
    Violation::EventsOutOfOrder {
        operation: id(),
        before,
        then,
    }
}

#[test]
fn events_are_in_order_and_none_comes_twice() {
    use State::{Pending, Running, Succeeded};
    // Versions that are older than what others have seen are what the client has missed.
    let all = [(1, Pending), (2, Running), (3, Succeeded)];
    passes(&with(good(), events(None, &all)));
    passes(&with(good(), events(Some(1), &all[1..])));
    passes(&with(good(), events(Some(3), &[])));
    let again = [(2, Running), (2, Running)];
    convicts(&with(good(), events(None, &again)), &out_of_order(2, 2));
    let back = [(3, Succeeded), (2, Running)];
    convicts(&with(good(), events(None, &back)), &out_of_order(3, 2));
    convicts(&with(good(), events(Some(2), &all)), &out_of_order(2, 1));
}

#[test]
fn events_show_what_others_have_seen() {
    let other = [(2, State::Pending)];
    let reused = Violation::VersionReused {
        operation: id(),
        version: 2,
    };
    convicts(&with(good(), events(None, &other)), &reused);
}
