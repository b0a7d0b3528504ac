//! Cuts a step's output into lines: lossy UTF-8, bounded in length, without what a progress bar overwrote.

/// The longest line, in bytes; a longer one is passed on in pieces.
const LONGEST: usize = 64 * 1024;

/// What has arrived of the current line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
    /// The last byte was a carriage return; whether it overwrites the line depends on the next.
    returned: bool,
}

impl Lines {
    /// Takes bytes and passes on every line that they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], output: &mut dyn FnMut(&str)) {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.returned) && first != b'\n' && first != b'\r' {
                self.pending.clear();
            }
            let stop = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let room = LONGEST - self.pending.len();
            let (text, rest) = bytes.split_at(stop.unwrap_or(bytes.len()).min(room));
            self.pending.extend_from_slice(text);
            bytes = rest;
            match rest.first() {
                Some(b'\n') => {
                    self.emit(self.pending.len(), output);
                    bytes = &rest[1..];
                }
                Some(b'\r') => {
                    self.returned = true;
                    bytes = &rest[1..];
                }
                Some(_) => self.emit(whole(&self.pending), output),
                None => {}
            }
        }
    }

    /// Passes on a last line that no newline ended.
    pub(super) fn finish(mut self, output: &mut dyn FnMut(&str)) {
        if !self.pending.is_empty() {
            self.emit(self.pending.len(), output);
        }
    }

    fn emit(&mut self, length: usize, output: &mut dyn FnMut(&str)) {
        output(&String::from_utf8_lossy(&self.pending[..length]));
        self.pending.drain(..length);
    }
}

/// How many of the bytes end with a whole character.
fn whole(bytes: &[u8]) -> usize {
    let tail = bytes
        .iter()
        .rev()
        .take(4)
        .position(|byte| byte & 0xc0 != 0x80);
    match tail {
        Some(back) if bytes[bytes.len() - 1 - back] >= 0xc0 => bytes.len() - 1 - back,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut seen = vec![];
        let mut lines = Lines::default();
        for piece in pieces {
            lines.push(piece, &mut |line| seen.push(line.to_owned()));
        }
        lines.finish(&mut |line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn lines_end_at_newlines_and_at_the_end() {
        assert_eq!(lines([b"a\n\nb".as_slice()]), ["a", "", "b"]);
        assert_eq!(lines([b"".as_slice()]), Vec::<String>::new());
        assert_eq!(
            lines([b"windows\r\nends\r\r\n".as_slice()]),
            ["windows", "ends"]
        );
    }

    #[test]
    fn a_carriage_return_overwrites() {
        assert_eq!(
            lines([b"10%\r50%\r100%\r\ndone\n".as_slice()]),
            ["100%", "done"]
        );
        assert_eq!(lines([b"10%\r".as_slice(), b"\n"]), ["10%"]);
        assert_eq!(lines([b"10%\r".as_slice()]), ["10%"]);
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(lines([b"a\xffb\n".as_slice()]), ["a\u{fffd}b"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = "ä".repeat(LONGEST);
        let shifted = format!("x{long}");
        for text in [long, shifted] {
            let pieces = lines([text.as_bytes()]);
            assert_eq!(pieces.concat(), text);
            assert!(pieces.iter().all(|piece| piece.len() <= LONGEST));
        }
        let noise = vec![0x80; 3 * LONGEST];
        assert_eq!(lines([noise.as_slice()]).len(), 3);
    }

    proptest! {
        #[test]
        fn how_output_arrives_does_not_matter(
            pieces in prop::collection::vec("[a-cä\r\n]{0,6}", 0..12)
        ) {
            let whole = pieces.concat();
            prop_assert_eq!(
                lines(pieces.iter().map(String::as_bytes)),
                lines([whole.as_bytes()])
            );
        }
    }
}
