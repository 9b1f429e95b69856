//! Numbers and bytes one after the other, for files of our own: what is written is read back, and what is damaged is refused.

use std::io;

/// Appends values to bytes.
#[derive(Debug, Default)]
pub(crate) struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    /// A number, in as few bytes as it needs: seven bits each, the lowest first.
    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number that may be negative.
    pub(crate) fn signed(&mut self, value: i64) {
        self.number((value << 1 ^ value >> 63) as u64);
    }

    /// Bytes, with their number before them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Bytes whose number the reader knows.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Reads what an [`Encoder`] wrote.
#[derive(Debug)]
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn number(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            // The tenth byte holds one bit.
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed())
    }

    pub(crate) fn signed(&mut self) -> io::Result<i64> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that fits.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> io::Result<T> {
        T::try_from(self.number()?).map_err(|_| malformed())
    }

    pub(crate) fn byte(&mut self) -> io::Result<u8> {
        self.raw(1).map(|bytes| bytes[0])
    }

    pub(crate) fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let count = self.small()?;
        self.raw(count)
    }

    pub(crate) fn raw(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// So many bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.raw(N)?.try_into().map_err(|_| malformed())
    }

    /// How many items follow, each of at least one byte: no more than there are bytes.
    pub(crate) fn count(&mut self) -> io::Result<usize> {
        let count = self.small()?;
        if count > self.0.len() { Err(malformed()) } else { Ok(count) }
    }

    /// Expects that nothing is left.
    pub(crate) fn end(&self) -> io::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed()) }
    }
}

pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut encoder = Encoder::default();
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let signed = [0, -1, 1, i64::MIN, i64::MAX, -300];
        numbers.iter().for_each(|&number| encoder.number(number));
        signed.iter().for_each(|&number| encoder.signed(number));
        encoder.bytes(b"abc");
        encoder.raw(b"xy");
        let mut decoder = Decoder(&encoder.0);
        assert!(numbers.iter().all(|&number| decoder.number().unwrap() == number));
        assert!(signed.iter().all(|&number| decoder.signed().unwrap() == number));
        assert_eq!((decoder.bytes().unwrap(), decoder.array::<2>().unwrap()), (&b"abc"[..], *b"xy"));
        decoder.end().unwrap();
        assert!(decoder.byte().is_err());
    }

    #[test]
    fn what_is_cut_off_or_too_large_is_refused() {
        for bytes in [&b""[..], b"\x80", &[0xff; 11], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"] {
            assert!(Decoder(bytes).number().is_err(), "{bytes:?}");
        }
        assert!(Decoder(b"\x05abcd").bytes().is_err());
        assert!(Decoder(b"\x03ab").count().is_err());
        assert!(Decoder(b"\x80\x02").small::<u8>().is_err());
    }
}
