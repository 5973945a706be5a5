//! A segment file: a head and frames, as drawn in the module's documentation.
//!
//! In: records and a checkpoint, or a file's bytes. Out: a frame's bytes, or what the file still holds.
//! A frame is either wholly valid or not there: nothing of a damaged frame is ever used.

use zstd::zstd_safe::get_frame_content_size;

use super::{FRAME_BYTES_MAX, NewRecord, Record, RecordId, RecordKind};

const MAGIC: &[u8; 8] = b"TWSPOOL2";
pub(super) const SEGMENT_HEAD_BYTES: usize = 16;
const FRAME_HEAD_BYTES: usize = 8;
const BODY_HEAD_BYTES: usize = 56;
const RECORD_HEAD_BYTES: usize = 13;
/// Where the body says how long the checkpoint is.
const CHECKPOINT_FIELD_AT: usize = 52;
/// Stands there for a checkpoint that was left out.
const LEFT_OUT: u32 = u32::MAX;
/// Added there when the checkpoint is compressed.
const COMPRESSED: u32 = 1 << 31;
/// Less than half of a checkpoint remains; level 3 would gain a fortieth more.
const ZSTD_LEVEL: i32 = 1;
/// Frames are looked for behind damage only within this many positions, so that old bytes are not taken for new ones.
const POSITIONS_AHEAD_MAX: u64 = 1 << 20;

/// What the head of a frame's body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) position: u64,
    pub(super) time_ms: u64,
    /// The last record before this frame; generation 0 when there was none.
    pub(super) previous: RecordId,
    /// The first record of this frame, or of the next one when this holds none.
    pub(super) first: RecordId,
    pub(super) records: u32,
}

impl FrameHead {
    /// The last record of this frame, or before it when it holds none.
    pub(super) fn last(&self) -> RecordId {
        match u64::from(self.records).checked_sub(1) {
            Some(behind) => RecordId {
                generation: self.first.generation,
                seq: self.first.seq.saturating_add(behind),
            },
            None => self.previous,
        }
    }
}

/// A checkpoint as it stands in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    is_compressed: bool,
}

impl Packed<'_> {
    /// As it was given to the spool, or `None` when it is not what was written.
    pub(super) fn unpack(&self) -> Option<Vec<u8>> {
        if !self.is_compressed {
            return Some(self.bytes.to_vec());
        }
        let size = usize::try_from(get_frame_content_size(self.bytes).ok()??).ok()?;
        zstd::bulk::decompress(self.bytes, (size <= FRAME_BYTES_MAX).then_some(size)?).ok()
    }
}

/// A frame in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) head: FrameHead,
    /// Where the frame begins in the file, and its length with its own head.
    pub(super) offset: usize,
    pub(super) length: usize,
    checkpoint_field: u32,
}

impl Frame {
    /// Whether the checkpoint was not left out.
    pub(super) fn has_checkpoint(&self) -> bool {
        self.checkpoint_field != LEFT_OUT
    }

    /// None when it was left out.
    fn checkpoint_bytes(&self) -> Option<usize> {
        self.has_checkpoint()
            .then_some((self.checkpoint_field & !COMPRESSED) as usize)
    }
}

/// What a file still holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) frames: Vec<Frame>,
    /// Bytes between or before valid frames that are none.
    pub(super) damaged: bool,
    /// Where the valid part ends when bytes follow that belong to no valid frame.
    pub(super) torn_at: Option<usize>,
}

pub(super) fn segment_head(first_position: u64) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..].copy_from_slice(&first_position.to_le_bytes());
    head
}

/// `None` when a length does not fit into its field.
pub(super) fn encode_frame(head: &FrameHead, records: &[NewRecord], checkpoint: &[u8]) -> Option<Vec<u8>> {
    let payload_bytes: usize = records.iter().map(|record| record.payload.len()).sum();
    // Compression into memory fails only for want of memory; the checkpoint as it is says the same.
    let compressed = zstd::bulk::compress(checkpoint, ZSTD_LEVEL).ok();
    let (mark, checkpoint) = compressed
        .as_deref()
        .map_or((0, checkpoint), |bytes| (COMPRESSED, bytes));
    let body_bytes = BODY_HEAD_BYTES + records.len() * RECORD_HEAD_BYTES + payload_bytes + checkpoint.len();
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + body_bytes);
    bytes.extend([0; FRAME_HEAD_BYTES]);
    for field in [head.position, head.time_ms, head.previous.generation, head.previous.seq] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(head.first.generation.to_le_bytes());
    bytes.extend(head.first.seq.to_le_bytes());
    bytes.extend(head.records.to_le_bytes());
    bytes.extend((u32::try_from(checkpoint.len()).ok()? | mark).to_le_bytes());
    for record in records {
        bytes.extend(record.schema.to_le_bytes());
        bytes.push(record.kind.to_byte());
        bytes.extend(u32::try_from(record.payload.len()).ok()?.to_le_bytes());
    }
    for record in records {
        bytes.extend(&record.payload);
    }
    bytes.extend(checkpoint);
    seal(&mut bytes)?;
    Some(bytes)
}

