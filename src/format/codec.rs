//! Decompression of what the archive and vendors ship: gzip, xz, zstd, or nothing.
//!
//! What comes out is bounded, because what goes in may be hostile: a few kilobytes of zeros packed by a patient person
//! unpack to terabytes. Input after the end of the compressed stream is an error, never ignored: readers that
//! disagree about where a stream ends can be shown different contents.

use std::io::{self, BufReader, Read};

/// Memory one decoder may take, in KiB: enough for the largest preset of `xz` (a dictionary of 64 MiB), and far
/// from what a forged header may ask for (4 GiB).
const XZ_MEMORY_KIB: u32 = 100 << 10;

/// Base-2 logarithm of the largest zstd window accepted: 128 MiB, what `zstd -d` allows without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// The .xz container.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Codec {
    /// What the first bytes of a stream say (six are enough). What matches nothing is taken to be plain.
    pub fn of_magic(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Codec::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
            _ => Codec::Plain,
        }
    }

    /// What a file name's extension says: nothing, `gz`, `xz` or `zst`; `None` for any other.
    pub fn of_extension(extension: &[u8]) -> Option<Self> {
        match extension {
            b"" => Some(Codec::Plain),
            b"gz" => Some(Codec::Gzip),
            b"xz" => Some(Codec::Xz),
            b"zst" => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// The stream goes on for more bytes than its reader allows. Travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("it unpacks to more than {0} bytes, the most allowed here")]
pub struct TooLong(pub u64);

/// Unpacks a stream while it is read. Reading to the end also proves its checksum.
pub struct Decoder<R: Read> {
    inner: Inner<R>,
    left: u64,
    limit: u64,
}

enum Inner<R: Read> {
    Plain(BufReader<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<R>>>),
    Xz(Box<lzma_rust2::XzReader<BufReader<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Unpacks `reader`; giving more than `limit` bytes is an error that holds [`TooLong`].
    pub fn new(codec: Codec, reader: R, limit: u64) -> io::Result<Self> {
        let reader = BufReader::with_capacity(1 << 16, reader);
        let inner = match codec {
            Codec::Plain => Inner::Plain(reader),
            Codec::Gzip => Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(reader))),
            Codec::Xz => {
                Inner::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB)))
            }
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Inner::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { inner, left: limit, limit })
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.inner {
            Inner::Plain(reader) => reader.read(buffer)?,
            Inner::Gzip(reader) => reader.read(buffer)?,
            Inner::Xz(reader) => reader.read(buffer)?,
            Inner::Zstd(reader) => reader.read(buffer)?,
        };
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, TooLong(self.limit)))?;
        Ok(n)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// `bytes` packed by the writers of the same crates; tests/unpack_oracle.rs has it from the real tools.
    pub(crate) fn pack(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Plain => bytes.to_vec(),
            Codec::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(bytes).unwrap();
                writer.finish().unwrap()
            }
            Codec::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(0);
                let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                writer.write_all(bytes).unwrap();
                writer.finish().unwrap()
            }
            Codec::Zstd => zstd::stream::encode_all(bytes, 1).unwrap(),
        }
    }

    pub(crate) const PACKED: [Codec; 3] = [Codec::Gzip, Codec::Xz, Codec::Zstd];

    fn unpack(codec: Codec, packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Decoder::new(codec, packed, limit)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn text() -> Vec<u8> {
        (0..40_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    #[test]
    fn every_codec_gives_back_what_was_packed() {
        let bytes = text();
        for codec in [Codec::Plain, Codec::Gzip, Codec::Xz, Codec::Zstd] {
            let packed = pack(codec, &bytes);
            assert_eq!(Codec::of_magic(&packed), codec);
            assert_eq!(unpack(codec, &packed, bytes.len() as u64).unwrap(), bytes, "{codec:?}");
        }
    }

    #[test]
    fn a_stream_of_several_parts_is_one_stream() {
        for codec in PACKED {
            let mut packed = pack(codec, b"one");
            packed.extend(pack(codec, b"two"));
            assert_eq!(unpack(codec, &packed, 6).unwrap(), b"onetwo", "{codec:?}");
        }
    }

    #[test]
    fn what_unpacks_to_too_much_is_stopped() {
        for codec in [Codec::Plain, Codec::Gzip, Codec::Xz, Codec::Zstd] {
            let packed = pack(codec, &vec![0; 1 << 20]);
            let error = unpack(codec, &packed, (1 << 20) - 1).unwrap_err();
            assert!(error.get_ref().is_some_and(|inner| inner.is::<TooLong>()), "{codec:?}: {error}");
            assert!(error.to_string().contains("more than 1048575 bytes"), "{error}");
        }
    }

    #[test]
    fn what_follows_the_stream_is_refused() {
        for codec in PACKED {
            for tail in [&b"x"[..], b"PK\x03\x04 more than a few bytes of something else"] {
                let mut packed = pack(codec, b"contents");
                packed.extend_from_slice(tail);
                assert!(unpack(codec, &packed, 1000).is_err(), "{codec:?} {tail:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_refused_wherever_it_is_cut() {
        let bytes = text();
        for codec in PACKED {
            let packed = pack(codec, &bytes[..6000]);
            for cut in 1..packed.len() {
                assert!(unpack(codec, &packed[..cut], 1 << 20).is_err(), "{codec:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_never_panics_and_never_passes_as_other_contents() {
        let bytes = text();
        for codec in PACKED {
            let packed = pack(codec, &bytes[..3000]);
            for bit in 0..packed.len() * 8 {
                let mut broken = packed.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                // zstd's own default is to write no checksum; the tar around it notices what matters.
                if let Ok(found) = unpack(codec, &broken, 1 << 20)
                    && codec != Codec::Zstd
                {
                    assert_eq!(found, bytes[..3000], "{codec:?} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_header_that_asks_for_too_much_memory_is_refused() {
        // A dictionary of 4 GiB, as the largest value of the properties byte means.
        let mut packed = pack(Codec::Xz, b"x");
        let properties = 12 + 4;
        assert_eq!(packed[properties - 2..properties], [0x21, 0x01]);
        packed[properties] = 40;
        let crc = crc32(&packed[12..20]);
        packed[20..24].copy_from_slice(&crc.to_le_bytes());
        let error = unpack(Codec::Xz, &packed, 1000).unwrap_err();
        assert!(error.to_string().contains("mem"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }
}
