//! The workloads of the contenders.

use std::time::Duration;

use super::ids;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Accepted requests whose handler answers at once.
    AcceptNow,
    /// Accepted requests whose handler takes 50 ms.
    AcceptLater,
    /// Polls with this number of stored operations.
    Poll(u64),
}

impl Workload {
    pub(crate) const ALL: [Self; 4] = [
        Self::AcceptNow,
        Self::AcceptLater,
        Self::Poll(10_000),
        Self::Poll(1_000_000),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AcceptNow => "accept immediate",
            Self::AcceptLater => "accept 50 ms",
            Self::Poll(..=10_000) => "poll 1e4",
            Self::Poll(_) => "poll 1e6",
        }
    }

    pub(crate) fn from_name(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.unwrap_or_else(|| panic!("{name}: no workload"))
    }

    /// Returns the duration of the handler.
    pub(crate) fn takes(self) -> Duration {
        match self {
            Self::AcceptLater => Duration::from_millis(50),
            Self::AcceptNow | Self::Poll(_) => Duration::ZERO,
        }
    }

    /// Returns the status of each answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::AcceptNow | Self::AcceptLater => 202,
            Self::Poll(_) => 200,
        }
    }

    /// Returns a request, and the position of the id in it.
    pub(crate) fn request(self) -> Request {
        let poll = "GET /operations/";
        let (text, id) = match self {
            Self::AcceptNow | Self::AcceptLater => (
                "POST /reports HTTP/1.1\r\nhost: localhost\r\n\
                 content-type: application/json\r\ncontent-length: 14\r\n\r\n{\"title\":\"Q3\"}"
                    .to_owned(),
                None,
            ),
            Self::Poll(stored) => (
                format!("{poll}{} HTTP/1.1\r\nhost: localhost\r\n\r\n", ids::nth(0)),
                Some((poll.len(), stored)),
            ),
        };
        let bytes = text.into_bytes();
        Request { bytes, id }
    }
}

/// The bytes of a request, which names another operation each time.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    /// The position of the id, and the number of possible ids.
    id: Option<(usize, u64)>,
}

impl Request {
    pub(crate) fn bytes(&mut self, random: &mut ids::Random) -> &[u8] {
        if let Some((at, stored)) = self.id {
            let id = ids::nth(random.below(stored));
            id.as_hyphenated().encode_lower(&mut self.bytes[at..]);
        }
        &self.bytes
    }
}