/// Writes the length and the sum of the body.
fn seal(frame: &mut [u8]) -> Option<()> {
    let body = frame.get(FRAME_HEAD_BYTES..)?;
    let (length, sum) = (u32::try_from(body.len()).ok()?, crc32c::crc32c(body));
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
    Some(())
}

/// The bytes of a valid frame of `file` without its checkpoint.
pub(super) fn without_checkpoint(file: &[u8], frame: &Frame) -> Option<Vec<u8>> {
    let kept = frame.length.checked_sub(frame.checkpoint_bytes().unwrap_or(0))?;
    let mut bytes = file.get(frame.offset..)?.get(..kept)?.to_vec();
    let field_at = FRAME_HEAD_BYTES + CHECKPOINT_FIELD_AT;
    bytes
        .get_mut(field_at..field_at + 4)?
        .copy_from_slice(&LEFT_OUT.to_le_bytes());
    seal(&mut bytes)?;
    Some(bytes)
}

/// The valid frame that begins at `offset`, if its position is after `after`.
fn frame_at(file: &[u8], offset: usize, after: u64) -> Option<Frame> {
    let rest = file.get(offset..)?;
    // A length of zero with a sum of zero would be valid: nothing but zeros is no frame.
    let body_bytes = Some(read_u32(rest, 0)? as usize).filter(|bytes| *bytes >= BODY_HEAD_BYTES)?;
    let head = read_head(rest.get(FRAME_HEAD_BYTES..)?)?;
    if head.position <= after || head.position - after > POSITIONS_AHEAD_MAX {
        return None;
    }
    let length = FRAME_HEAD_BYTES.checked_add(body_bytes)?;
    let body = rest.get(FRAME_HEAD_BYTES..length)?;
    let valid = crc32c::crc32c(body) == read_u32(rest, 4)?;
    let checkpoint_field = read_u32(body, CHECKPOINT_FIELD_AT)?;
    valid.then_some(Frame {
        head,
        offset,
        length,
        checkpoint_field,
    })
}

