//! Content codings of bodies (RFC 9110, section 8.4.1), undone within a limit: of responses, and of webhooks.
//!
//! Guarantees that no more is unpacked than the limit allows, whatever a body of a few bytes promises; and that
//! a body that ends early, or goes on behind its end, is an error and never half an answer.

use std::io::{self, BufRead, Read};

/// What is asked for: what is undone here, but for `deflate`, which servers do not agree about.
pub const ACCEPTED: &str = "gzip, br, zstd";

/// Most codings of one body. One is usual, two are seen where a proxy packs again.
const CODINGS_MAX: usize = 3;

/// Largest window of zstd, as a power of two: 8 MiB, what RFC 9659 allows for HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Bytes unpacked at a time.
const PIECE_BYTES: usize = 32 << 10;

/// A way to pack a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or RFC 1951 bare.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// Why a body cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It would be longer than the limit.
    #[error("unpacked it is longer than the limit")]
    TooLarge,
    /// It is not what its header says.
    #[error("not {}: {reason}", coding.name())]
    Broken {
        /// What it should be.
        coding: Coding,
        /// What is wrong with it.
        reason: String,
    },
}

impl Coding {
    /// Its registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn of(name: &str) -> Option<Self> {
        match name {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    fn unpack(self, packed: &[u8], max: usize) -> Result<Vec<u8>, Unreadable> {
        let unpacked = match self {
            Self::Gzip => read(flate2::bufread::MultiGzDecoder::new(packed), max),
            Self::Deflate => inflate(packed, max),
            Self::Brotli => unpack_brotli(packed, max),
            Self::Zstd => unpack_zstd(packed, max),
        };
        match unpacked {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(Unreadable::TooLarge),
            Err(error) => {
                let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
                let reason = if is_cut { "it ends early".to_owned() } else { error.to_string() };
                Err(Unreadable::Broken { coding: self, reason })
            }
        }
    }
}

/// The codings that the values of `Content-Encoding` name, in the order in which they were applied.
///
/// # Errors
/// What the header says, when one of them is not known here.
pub fn codings<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Coding>, String> {
    let mut codings = Vec::new();
    let values: Vec<String> =
        values.into_iter().map(|value| value.escape_ascii().to_string().to_ascii_lowercase()).collect();
    for name in values.iter().flat_map(|value| value.split(',')).map(str::trim) {
        // Those behind the first are no codings, but some senders say so of a body that is not compressed: a character
        // set, or what a mail would say (RFC 2045, section 6).
        if matches!(name, "" | "identity" | "none" | "utf-8" | "7bit" | "8bit" | "binary") {
            continue;
        }
        match Coding::of(name) {
            Some(coding) if codings.len() < CODINGS_MAX => codings.push(coding),
            _ => return Err(values.join(", ")),
        }
    }
    Ok(codings)
}

/// Undoes the codings, last first; every stage gives at most `max` bytes.
///
/// # Errors
/// It is longer than that, or not what its codings say.
pub fn unpack(codings: &[Coding], packed: &[u8], max: u64) -> Result<Vec<u8>, Unreadable> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut body: Option<Vec<u8>> = None;
    for coding in codings.iter().rev() {
        body = Some(coding.unpack(body.as_deref().unwrap_or(packed), max)?);
    }
    Ok(body.unwrap_or_else(|| packed.to_vec()))
}

/// `deflate` is a zlib stream (RFC 9110, section 8.4.1.2), and from some servers the bare stream within it.
fn inflate(packed: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
    // RFC 1950, section 2.2: the method, and a check value that makes a multiple of 31.
    let is_zlib = matches!(packed, [cmf, flags, ..] if cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flags]) % 31 == 0);
    if is_zlib {
        let mut stream = flate2::bufread::ZlibDecoder::new(packed);
        let unpacked = read(&mut stream, max)?;
        ended(stream.into_inner(), unpacked)
    } else {
        let mut stream = flate2::bufread::DeflateDecoder::new(packed);
        let unpacked = read(&mut stream, max)?;
        ended(stream.into_inner(), unpacked)
    }
}

fn unpack_brotli(packed: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut stream = brotli_decompressor::Decompressor::new(packed, PIECE_BYTES);
    let unpacked = read(&mut stream, max)?;
    // The end is said once; asked again, the library says whether it has bytes left over.
    if unpacked.is_some() && stream.read(&mut [0])? > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it goes on behind its end"));
    }
    ended(*stream.get_ref(), unpacked)
}

fn unpack_zstd(packed: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut stream = zstd::stream::read::Decoder::with_buffer(packed)?;
    stream.window_log_max(ZSTD_WINDOW_LOG)?;
    read(stream, max)
}

