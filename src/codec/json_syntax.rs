//! JSON syntax (RFC 8259): validating a text and writing a string.
//!
//! Every recorded body with a JSON media type is validated once. Long strings take most of
//! the time, so they are read in blocks, whose checks the compiler vectorizes.

/// Returns whether `bytes` are one JSON value with a depth of at most [`DEEPEST`].
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    is_json_down_to(DEEPEST, bytes)
}

/// The maximum depth of nested arrays and objects. Readers stop at some depth, or overflow
/// their stack.
pub(crate) const DEEPEST: u32 = u128::BITS;

/// Returns whether `bytes` are one JSON value with a depth of at most `deepest` and [`DEEPEST`].
pub(crate) fn is_json_down_to(deepest: u32, bytes: &[u8]) -> bool {
    let reader = JsonReader {
        rest: bytes,
        is_text: false,
    };
    reader.value_alone(deepest.min(DEEPEST)).is_some()
}

/// Returns whether `json`, which is one JSON value, has a depth of at most [`DEEPEST`].
pub(crate) fn is_shallow(json: &[u8]) -> bool {
    let opens = |count: u64, byte: &u8| count + u64::from((*byte == b'[') | (*byte == b'{'));
    // Most values have few brackets, and counting them costs almost nothing.
    json.iter().fold(0, opens) <= u64::from(DEEPEST) || is_json(json)
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing a string to a `Vec` cannot fail.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Returns whether no byte needs an escape in a string.
fn is_plain(bytes: &[u8]) -> bool {
    // No early exit, so that the loop vectorizes.
    let or_special =
        |special, byte: &u8| special | (*byte == b'"') | (*byte == b'\\') | (*byte < b' ');
    !bytes.iter().fold(false, or_special)
}

/// Returns whether no byte needs an escape in a string and, unless the bytes are known to be
/// UTF-8 (`TEXT`), all are ASCII.
fn is_plain_in<const TEXT: bool>(bytes: &[u8]) -> bool {
    // As signed numbers, bytes that are not ASCII are negative.
    let or_special = |special, byte: &u8| {
        special | (*byte == b'"') | (*byte == b'\\') | ((*byte as i8) < b' ' as i8)
    };
    match TEXT {
        true => is_plain(bytes),
        false => !bytes.iter().fold(false, or_special),
    }
}

/// Returns the number of plain bytes before the first special one.
fn plain_before_special<const TEXT: bool>(bytes: [u8; 8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // Sets the top bit of the first byte below `limit`, and possibly of bytes after it.
    let below = |limit: u8, word: u64| word.wrapping_sub(u64::from(limit) * ONES) & !word;
    let word = u64::from_le_bytes(bytes);
    let is = |byte: u8| below(1, word ^ (u64::from(byte) * ONES));
    let foreign = if TEXT { 0 } else { word };
    let special = (is(b'"') | is(b'\\') | below(b' ', word) | foreign) & TOPS;
    special.trailing_zeros() as usize / 8
}

/// Returns the rest after the leading plain bytes.
fn after_plain<const TEXT: bool>(mut bytes: &[u8]) -> &[u8] {
    let mut is_long = false;
    while let Some((word, rest)) = bytes.split_first_chunk() {
        let plain = plain_before_special::<TEXT>(*word);
        if plain < word.len() {
            return &bytes[plain..];
        }
        bytes = rest;
        // Blocks are read only after a first word: most strings are short, but long ones take
        // most of the time.
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

/// A reader over the remaining bytes. A method returns `None` if they are not JSON.
struct JsonReader<'a> {
    rest: &'a [u8],
    /// Whether the rest is known to be UTF-8. This is checked only when a string has a byte that
    /// is not ASCII; outside strings, JSON is ASCII.
    is_text: bool,
}

/// The open arrays and objects, one bit each: 1 for an object; the innermost is the lowest
/// bit.
#[derive(Default)]
struct OpenBrackets {
    bits: u128,
    depth: u32,
}

impl OpenBrackets {
    fn push(&mut self, is_object: bool) {
        self.bits = self.bits << 1 | u128::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.bits >>= 1;
        self.depth -= 1;
    }

    /// Returns the closing bracket of the innermost open bracket.
    fn close(&self) -> Option<u8> {
        let close = match self.bits & 1 {
            0 => b']',
            _ => b'}',
        };
        (self.depth > 0).then_some(close)
    }
}

impl JsonReader<'_> {
    fn value_alone(mut self, deepest: u32) -> Option<()> {
        let mut open = OpenBrackets::default();
        loop {
            match self.next_token()? {
                b'{' | b'[' if open.depth == deepest => return None,
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
            // A value has been read: it is followed by another value, a closing bracket or the
            // end.
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

    /// Reads the name of a member and the colon after it.
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
                // The preceding bytes are ASCII, so a character begins here.
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

    /// Reads one or more digits.
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

    /// Reads the first byte after white space.
    fn next_token(&mut self) -> Option<u8> {
        self.skip_space();
        self.next()
    }

    /// Reads the next token if it is `token`; returns whether it was.
    fn takes(&mut self, token: u8) -> bool {
        self.skip_space();
        self.takes_directly(&[token])
    }

    /// Reads the next byte if it is one of `bytes`; returns whether it was.
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
mod tests;