fn read_head(body: &[u8]) -> Option<FrameHead> {
    let id = |at| {
        Some(RecordId {
            generation: read_u64(body, at)?,
            seq: read_u64(body, at + 8)?,
        })
    };
    Some(FrameHead {
        position: read_u64(body, 0)?,
        time_ms: read_u64(body, 8)?,
        previous: id(16)?,
        first: id(32)?,
        records: read_u32(body, 48)?,
    })
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Finds every valid frame, also behind damage.
pub(super) fn scan(file: &[u8], first_position: u64) -> Scan {
    let mut found = Scan::default();
    let mut after = first_position.saturating_sub(1);
    let mut offset = SEGMENT_HEAD_BYTES;
    if file.get(..SEGMENT_HEAD_BYTES) != Some(&segment_head(first_position)) {
        found.damaged = true;
    }
    while offset < file.len() {
        let next = frame_at(file, offset, after).or_else(|| next_frame(file, offset + 1, after));
        let Some(frame) = next else {
            found.torn_at = Some(offset);
            break;
        };
        found.damaged |= frame.offset != offset || frame.head.position != after + 1;
        after = frame.head.position;
        offset = frame.offset + frame.length;
        found.frames.push(frame);
    }
    found
}

fn next_frame(file: &[u8], from: usize, after: u64) -> Option<Frame> {
    (from..file.len().saturating_sub(FRAME_HEAD_BYTES + BODY_HEAD_BYTES)).find_map(|at| frame_at(file, at, after))
}

/// The records of a frame's bytes, and its checkpoint unless that was left out, or `None` when they are not what was
/// written.
pub(super) fn decode_frame(bytes: &[u8]) -> Option<(Vec<Record>, Option<Packed<'_>>)> {
    let frame = frame_at(bytes, 0, read_u64(bytes, FRAME_HEAD_BYTES)?.checked_sub(1)?)?;
    let body = bytes.get(FRAME_HEAD_BYTES..frame.length)?;
    let count = frame.head.records as usize;
    let mut payload_at = BODY_HEAD_BYTES.checked_add(count.checked_mul(RECORD_HEAD_BYTES)?)?;
    let mut records = Vec::new();
    for index in 0..count {
        let head_at = BODY_HEAD_BYTES + index * RECORD_HEAD_BYTES;
        let payload_end = payload_at.checked_add(read_u32(body, head_at + 9)? as usize)?;
        records.push(Record {
            id: RecordId {
                generation: frame.head.first.generation,
                seq: frame.head.first.seq.checked_add(index as u64)?,
            },
            kind: RecordKind::from_byte(*body.get(head_at + 8)?)?,
            schema: read_u64(body, head_at)?,
            payload: body.get(payload_at..payload_end)?.to_vec(),
        });
        payload_at = payload_end;
    }
    let rest = body.get(payload_at..)?;
    let checkpoint = frame.has_checkpoint().then_some(Packed {
        bytes: rest,
        is_compressed: frame.checkpoint_field & COMPRESSED != 0,
    });
    (rest.len() == frame.checkpoint_bytes().unwrap_or(0)).then_some((records, checkpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(position: u64, payloads: &[&[u8]]) -> Vec<u8> {
        let records: Vec<NewRecord> = payloads
            .iter()
            .map(|p| NewRecord {
                kind: RecordKind::Block,
                schema: 9,
                payload: p.to_vec(),
            })
            .collect();
        let head = FrameHead {
            position,
            time_ms: 1,
            previous: RecordId {
                generation: 7,
                seq: position - 1,
            },
            first: RecordId {
                generation: 7,
                seq: position,
            },
            records: u32::try_from(payloads.len()).unwrap(),
        };
        encode_frame(&head, &records, b"chk").unwrap()
    }

    fn file(frames: &[Vec<u8>]) -> Vec<u8> {
        [segment_head(1).to_vec(), frames.concat()].concat()
    }

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        let bytes = frame(4, &[b"one", b"", b"three"]);
        let (records, checkpoint) = decode_frame(&bytes).unwrap();
        assert_eq!(checkpoint.unwrap().unpack().unwrap(), b"chk");
        let read: Vec<(u64, &[u8])> = records.iter().map(|r| (r.id.seq, r.payload.as_slice())).collect();
        assert_eq!(read, [(4, b"one".as_slice()), (5, b""), (6, b"three")]);
    }

    #[test]
    fn a_frame_without_its_checkpoint_has_the_same_records() {
        let whole = file(&[frame(1, &[b"a"]), frame(2, &[b"bb", b"ccc"])]);
        let second = &scan(&whole, 1).frames[1];
        let bytes = without_checkpoint(&whole, second).unwrap();
        let (records, checkpoint) = decode_frame(&bytes).unwrap();
        assert_eq!(records, decode_frame(&whole[second.offset..]).unwrap().0);
        assert_eq!((records.len(), checkpoint), (2, None));
        let again = file(&[frame(1, &[b"a"]), bytes.clone()]);
        assert_eq!(
            without_checkpoint(&again, &scan(&again, 1).frames[1]).unwrap(),
            bytes,
            "what is left out stays left out"
        );
    }

    #[test]
    fn a_checkpoint_of_the_first_format_is_read() {
        let mut bytes = frame(1, &[b"a"]);
        bytes.truncate(FRAME_HEAD_BYTES + BODY_HEAD_BYTES + RECORD_HEAD_BYTES + 1);
        bytes.extend(b"as it is");
        bytes[FRAME_HEAD_BYTES + CHECKPOINT_FIELD_AT..][..4].copy_from_slice(&8u32.to_le_bytes());
        seal(&mut bytes).unwrap();
        let (_, checkpoint) = decode_frame(&bytes).unwrap();
        assert_eq!(checkpoint.unwrap().unpack().unwrap(), b"as it is");
    }

    #[test]
    fn a_checkpoint_that_claims_to_be_larger_than_a_frame_is_none() {
        let bytes = zstd::bulk::compress(&vec![0; FRAME_BYTES_MAX + 1], ZSTD_LEVEL).unwrap();
        let packed = Packed {
            bytes: &bytes,
            is_compressed: true,
        };
        assert_eq!(packed.unpack(), None);
    }

    #[test]
    fn a_cut_at_any_byte_keeps_every_whole_frame_before_it() {
        let frames = [frame(1, &[b"a"]), frame(2, &[b"bb"]), frame(3, &[b"ccc"])];
        let whole = file(&frames);
        for cut in SEGMENT_HEAD_BYTES..whole.len() {
            let mut end = SEGMENT_HEAD_BYTES;
            let expected = frames
                .iter()
                .take_while(|f| {
                    end += f.len();
                    end <= cut
                })
                .count();
            let found = scan(&whole[..cut], 1);
            assert_eq!(found.frames.len(), expected, "cut at {cut}");
            assert!(!found.damaged);
        }
    }

    #[test]
    fn a_flipped_bit_costs_its_frame_alone() {
        let frames = [frame(1, &[b"a"]), frame(2, &[b"bb"]), frame(3, &[b"ccc"])];
        let whole = file(&frames);
        let second = SEGMENT_HEAD_BYTES + frames[0].len();
        for at in second..second + frames[1].len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            let found = scan(&bad, 1);
            let positions: Vec<u64> = found.frames.iter().map(|f| f.head.position).collect();
            assert_eq!(positions, [1, 3], "flipped byte {at}");
            assert!(found.damaged);
        }
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_torn_tail() {
        let mut bytes = file(&[frame(1, &[b"a"])]);
        let end = bytes.len();
        bytes.extend([0; 512]);
        let found = scan(&bytes, 1);
        assert_eq!(
            (found.frames.len(), found.torn_at, found.damaged),
            (1, Some(end), false)
        );
    }
}
