//! The documents that runs make. The content of a document says whether it is whole.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

/// The beginning of a document that is no text.
const PDF: &str = "%PDF-1.7 ";
/// The longest first line of such a document, in bytes.
const FIRST_LINE: usize = 120;

/// Returns a document of this length, most of which is no text.
pub(crate) fn pdf(title: &str, length: usize) -> Bytes {
    let mut document = Vec::with_capacity(length + FIRST_LINE);
    document.extend_from_slice(format!("{PDF}{length} {title}\n").as_bytes());
    let seed = number_of(title);
    for number in (seed..=u32::MAX).take(length / 4) {
        document.extend_from_slice(&number.wrapping_mul(0x9e37_79b9).to_le_bytes());
    }
    document.truncate(length);
    document.into()
}

/// Returns a report. Some reports are long.
pub(crate) fn report(title: &str, pages: u32) -> Bytes {
    let report = json!({ "title": title, "pages": pages });
    let mut report = report.to_string().into_bytes();
    if pages % 4 == 3 {
        report.resize(1_200 + 300 * (number_of(title) as usize % 8), b' ');
    }
    report.into()
}

/// Returns false if the content is a document that no run has made.
pub(crate) fn is_whole(content: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Report {
        title: String,
        pages: u32,
    }
    if content.starts_with(PDF.as_bytes()) {
        let mut lines = content.splitn(2, |byte| *byte == b'\n');
        let (Some(first), Some(_)) = (lines.next(), lines.next()) else {
            return content.len() < FIRST_LINE;
        };
        let first = String::from_utf8_lossy(&first[PDF.len()..]);
        let length = first.split_once(' ');
        let length = length.and_then(|(length, title)| Some((length.parse().ok()?, title)));
        return length.is_some_and(|(length, title)| pdf(title, length) == content);
    }
    // Any other content is a problem or a report.
    match serde_json::from_slice::<Report>(content) {
        Ok(Report { title, pages }) => report(&title, pages) == content,
        Err(_) => std::str::from_utf8(content).is_ok(),
    }
}

/// Returns a number that differs for most titles.
fn number_of(title: &str) -> u32 {
    let mix = |number: u32, byte: u8| number.wrapping_mul(31).wrapping_add(byte.into());
    title.bytes().fold(7, mix) >> 1
}

#[cfg(test)]
mod tests {
    use super::{is_whole, pdf, report};

    #[test]
    fn damaged_documents_are_noticed() {
        for length in [1, 40, 200, 40_000] {
            let document = pdf("Q3", length);
            assert!(document.len() == length && is_whole(&document));
            if length < 120 {
                continue;
            }
            assert!(!is_whole(&document[..length - 1]));
            let mut damaged = document.to_vec();
            damaged[length / 2] ^= 1;
            assert!(!is_whole(&damaged));
            assert!(!is_whole(&[&document[..], b"!"].concat()));
        }
        let long = report("Q3", 3);
        assert!(long.len() > 1_000 && is_whole(&long));
        assert!(!is_whole(&long[..long.len() - 1]));
        assert!(is_whole(&report("Q3", 4)) && is_whole(b"{\"title\":\"Bad Request\"}"));
    }
}
