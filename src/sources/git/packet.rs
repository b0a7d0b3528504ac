//! Packets: git sends its lines with their length in front ("pkt-line" in git's `gitprotocol-common`).

use std::io::{ErrorKind, Read};

use super::Problem;
use super::error::{not_git, too_large};

/// Ends a list, or says goodbye.
pub(super) const FLUSH: &[u8] = b"0000";

/// Stands between the sections of a request or an answer (version 2).
pub(super) const DELIMITER: &[u8] = b"0001";

/// What comes between two lengths.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Data(Vec<u8>),
    Flush,
    Delimiter,
}

/// Reads one packet.
pub(super) fn read(reader: &mut impl Read) -> Result<Packet, Problem> {
    let mut head = [0; 4];
    reader.read_exact(&mut head).map_err(Problem::broken)?;
    let digits = std::str::from_utf8(&head).ok();
    let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    match length {
        Some(0) => Ok(Packet::Flush),
        Some(1) => Ok(Packet::Delimiter),
        Some(length) if length >= head.len() => {
            let mut data = vec![0; length - head.len()];
            reader.read_exact(&mut data).map_err(Problem::broken)?;
            match data.strip_prefix(b"ERR ") {
                Some(words) => Err(Problem::refused(words)),
                None => Ok(Packet::Data(data)),
            }
        }
        _ => Err(not_git("its answer is not made of git's packets").into()),
    }
}

/// Reads the lines up to the next flush or delimiter.
pub(super) fn read_list(reader: &mut impl Read) -> Result<Vec<String>, Problem> {
    let mut lines = Vec::new();
    while let Packet::Data(data) = read(reader)? {
        if lines.len() == MOST_LINES {
            return Err(too_large("it has more than a million names").into());
        }
        lines.push(text(&data));
    }
    Ok(lines)
}

/// More names than these come from no repository that anybody works with.
pub(super) const MOST_LINES: usize = 1_000_000;

/// The text of a packet, without its line break.
pub(super) fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data)
        .trim_end_matches('\n')
        .to_owned()
}

/// Appends `line` as a packet. Lines of ours are short.
pub(super) fn write(buffer: &mut Vec<u8>, line: &str) {
    debug_assert!(line.len() < 65_516, "no packet is longer");
    buffer.extend_from_slice(format!("{:04x}{line}", line.len() + 4).as_bytes());
}

/// The objects that a server sends, as one pack.
pub(super) struct Pack<R> {
    reader: R,
    /// Whether the pack comes in packets, between messages for people.
    bands: bool,
}

impl<R: Read> Pack<R> {
    pub(super) fn new(reader: R, bands: bool) -> Self {
        Self { reader, bands }
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        if !self.bands {
            return self.next_plain();
        }
        loop {
            let Packet::Data(mut data) = read(&mut self.reader)? else {
                return Ok(None);
            };
            match data.first() {
                Some(1) => {
                    data.remove(0);
                    return Ok(Some(data));
                }
                // Its progress, for people.
                Some(2) => {}
                Some(3) => return Err(Problem::refused(&data[1..])),
                _ => {
                    return Err(not_git("its pack comes in packets of no known kind").into());
                }
            }
        }
    }

    fn next_plain(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let mut data = vec![0; 1 << 16];
        loop {
            match self.reader.read(&mut data) {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    data.truncate(length);
                    return Ok(Some(data));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::broken(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut buffer = Vec::new();
        write(&mut buffer, "want x\n");
        write(&mut buffer, "");
        buffer.extend_from_slice(DELIMITER);
        buffer.extend_from_slice(FLUSH);
        assert_eq!(buffer, b"000bwant x\n000400010000");
        let reader = &mut &buffer[..];
        assert_eq!(read_list(reader).expect("two lines"), ["want x", ""]);
        assert_eq!(read(reader).expect("a flush"), Packet::Flush);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for (bytes, words) in [
            (&b"HTTP"[..], "not made of git's packets"),
            (b"0003", "not made of git's packets"),
            (b"\xff\xff\xff\xff", "not made of git's packets"),
            (b"00", "closed too early"),
            (b"0009ab", "closed too early"),
            (b"0010ERR go away ", "the server refuses: go away"),
        ] {
            let error = read(&mut &bytes[..]).expect_err("it is wrong");
            let error = error.into_error().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn bands_are_told_apart() {
        let stream = b"0007\x01PA0009\x02done0007\x01CK0000";
        let mut pack = Pack::new(&stream[..], true);
        let mut bytes = Vec::new();
        while let Some(piece) = pack.next().expect("a pack") {
            bytes.extend(piece);
        }
        assert_eq!(bytes, b"PACK");
        let error = Pack::new(&b"000a\x03kaput0000"[..], true).next();
        assert_eq!(
            error.expect_err("it says so").into_error().to_string(),
            "the server refuses: kaput"
        );
    }
}
