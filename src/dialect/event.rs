/// One event of an event stream (HTML, section 9.2, *Server-sent events*).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Event {
    /// The type of the event; the default of clients is `message`.
    pub name: Option<&'static str>,
    /// The data, in one or more lines.
    pub data: Vec<u8>,
}

impl Event {
    /// Returns an event with this data and no type.
    #[must_use]
    pub fn new(data: impl Into<Vec<u8>>) -> Self {
        Self {
            name: None,
            data: data.into(),
        }
    }

    /// Sets the type.
    #[must_use]
    pub fn with_name(self, name: &'static str) -> Self {
        Self {
            name: Some(name),
            ..self
        }
    }

    /// Encodes the event for the wire. A client sends `id` in `Last-Event-ID` when it
    /// reconnects.
    pub(crate) fn encode(&self, id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len() + 64);
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
        if let Some(name) = self.name {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
        }
        for line in lines(&self.data) {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }
}

/// Splits `data` into lines at LF, CR or CRLF, as event streams do.
fn lines(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut more = true;
    std::iter::from_fn(move || {
        if !more {
            return None;
        }
        let Some(end) = data.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            more = false;
            return Some(data);
        };
        let line = &data[..end];
        let both = data[end..].starts_with(b"\r\n");
        data = &data[end + 1 + usize::from(both)..];
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_becomes_a_data_line_whatever_ends_it() {
        let event = Event {
            name: Some("running"),
            data: b"{\r\n \"a\":\r1\n}".to_vec(),
        };
        assert_eq!(
            String::from_utf8(event.encode("3-1f")).unwrap(),
            "id: 3-1f\nevent: running\ndata: {\ndata:  \"a\":\ndata: 1\ndata: }\n\n"
        );
        assert_eq!(Event::default().encode("1"), b"id: 1\ndata: \n\n");
    }
}
