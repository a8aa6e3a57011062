//! JSON as text (RFC 8259): whether bytes are some, and writing a string.
//!
//! Every recorded body that says it is JSON is looked at once. What takes time is its
//! long strings, so those are read a block at a time, which a compiler makes one
//! comparison of.

/// Whether `bytes` are one JSON value that is no deeper than [`DEEPEST`].
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    is_json_down_to(DEEPEST, bytes)
}

/// So many arrays and objects may be inside one another. Readers give up at some depth,
/// or overflow their stack.
pub(super) const DEEPEST: u32 = u128::BITS;

/// Whether `bytes` are one JSON value of at most so many levels, [`DEEPEST`] or less.
pub(super) fn is_json_down_to(deepest: u32, bytes: &[u8]) -> bool {
    let reader = JsonReader {
        rest: bytes,
        is_text: false,
    };
    reader.value_alone(deepest.min(DEEPEST)).is_some()
}

/// Whether `json`, which is one JSON value, is no deeper than [`DEEPEST`].
pub(super) fn is_shallow(json: &[u8]) -> bool {
    let opens = |count: u64, byte: &u8| count + u64::from((*byte == b'[') | (*byte == b'{'));
    // Most have few, wherever they are, and to count them takes next to no time.
    json.iter().fold(0, opens) <= u64::from(DEEPEST) || is_json(json)
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
struct JsonReader<'a> {
    rest: &'a [u8],
    /// Whether the rest is known to be UTF-8. Most is ASCII, and nobody has to know: only
    /// in strings may there be anything else.
    is_text: bool,
}

/// The arrays and objects that are open, a bit each: set for an object, the innermost
/// last.
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

    /// What closes the innermost one.
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
mod tests;
