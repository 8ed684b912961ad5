//! Numbers on the wire: little-endian, and variable-length ones (LEB128, at most nine octets, shortest form).

use crate::Error;

/// Reads what [`put_varint`] and fixed-length fields have written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Malformed("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let shortest = byte != 0 || shift == 0;
                return if shortest { Ok(value) } else { Err(Error::Malformed("a number in a long form")) };
            }
        }
        Err(Error::Malformed("a number too large"))
    }

    /// A number whose sign is its lowest bit.
    pub(crate) fn signed(&mut self) -> Result<i64, Error> {
        let raw = self.varint()?;
        // Below 2^63, so that neither half overflows.
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

/// Appends a number below 2^63.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a number between −2^62 and 2^62.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 300, 1 << 20, (1 << 62) - 1, (1 << 63) - 1] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(Reader(&bytes).varint().unwrap(), value);
        }
        for value in [0, 1, -1, 63, -64, 1 << 40, -(1 << 40)] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            assert_eq!(Reader(&bytes).signed().unwrap(), value);
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_number() {
        for bytes in [&[0x80, 0][..], &[0xff; 9], &[0x80], &[]] {
            assert!(Reader(bytes).varint().is_err(), "{bytes:?}");
        }
    }
}
