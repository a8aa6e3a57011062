//! Answers, parsed as far as the client needs.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::{ids::Random, workload::Workload};

/// An answer that is checked once before the measurements.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The length of head and body.
    pub(crate) length: usize,
    /// The sorted names of the headers.
    pub(crate) names: Vec<String>,
}

impl Answer {
    pub(crate) fn to_one_request(mut stream: TcpStream, workload: Workload) -> Self {
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a timeout");
        let mut request = workload.request();
        let sent = stream.write_all(request.bytes(&mut Random::new()));
        sent.expect("the server reads");
        let (mut buffer, mut filled) = ([0; 8192], 0);
        let length = loop {
            let read = stream.read(&mut buffer[filled..]).expect("an answer");
            assert!(read > 0, "the server closed the connection");
            filled += read;
            if let Some(length) = answer_length(&buffer[..filled]) {
                break length;
            }
        };
        assert_eq!(length, filled, "one answer to one request");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (head, _) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut names: Vec<String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.to_owned())
            .collect();
        names.sort();
        Self {
            status: status.and_then(|status| status.parse().ok()).expect("one"),
            length,
            names,
        }
    }
}

/// Returns the length of the first answer in `bytes`, if the answer is complete.
pub(crate) fn answer_length(bytes: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"\r\ncontent-length: ";
    let mut body = 0;
    let mut at = 0;
    loop {
        // The search continues after each line.
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'\r')?;
        let rest = &bytes[at..];
        if rest.starts_with(b"\r\n\r\n") {
            at += 4;
            break;
        }
        if let Some(digits) = rest.strip_prefix(LENGTH) {
            let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
            body = digits.fold(0, |sum, digit| 10 * sum + usize::from(digit - b'0'));
        }
        at += 1;
    }
    (bytes.len() >= at + body).then_some(at + body)
}

/// Returns whether the answer has this status.
pub(crate) fn has_status(bytes: &[u8], status: u16) -> bool {
    let digit = |power: u16| b'0' + u8::try_from(status / power % 10).unwrap_or(0);
    bytes.get(9..12) == Some(&[digit(100), digit(10), digit(1)])
}