/// What was unpacked, when the stream ended where the body does or was given up before.
fn ended(mut rest: impl BufRead, unpacked: Option<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    if unpacked.is_some() && !rest.fill_buf()?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is more behind its end"));
    }
    Ok(unpacked)
}

/// Everything that a stream gives; nothing when it is more than `max` bytes.
fn read(mut stream: impl Read, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut body: Vec<u8> = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let size = match stream.read(&mut piece) {
            Ok(0) => return Ok(Some(body)),
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if size > max - body.len() {
            return Ok(None);
        }
        if body.capacity() - body.len() < size {
            // Doubled, but never beyond what it may become.
            body.reserve_exact(body.len().max(PIECE_BYTES).min(max - body.len()));
        }
        body.extend_from_slice(&piece[..size]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// `hello hello hello hello` as the reference encoder packs it.
    const BROTLI: &[u8] = b"\x1b\x16\x00\xf8\x8d\x94\x6e\xde\x44\x55\x86\x96\x6c\x20\x6f\x21\x4f\x1c\xe0\x38";

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn bare(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(body: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(body, 3).unwrap()
    }

    #[test]
    fn reads_the_header() {
        let codings = |values: &[&'static str]| codings(values.iter().map(|value| value.as_bytes()));
        assert_eq!(codings(&[]), Ok(Vec::new()));
        assert_eq!(codings(&["identity, X-GZIP", "Br"]), Ok(vec![Coding::Gzip, Coding::Brotli]));
        assert_eq!(codings(&["utf-8", "8bit", "Binary"]), Ok(Vec::new()));
        assert_eq!(codings(&["gzip, compress"]), Err("gzip, compress".to_owned()));
        assert!(codings(&["gzip,gzip,gzip,gzip"]).is_err());
    }

    #[test]
    fn undoes_every_coding() {
        let body = b"hello hello hello hello".as_slice();
        for (coding, packed) in [
            (Coding::Gzip, gzip(body)),
            (Coding::Deflate, zlib(body)),
            (Coding::Deflate, bare(body)),
            (Coding::Zstd, zstd(body)),
        ] {
            assert_eq!(unpack(&[coding], &packed, 23).unwrap(), body, "{coding:?}");
            assert_eq!(unpack(&[coding], &packed, 22), Err(Unreadable::TooLarge), "{coding:?}");
            for end in 0..packed.len() {
                let cut = unpack(&[coding], &packed[..end], 100);
                assert!(matches!(cut, Err(Unreadable::Broken { .. })), "{coding:?} cut at {end}: {cut:?}");
            }
            let longer = [&packed[..], b"x"].concat();
            assert!(matches!(unpack(&[coding], &longer, 100), Err(Unreadable::Broken { .. })), "{coding:?}");
        }
        assert_eq!(unpack(&[Coding::Gzip, Coding::Zstd], &zstd(&gzip(body)), 100).unwrap(), body);
        assert_eq!(unpack(&[Coding::Gzip], &[gzip(b"a"), gzip(b"b")].concat(), 100).unwrap(), b"ab");
    }

    #[test]
    fn undoes_brotli() {
        let body = unpack(&[Coding::Brotli], BROTLI, 100).unwrap();
        assert_eq!(String::from_utf8_lossy(&body), "hello hello hello hello");
        assert_eq!(unpack(&[Coding::Brotli], BROTLI, 22), Err(Unreadable::TooLarge));
        for end in 0..BROTLI.len() {
            let cut = unpack(&[Coding::Brotli], &BROTLI[..end], 100);
            assert!(matches!(cut, Err(Unreadable::Broken { .. })), "cut at {end}: {cut:?}");
        }
        let longer = [BROTLI, b"x"].concat();
        assert!(matches!(unpack(&[Coding::Brotli], &longer, 100), Err(Unreadable::Broken { .. })));
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        // 64 MiB of zeros, packed once and again.
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![0; 1 << 20];
        for _ in 0..64 {
            encoder.write_all(&zeros).unwrap();
        }
        let once = encoder.finish().unwrap();
        let twice = gzip(&once);
        assert_eq!(unpack(&[Coding::Gzip], &once, 10 << 20), Err(Unreadable::TooLarge));
        assert_eq!(unpack(&[Coding::Gzip, Coding::Gzip], &twice, 10 << 20), Err(Unreadable::TooLarge));
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_the_limit(packed in prop::collection::vec(any::<u8>(), 0..300), max in 0_u64..100) {
            for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
                if let Ok(body) = unpack(&[coding], &packed, max) {
                    prop_assert!(body.len() as u64 <= max);
                }
            }
        }
    }
}
