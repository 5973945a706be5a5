//! Where the frames of one segment are, as small as may be: a closed segment's are packed.
//!
//! In: entries. Out: the same. Days without a center hold thousands of frames: 56 bytes for each while its segment is
//! open, about 11 when it is closed, so that memory hardly grows while nothing is delivered.

use std::borrow::Cow;

use super::RecordId;
use super::log::Entry;

const FIELDS: usize = 7;

/// Either open or packed.
#[derive(Debug, Default)]
pub(super) struct Index {
    open: Vec<Entry>,
    /// For each entry its fields less those of the one before, small numbers in few bytes.
    packed: Box<[u8]>,
}

impl Index {
    pub(super) fn entries(&self) -> Cow<'_, [Entry]> {
        if self.packed.is_empty() {
            Cow::Borrowed(&self.open)
        } else {
            Cow::Owned(unpack(&self.packed))
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.packed.is_empty()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.open();
        self.open.push(entry);
    }

    pub(super) fn remove(&mut self, at: usize) -> Entry {
        self.open();
        self.open.remove(at)
    }

    fn open(&mut self) {
        if !self.packed.is_empty() {
            self.open = unpack(&std::mem::take(&mut self.packed));
        }
    }

    /// A closed segment's.
    pub(super) fn packed(entries: &[Entry]) -> Self {
        let mut bytes = Vec::new();
        let mut before = [0; FIELDS];
        for entry in entries {
            let fields = fields(entry);
            for (now, before) in fields.iter().zip(before) {
                push_number(&mut bytes, zigzag(now.wrapping_sub(before)));
            }
            before = fields;
        }
        Self {
            open: Vec::new(),
            packed: bytes.into_boxed_slice(),
        }
    }
}

fn fields(entry: &Entry) -> [u64; FIELDS] {
    [
        entry.position,
        entry.offset,
        entry.length as u64,
        entry.first.generation,
        entry.first.seq,
        u64::from(entry.records),
        entry.time_ms,
    ]
}

fn unpack(bytes: &[u8]) -> Vec<Entry> {
    let mut rest = bytes.iter().copied();
    let mut entries = Vec::new();
    let mut fields = [0_u64; FIELDS];
    loop {
        for field in &mut fields {
            let Some(number) = take_number(&mut rest) else {
                return entries;
            };
            *field = field.wrapping_add(unzigzag(number));
        }
        let [position, offset, length, generation, seq, records, time_ms] = fields;
        entries.push(Entry {
            position,
            offset,
            // They were of these sizes when they were packed.
            length: usize::try_from(length).unwrap_or(usize::MAX),
            first: RecordId { generation, seq },
            records: u32::try_from(records).unwrap_or(u32::MAX),
            time_ms,
        });
    }
}

/// A small step back is a small number, too.
fn zigzag(difference: u64) -> u64 {
    let sign = if difference >> 63 == 1 { u64::MAX } else { 0 };
    (difference << 1) ^ sign
}

fn unzigzag(number: u64) -> u64 {
    let sign = if number & 1 == 1 { u64::MAX } else { 0 };
    (number >> 1) ^ sign
}

/// Seven bits in each byte, the lowest first; all but the last have the eighth.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

fn take_number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_whatever_the_numbers() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut number = || random.u64(..) >> random.u32(0..64);
        for count in 0..200 {
            let entries: Vec<Entry> = (0..count)
                .map(|_| Entry {
                    position: number(),
                    offset: number(),
                    length: usize::try_from(number()).unwrap(),
                    first: RecordId {
                        generation: number(),
                        seq: number(),
                    },
                    records: u32::try_from(number() >> 32).unwrap(),
                    time_ms: number(),
                })
                .collect();
            let mut index = Index::packed(&entries);
            assert_eq!((index.entries().as_ref(), index.is_empty()), (&entries[..], count == 0));
            if let Some(last) = entries.last() {
                assert_eq!(index.remove(entries.len() - 1), *last);
                index.push(*last);
                assert_eq!(index.entries().as_ref(), entries);
            }
        }
    }

    #[test]
    fn a_minute_of_a_closed_segment_takes_eleven_bytes() {
        let entry = |minute: u64| Entry {
            position: minute,
            offset: 16 + minute * 530,
            length: 530,
            first: RecordId {
                generation: u64::MAX / 3,
                seq: minute,
            },
            records: 1,
            time_ms: 1_790_000_000_000 + minute * 60_000,
        };
        let entries: Vec<Entry> = (1..=75).map(entry).collect();
        let packed = Index::packed(&entries).packed.len();
        assert!(packed <= 75 * 11 + 20, "{packed} bytes");
    }
}
