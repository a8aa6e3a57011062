//! JSON as text (RFC 8259): whether bytes are some, and writing a string.
//!
//! Every recorded body that says it is JSON is looked at once. What takes time is its
//! long strings, so those are read a block at a time, which a compiler makes one
//! comparison of.

/// Whether `bytes` are one JSON value, however deep.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    let reader = Reader {
        rest: bytes,
        is_text: false,
    };
    reader.value_alone().is_some()
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

/// The same, and whether they are ASCII if it is not known that they are `TEXT`.
fn is_plain_in<const TEXT: bool>(bytes: &[u8]) -> bool {
    // As numbers with a sign those that are not ASCII come before the others.
    let or_special = |special, byte: &u8| {
        special | (*byte == b'"') | (*byte == b'\\') | ((*byte as i8) < b' ' as i8)
    };
    match TEXT {
        true => is_plain(bytes),
        false => !bytes.iter().fold(false, or_special),
    }
}

/// How many of these come before one that is not plain.
fn plain_before_special<const TEXT: bool>(bytes: [u8; 8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // The top bit of the first that is below `limit`, and perhaps of some after it.
    let below = |limit: u8, word: u64| word.wrapping_sub(u64::from(limit) * ONES) & !word;
    let word = u64::from_le_bytes(bytes);
    let is = |byte: u8| below(1, word ^ (u64::from(byte) * ONES));
    let foreign = if TEXT { 0 } else { word };
    let special = (is(b'"') | is(b'\\') | below(b' ', word) | foreign) & TOPS;
    special.trailing_zeros() as usize / 8
}

/// What comes after the first bytes that are plain.
fn after_plain<const TEXT: bool>(mut bytes: &[u8]) -> &[u8] {
    let mut is_long = false;
    while let Some((word, rest)) = bytes.split_first_chunk() {
        let plain = plain_before_special::<TEXT>(*word);
        if plain < word.len() {
            return &bytes[plain..];
        }
        bytes = rest;
        // Most strings are short, and most time is spent on the others.
        if !std::mem::replace(&mut is_long, true) {
            while let Some((block, rest)) = bytes.split_first_chunk::<64>()
                && is_plain_in::<TEXT>(block)
            {
                bytes = rest;
            }
        }
    }
    while let Some((byte, rest)) = bytes.split_first_chunk::<1>()
        && is_plain_in::<TEXT>(byte)
    {
        bytes = rest;
    }
    bytes
}

/// What is still to be read. `None` of a method means that this is no JSON.
struct Reader<'a> {
    rest: &'a [u8],
    /// Whether the rest is known to be UTF-8. Most is ASCII, and nobody has to know: only
    /// in strings may there be anything else.
    is_text: bool,
}

/// The arrays and objects that are open, a bit each: set for an object.
#[derive(Default)]
struct Open {
    innermost: u64,
    depth: usize,
    /// What does not fit in there, the outermost first.
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.innermost);
        }
        self.innermost = self.innermost << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.innermost >>= 1;
        if self.depth.is_multiple_of(64) {
            self.innermost = self.outer.pop().unwrap_or_default();
        }
    }

    /// What closes the innermost one.
    fn close(&self) -> Option<u8> {
        let close = match self.innermost & 1 {
            0 => b']',
            _ => b'}',
        };
        (self.depth > 0).then_some(close)
    }
}

impl Reader<'_> {
    fn value_alone(mut self) -> Option<()> {
        let mut open = Open::default();
        loop {
            match self.next_token()? {
                b'{' if !self.takes(b'}') => {
                    open.push(true);
                    self.name()?;
                    continue;
                }
                b'[' if !self.takes(b']') => {
                    open.push(false);
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
                let Some(close) = open.close() else {
                    self.skip_space();
                    return self.rest.is_empty().then_some(());
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
            self.rest = match self.is_text {
                true => after_plain::<true>(self.rest),
                false => after_plain::<false>(self.rest),
            };
            if !self.is_text && !self.rest.first()?.is_ascii() {
                // What came before is ASCII, so a character begins here.
                std::str::from_utf8(self.rest).ok()?;
                self.is_text = true;
                continue;
            }
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.rest_of_escape()?,
                _ => return None,
            }
        }
    }

    fn rest_of_escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let (digits, rest) = self.rest.split_at_checked(4)?;
                self.rest = rest;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn rest_of_word(&mut self, rest: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(rest)?;
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
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
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
        match self.rest {
            [first, rest @ ..] if bytes.contains(first) => {
                self.rest = rest;
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
        fn what_is_open_is_closed_by_its_like(
            objects in prop::collection::vec(any::<bool>(), 1..300),
            at in any::<prop::sample::Index>(),
        ) {
            let open = |object: &bool| if *object { "{\"a\":" } else { "[" };
            let close = |object: &bool| if *object { b'}' } else { b']' };
            let mut bytes: Vec<u8> = objects.iter().flat_map(|object| open(object).bytes()).collect();
            bytes.push(b'1');
            bytes.extend(objects.iter().rev().map(close));
            prop_assert!(is_json(&bytes));
            let at = bytes.len() - 1 - at.index(objects.len());
            bytes[at] ^= b'}' ^ b']';
            prop_assert!(!is_json(&bytes));
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
