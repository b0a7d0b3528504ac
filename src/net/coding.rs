//! Content codings (RFC 9110, section 8.4.1), which some servers use though they are asked not to.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

/// What a body was coded with on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// The coding that `headers` name, or its name if it is another one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let name = headers.get(CONTENT_ENCODING);
        let name = name.and_then(|name| name.to_str().ok()).unwrap_or_default();
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            other => Err(other.to_owned()),
        }
    }

    /// Writes what was coded into `into`.
    pub(crate) fn decoder<W: Write>(self, into: W) -> Decoder<W> {
        let into = Counted { into, written: 0 };
        match self {
            Self::Identity => Decoder::Identity(into),
            Self::Gzip => Decoder::Gzip(MultiGzDecoder::new(into)),
            Self::Deflate => Decoder::Deflate(ZlibDecoder::new(into)),
        }
    }
}

/// Undoes a coding piece by piece.
#[derive(Debug)]
pub(crate) enum Decoder<W: Write> {
    Identity(Counted<W>),
    Gzip(MultiGzDecoder<Counted<W>>),
    Deflate(ZlibDecoder<Counted<W>>),
}

#[derive(Debug)]
pub(crate) struct Counted<W> {
    into: W,
    written: u64,
}

impl<W: Write> Decoder<W> {
    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(into) => into.write_all(piece),
            Self::Gzip(decoder) => decoder.write_all(piece),
            Self::Deflate(decoder) => decoder.write_all(piece),
        }
    }

    /// Bytes that came out so far.
    pub(crate) fn written(&self) -> u64 {
        match self {
            Self::Identity(into) => into.written,
            Self::Gzip(decoder) => decoder.get_ref().written,
            Self::Deflate(decoder) => decoder.get_ref().written,
        }
    }

    /// Whether bytes come out as they come in, so that a transfer can go on where it was cut.
    pub(crate) fn is_identity(&self) -> bool {
        matches!(self, Self::Identity(_))
    }

    /// Writes what is left; an error if the end is missing.
    pub(crate) fn finish(self) -> io::Result<W> {
        let counted = match self {
            Self::Identity(into) => into,
            Self::Gzip(decoder) => decoder.finish()?,
            Self::Deflate(decoder) => decoder.finish()?,
        };
        Ok(counted.into)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
