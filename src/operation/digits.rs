use bytes::BufMut;

/// Appends a number in digits of this base: what the formatter would write, for a tenth
/// of it. Bases from 10 on.
pub(crate) fn push_number<const BASE: u64>(number: u64, out: &mut impl BufMut) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    let mut rest = number;
    loop {
        begin -= 1;
        digits[begin] = b"0123456789abcdef"[(rest % BASE) as usize];
        rest /= BASE;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[begin..]);
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
