//! PAX extended header records, read strictly and written sparingly.
//!
//! A record is `LENGTH KEY=VALUE\n`, where the length counts all of it, so a value may hold line
//! breaks (POSIX.1-2017, pax, "pax Extended Header"). A reader that splits at line breaks instead
//! can be told a path that others do not see.

/// Splits a block of records; `None` if any byte of it is not part of a well-formed record.
pub(super) fn parse(mut block: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !block.is_empty() {
        let space = block.iter().take(MAX_DIGITS + 1).position(|&byte| byte == b' ')?;
        let digits = block.get(..space)?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let length = digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        let record = block.get(space + 1..length)?;
        let (newline, record) = record.split_last()?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
        if *newline != b'\n' || key.is_empty() || key.contains(&0) {
            return None;
        }
        records.push((key, value));
        block = block.get(length..)?;
    }
    Some(records)
}

/// Enough for the largest block that is accepted, and too few to overflow.
const MAX_DIGITS: usize = 8;

/// A time as PAX writes it: seconds with an optional fraction, in nanoseconds towards the past.
pub(super) fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// Appends one record to `block`.
pub(super) fn append(block: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The space, the equals sign and the line break; the length's own digits count as well.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    block.extend_from_slice(length.to_string().as_bytes());
    block.push(b' ');
    block.extend_from_slice(key);
    block.push(b'=');
    block.extend_from_slice(value);
    block.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_that_is_not_well_formed_is_refused() {
        let wrong: [&[u8]; 14] = [
            b"x",
            b" a=b\n",
            b"6 a=b",
            b"5 a=b\n",
            b"7 a=b\n",
            b"+6 a=b\n",
            b"5 =b\n",
            b"5 ab\n",
            b"6 a=b\n\0",
            b"7 a\0=b\n",
            b"99999999999999999999 a=b\n",
            b"0 a=b\n",
            b"1 a=b\n",
            b"6\ta=b\n",
        ];
        for block in wrong {
            assert_eq!(parse(block), None, "{:?}", String::from_utf8_lossy(block));
        }
    }

    #[test]
    fn a_line_break_in_a_value_does_not_begin_a_record() {
        let block = b"30 comment=x\n16 path=injected\n";
        assert_eq!(parse(block), Some(vec![(&b"comment"[..], &b"x\n16 path=injected"[..])]));
    }

    #[test]
    fn times_before_1970_have_their_fraction_counted_towards_the_past() {
        assert_eq!(parse_time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(parse_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse_time(b"-3"), Some((-3, 0)));
        assert_eq!(parse_time(b"1.1234567899"), Some((1, 123_456_789)));
        for wrong in [&b""[..], b".5", b"1e3", b"1.x", b"--1", b" 1", b"99999999999999999999"] {
            assert_eq!(parse_time(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            records in proptest::collection::vec(("[a-z.]{1,120}", any::<Vec<u8>>()), 0..5)
        ) {
            let mut block = Vec::new();
            for (key, value) in &records {
                append(&mut block, key.as_bytes(), value);
            }
            let expected: Vec<_> =
                records.iter().map(|(key, value)| (key.as_bytes(), &value[..])).collect();
            prop_assert_eq!(parse(&block), Some(expected));
        }

        #[test]
        fn no_block_makes_it_fail_otherwise(block in any::<Vec<u8>>()) {
            parse(&block);
        }
    }
}
