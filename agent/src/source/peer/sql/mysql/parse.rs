//! The pieces of a packet, each looked for before it is taken: numbers, texts that end with a zero or begin with a length.

use super::super::super::PeerError;
use super::wire::malformed;

/// What is left of a packet.
pub(super) struct Pieces<'a>(pub(super) &'a [u8]);

impl<'a> Pieces<'a> {
    /// # Errors
    /// When the packet is shorter; so for all of these.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], PeerError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PeerError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, PeerError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, PeerError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, PeerError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Up to a zero, which is taken, too.
    pub(super) fn until_zero(&mut self) -> Result<&'a [u8], PeerError> {
        let end = memchr::memchr(0, self.0).ok_or_else(short)?;
        let taken = self.take(end)?;
        self.take(1)?;
        Ok(taken)
    }

    /// One, or a mark and two, three or eight bytes.
    pub(super) fn length(&mut self) -> Result<u64, PeerError> {
        match self.u8()? {
            byte @ 0..=0xfa => Ok(byte.into()),
            0xfc => Ok(self.u16()?.into()),
            0xfd => {
                let [a, b, c] = self.array()?;
                Ok(u32::from_le_bytes([a, b, c, 0]).into())
            }
            0xfe => Ok(u64::from_le_bytes(self.array()?)),
            0xfb | 0xff => Err(malformed("a length is none")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], PeerError> {
        let length = self.length()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }
}

fn short() -> PeerError {
    malformed("a packet is too short")
}

/// As `Pieces::length` and `Pieces::bytes` read it.
pub(super) fn push_bytes(packet: &mut Vec<u8>, bytes: &[u8]) {
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(length @ 0..=0xfa), _) => packet.push(length),
        (_, Ok(length)) => {
            packet.push(0xfc);
            packet.extend_from_slice(&length.to_le_bytes());
        }
        _ => {
            packet.push(0xfe);
            packet.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        }
    }
    packet.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_are_read_as_they_were_written() {
        for length in [0, 250, 251, 65_535, 65_536] {
            let (bytes, mut packet) = (vec![7; length], Vec::new());
            push_bytes(&mut packet, &bytes);
            let mut pieces = Pieces(&packet);
            assert_eq!(pieces.bytes().unwrap(), bytes);
            assert!(pieces.0.is_empty());
            assert!(Pieces(&packet[..packet.len() - 1]).bytes().is_err());
        }
    }
}
