//! JSON as text (RFC 8259): whether bytes are some, and writing a string.
//!
//! Every recorded body that says it is JSON is looked at once. What takes time is its
//! long strings, so those are read a block at a time, which a compiler makes one
//! comparison of.

/// Whether `bytes` are one JSON value, however deep.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    // Most are ASCII, which is found out sooner.
    let is_text = bytes.is_ascii() || std::str::from_utf8(bytes).is_ok();
    is_text && Reader(bytes).value_alone().is_some()
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A string into a Vec: neither can fail.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Whether all of these stand for themselves in a string.
fn is_plain(bytes: &[u8]) -> bool {
    // No way out in the middle, for the sake of the compiler.
    let or_special =
        |special, byte: &u8| special | (*byte == b'"') | (*byte == b'\\') | (*byte < b' ');
    !bytes.iter().fold(false, or_special)
}

/// What is still to be read. `None` of a method means that this is no JSON.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn value_alone(mut self) -> Option<()> {
        // What closes the arrays and objects that are open.
        let mut open = Vec::new();
        loop {
            match self.next_token()? {
                b'{' if !self.takes(b'}') => {
                    open.push(b'}');
                    self.name()?;
                    continue;
                }
                b'[' if !self.takes(b']') => {
                    open.push(b']');
                    continue;
                }
                b'{' | b'[' => {}
                b'"' => self.rest_of_string()?,
                b't' => self.rest_of_word(b"rue")?,
                b'f' => self.rest_of_word(b"alse")?,
                b'n' => self.rest_of_word(b"ull")?,
                b'-' => {
                    let first = self.next()?;
                    self.rest_of_number(first)?;
                }
                first => self.rest_of_number(first)?,
            }
            // After a value.
            loop {
                let Some(close) = open.last().copied() else {
                    self.skip_space();
                    return self.0.is_empty().then_some(());
                };
                match self.next_token()? {
                    b',' if close == b'}' => self.name()?,
                    b',' => {}
                    token if token == close => {
                        open.pop();
                        continue;
                    }
                    _ => return None,
                }
                break;
            }
        }
    }

    /// The name of a member, and the colon after it.
    fn name(&mut self) -> Option<()> {
        (self.next_token()? == b'"').then_some(())?;
        self.rest_of_string()?;
        (self.next_token()? == b':').then_some(())
    }

    fn rest_of_string(&mut self) -> Option<()> {
        loop {
            // Most strings are short.
            if self.takes_plain::<16>() {
                while self.takes_plain::<64>() {}
                while self.takes_plain::<16>() {}
            }
            while self.takes_plain::<1>() {}
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.rest_of_escape()?,
                _ => return None,
            }
        }
    }

    /// Whether so many bytes come that stand for themselves, which are read then.
    fn takes_plain<const BLOCK: usize>(&mut self) -> bool {
        match self.0.split_first_chunk::<BLOCK>() {
            Some((block, rest)) if is_plain(block) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn rest_of_escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let (digits, rest) = self.0.split_at_checked(4)?;
                self.0 = rest;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn rest_of_word(&mut self, rest: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(rest)?;
        Some(())
    }

    fn rest_of_number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.takes_directly(b".") {
            self.digits()?;
        }
        if self.takes_directly(b"eE") {
            self.takes_directly(b"+-");
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        self.next()?.is_ascii_digit().then_some(())?;
        self.skip_digits();
        Some(())
    }

    fn skip_digits(&mut self) {
        while let [b'0'..=b'9', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The first byte after white space.
    fn next_token(&mut self) -> Option<u8> {
        self.skip_space();
        self.next()
    }

    /// Whether the next token is this one, which is read then.
    fn takes(&mut self, token: u8) -> bool {
        self.skip_space();
        self.takes_directly(&[token])
    }

    /// Whether the next byte is one of these, which is read then.
    fn takes_directly(&mut self, bytes: &[u8]) -> bool {
        match self.0 {
            [first, rest @ ..] if bytes.contains(first) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json_for_serde(bytes: &[u8]) -> bool {
        let text = std::str::from_utf8(bytes);
        text.is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
    }

    #[test]
    fn what_is_json_is_what_the_standard_says() {
        let long = "p".repeat(200);
        let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        assert!(is_json(&deep) && !is_json(&deep[1..]) && !is_json(&deep[..19_999]));
        for text in [
            "",
            " ",
            "1",
            " 1 ",
            "01",
            "-0",
            "-",
            "+1",
            "1.",
            ".5",
            "1.5e",
            "1e+",
            "1E-7",
            "1e07",
            "true",
            "tru",
            "truex",
            "null",
            "false",
            "\"\"",
            "\"",
            "\"\\\"",
            "\"\\\"\"",
            "\"\\x\"",
            "\"\\u00e\"",
            "\"\\u00eF\"",
            "\"\\ud800\"",
            "\"a\nb\"",
            "\"a\tb\"",
            "\"\u{7f}ü\"",
            "[]",
            "[ ]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1,[2,{}]]",
            "{}",
            "{ }",
            "{,}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{\"a\" : {\"b\":[1]} , \"c\":2}",
            "{a:1}",
            "{1:1}",
            "[}",
            "{]",
            "[1]]",
            "{} {}",
            "\u{c}1",
            "\u{feff}1",
            "[1\u{b}]",
            "NaN",
            "[\"a\" \"b\"]",
            "{\"a\":1 \"b\":2}",
            "{\"a\",1}",
            "[\"a\":1]",
        ] {
            for text in [
                text.to_owned(),
                text.replace('a', &long),
                text.replace('a', &format!("{long}\\n{long}\\u00e")),
            ] {
                assert_eq!(
                    is_json(text.as_bytes()),
                    is_json_for_serde(text.as_bytes()),
                    "{text:?}"
                );
            }
        }
        assert!(!is_json(b"\"\xff\""));
    }

    proptest! {
        #[test]
        fn judges_as_serde_does(text in r#"([\[\]{},:" \\/ntfue0-9.+-]|"a":|true|\\u00|[ü\n]){0,24}"#) {
            prop_assert_eq!(is_json(text.as_bytes()), is_json_for_serde(text.as_bytes()));
        }

        #[test]
        fn a_change_of_what_is_json_is_judged_as_serde_does(
            names in prop::collection::vec("\\PC{0,40}", 1..4),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let value = serde_json::json!({ "names": names, "more": [1.5e9, -3, null, true, { "b": [] }] });
            let mut bytes = value.to_string().into_bytes();
            prop_assert!(is_json(&bytes));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            prop_assert_eq!(is_json(&bytes), is_json_for_serde(&bytes));
        }

        #[test]
        fn writes_a_string_as_serde_does(text in "\\PC{0,60}|[a-z\"\\\\\n]{0,60}") {
            let mut out = Vec::new();
            push_string(&text, &mut out);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }
}
