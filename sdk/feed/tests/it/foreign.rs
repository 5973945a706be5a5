//! Bytes from anybody: the decoder answers with an error or a message, in bounded memory, and never panics.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fastrand::Rng;
use tillwatch_feed::codec::{self, INFLATED_BYTES_MAX, ROWS_MAX};

use crate::golden;

const MUTATIONS: usize = 100_000;
const SEED: u64 = 20_260_601;

/// What decoding one payload may take of memory at most.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Counts what this thread holds, and the most it held.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn hold(bytes: usize) {
    let held = HELD.with(|held| {
        held.set(held.get().saturating_add(bytes));
        held.get()
    });
    PEAK.with(|peak| peak.set(peak.get().max(held)));
}

fn free(bytes: usize) {
    HELD.with(|held| held.set(held.get().saturating_sub(bytes)));
}

#[expect(
    unsafe_code,
    reason = "an allocator that counts is the only way to see what decoding takes"
)]
// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        free(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most that `work` held beyond what was held before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    work();
    PEAK.with(Cell::get) - before
}

/// All doors for foreign bytes.
fn decode_anything(payload: &[u8]) -> usize {
    let mut taken = 0;
    taken += usize::from(codec::decode(payload).is_ok());
    taken += usize::from(codec::decode_body(payload).is_ok());
    taken += usize::from(codec::decode_state(payload).is_ok());
    taken += usize::from(codec::decode_ack(payload).is_ok());
    taken += usize::from(codec::decode_config(payload).is_ok());
    taken
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(0..=bytes.len());
        match rng.u8(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, *rng.choice([0, 1, 0x7f, 0x80, 0xff].iter()).unwrap()),
            2 => {
                let from = rng.usize(0..=other.len());
                let to = rng.usize(from..=other.len().min(from + 40));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ if at < bytes.len() => match rng.u8(0..3) {
                0 => bytes[at] ^= 1 << rng.u8(0..8),
                1 => bytes[at] = rng.u8(..),
                _ => drop(bytes.remove(at)),
            },
            _ => {}
        }
    }
}

#[test]
fn mutated_payloads_never_panic_and_stay_within_memory() -> anyhow::Result<()> {
    println!("seed {SEED}");
    let mut rng = Rng::with_seed(SEED);
    let mut corpus = Vec::new();
    for (_, payload) in golden::corpus()? {
        // As it travels, and uncompressed behind a plain header, so that mutations reach the columns.
        let body = codec::protobuf(&payload)?;
        corpus.push([&[1, 0, 0, 0], &body[..]].concat());
        corpus.push(body);
        corpus.push(payload);
    }
    let (mut peak, mut taken) = (0, 0);
    for _ in 0..MUTATIONS {
        let mut bytes = rng.choice(&corpus).cloned().unwrap_or_default();
        let other = rng.choice(&corpus).cloned().unwrap_or_default();
        mutate(&mut rng, &mut bytes, &other);
        peak = peak.max(peak_of(|| taken += decode_anything(&bytes)));
    }
    println!("{taken} of {MUTATIONS} mutations still say something, {peak} bytes at most");
    assert!(
        peak <= INFLATED_BYTES_MAX * 2,
        "{peak} bytes for payloads of a kilobyte"
    );
    assert!(taken > MUTATIONS / 100, "mutations are too rough to reach the inside");
    Ok(())
}

/// A field with a length, in protobuf.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(number << 3 | 2));
    bytes.extend(varint(u64::try_from(content.len()).unwrap()));
    bytes.extend(content);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

#[test]
fn the_largest_block_and_birth_stay_within_memory() {
    let zeros = |n: usize| vec![0; n];
    let mut block = field(3, &zeros(1));
    block.extend(field(4, &[1]));
    block.extend(field(5, &varint(u64::try_from(ROWS_MAX).unwrap())));
    block.extend(field(7, &[1]));
    block.extend(field(10, &[8]));
    block.extend(field(17, &[0]));
    block.extend(field(12, &[8].repeat(ROWS_MAX)));
    block.extend(field(13, &[1].repeat(8 * ROWS_MAX)));
    for column in [6, 8, 9, 11, 14, 15, 18, 19, 20, 22, 23, 24] {
        block.extend(field(column, &zeros(ROWS_MAX)));
    }
    block.extend(field(21, &[2]));
    let series = field(6, &field(3, b"").repeat(16)).repeat(codec::SERIES_MAX);
    let metric = [field(1, b"m"), vec![0x18, 1], field(8, b"k").repeat(16)].concat();
    let metrics = field(5, &metric).repeat(codec::METRICS_MAX);
    let plugin = field(7, &field(1, b"p"));
    for body in [field(2, &block), field(1, &[plugin, metrics, series].concat())] {
        let mut result = None;
        let peak = peak_of(|| result = Some(codec::decode_body(&body)));
        println!(
            "{} bytes of body took {peak} bytes: {:?}",
            body.len(),
            result.map(|r| r.map(drop))
        );
        assert!(peak <= MEMORY_BYTES_MAX, "{peak}");
    }
}

#[test]
fn more_than_the_limits_is_refused_before_it_is_read() {
    let series = field(6, b"").repeat(codec::SERIES_MAX + 1);
    let body = field(1, &series);
    let mut result = None;
    let peak = peak_of(|| result = Some(codec::decode_body(&body)));
    let limit = codec::DecodeError::Limit {
        what: "series",
        found: codec::SERIES_MAX + 1,
        max: codec::SERIES_MAX,
    };
    assert_eq!(result, Some(Err(limit)));
    assert!(peak < 1024, "{peak}");
}
