//! The payload of a notification: JSON, at most as long as PostgreSQL takes it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tower_operations::{engine::Notice, operation::OperationId, store::NodeId};

use super::Gathered;

/// The maximum length of a payload; PostgreSQL takes less than 8,000 bytes.
const LONGEST: usize = 7_900;

#[derive(Serialize, Deserialize)]
struct NoticePayload<'a> {
    /// The handle that sent the payload.
    #[serde(borrow)]
    by: Cow<'a, str>,
    /// The operations, each with the node that has lost its lease, if a node has. `None` means
    /// that anything may have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<Vec<Changed>>,
    /// Whether leases were released.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    released: bool,
}

/// An operation, and the node that has lost the lease on it.
type Changed = (OperationId, Option<String>);

/// Writes the payloads for the gathered notices.
pub(super) fn write(gathered: Gathered, me: &str) -> Vec<String> {
    let notices = match gathered {
        Gathered::Nothing => return Vec::new(),
        Gathered::Anything => return vec![json(me, None, false)],
        Gathered::Notices(notices) => notices,
    };
    let released = notices.contains(&Notice::Released);
    let mut payloads = Vec::new();
    let mut part = Vec::new();
    let mut length = 0;
    for notice in notices {
        let Notice::Changed {
            id,
            revoked_from: node,
        } = notice
        else {
            continue;
        };
        // The name of a node can have any length. Without the name, the node finds out at its
        // next renewal.
        let node = node.filter(|node| escaped(node.as_str()) <= LONGEST / 2);
        let node = node.map(|node| node.as_str().to_owned());
        // The addition covers brackets, quotes and commas, or `null`.
        let more = id.to_string().len() + node.as_deref().map_or(0, escaped) + 12;
        if length + more > LONGEST - 100 {
            payloads.push(json(me, Some(std::mem::take(&mut part)), false));
            length = 0;
        }
        length += more;
        part.push((id, node));
    }
    payloads.push(json(me, Some(part), released));
    payloads
}

fn json(me: &str, of: Option<Vec<Changed>>, released: bool) -> String {
    let by = me.into();
    let payload = NoticePayload { by, of, released };
    // Serialization cannot fail; if it did, the empty payload would make every node read
    // again.
    serde_json::to_string(&payload).unwrap_or_default()
}

/// Returns the maximum length of a text within JSON.
fn escaped(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(length).sum()
}

/// Reads the content of a notification: nothing if `me` sent it.
pub(super) fn read(payload: &str, me: &str) -> Gathered {
    let Ok(payload) = serde_json::from_str::<NoticePayload<'_>>(payload) else {
        // The payload may come from another release.
        return Gathered::Anything;
    };
    if payload.by == me {
        return Gathered::Nothing;
    }
    let Some(changes) = payload.of else {
        return Gathered::Anything;
    };
    let changes = changes.into_iter().map(|(id, node)| Notice::Changed {
        id,
        revoked_from: node.map(NodeId::named),
    });
    let released = payload.released.then_some(Notice::Released);
    Gathered::Notices(changes.chain(released).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn payloads_are_few_and_never_too_long() {
        let changed = |revoked_from| Notice::Changed {
            id: OperationId::new(),
            revoked_from,
        };
        let ids: HashSet<_> = (0..500).map(|_| changed(None)).collect();
        let payloads = write(Gathered::Notices(ids), "me");
        assert!(payloads.len() <= 4, "{}", payloads.len());
        assert!(payloads.iter().all(|payload| payload.len() <= LONGEST));

        let long = "\u{1}\"x".repeat(200);
        let changes = (0..50).map(|_| changed(Some(NodeId::named(&*long))));
        let payloads = write(Gathered::Notices(changes.collect()), "me");
        assert!(payloads.iter().all(|payload| payload.len() <= LONGEST));
        assert!(payloads.iter().all(|payload| payload.contains("\\u0001")));

        let endless = NodeId::named("x".repeat(10_000));
        let endless = HashSet::from([changed(Some(endless))]);
        let payloads = write(Gathered::Notices(endless), "me");
        assert!(payloads[0].len() <= LONGEST);
        assert!(write(Gathered::Nothing, "me").is_empty());
    }

    #[test]
    fn payloads_of_others_are_read_and_own_payloads_are_ignored() {
        let change = Notice::Changed {
            id: OperationId::new(),
            revoked_from: Some(NodeId::named("node \"1\"")),
        };
        let notices = HashSet::from([change, Notice::Released]);
        let said = write(Gathered::Notices(notices.clone()), "other");
        assert_eq!(read(&said[0], "other"), Gathered::Nothing);
        assert_eq!(read(&said[0], "me"), Gathered::Notices(notices));

        let released = HashSet::from([Notice::Released]);
        let said = write(Gathered::Notices(released.clone()), "other");
        assert_eq!(read(&said[0], "me"), Gathered::Notices(released));

        for said in [write(Gathered::Anything, "other").remove(0), "?".into()] {
            assert_eq!(read(&said, "me"), Gathered::Anything);
        }
    }
}
