//! E1: what a point costs, in time, memory and allocations, and what 500 series take.
//!
//! In: a day of values of each kind after some days of learning, windows of ten seconds. Out: nanoseconds a point, bytes
//! a series, and allocations, which must be none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use tillwatch_core::detect::{Judge, Slot};

use super::store::{Calendar, SPECS, Series};
use super::{DAY, Row, Section, WINDOW_MS};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, which counts.
pub(crate) struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; all is passed on as it came"
)]
// SAFETY: each call is the system allocator's own, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

const LEARNED_DAYS: u64 = 10;
const SERIES: usize = 500;

pub(crate) fn measure() -> Result<Section> {
    let mut rows = Vec::new();
    let bytes = size_of::<Judge>();
    for at in [0, 6, 10, 18, 22] {
        let mut calendar = Calendar::new(1, false);
        let mut series = Series::exact(SPECS[at], 1);
        let mut judge = Judge::new(SPECS[at].shape(), WINDOW_MS);
        let mut point = || {
            let scene = calendar.next();
            (scene.slot, scene.start_ms, series.value(&scene, 1.0))
        };
        (0..LEARNED_DAYS * DAY)
            .map(|_| point())
            .for_each(|(slot, start_ms, value)| _ = judge.step(slot, start_ms, value));
        let points: Vec<(Slot, u64, Option<f64>)> = (0..DAY).map(|_| point()).collect();
        let (ns, allocations) = time(&mut judge, &points);
        ensure!(allocations == 0, "{:?} allocates {allocations} times", SPECS[at]);
        let case = format!("{:?}", SPECS[at].kind()).to_lowercase();
        rows.push(Row::new(
            "tillwatch",
            &case,
            &[("ns_a_point", ns), ("allocations", 0.0), ("bytes", bytes as f64)],
        ));
    }
    let all = (bytes * SERIES) as f64 / f64::from(1 << 20);
    rows.push(Row::new("tillwatch", "500 series", &[("mib", all)]));
    Ok(Section {
        name: "cost",
        goal: "300 ns a point, 4096 bytes a series, no allocation, 500 series in 2 MiB",
        how: format!("the median half-hour of a day in windows of 10 s after {LEARNED_DAYS} days, seed 1"),
        rows,
    })
}

/// The median of the half-hours of a day: whatever else runs on the machine interrupts a few of them.
fn time(judge: &mut Judge, points: &[(Slot, u64, Option<f64>)]) -> (f64, u64) {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut half_hours = [0.0; 48];
    for (ns, points) in half_hours.iter_mut().zip(points.chunks(180)) {
        let begun = Instant::now();
        for (slot, start_ms, value) in points {
            std::hint::black_box(judge.step(*slot, *start_ms, *value));
        }
        *ns = begun.elapsed().as_nanos() as f64 / points.len() as f64;
    }
    half_hours.sort_by(f64::total_cmp);
    (half_hours[24], ALLOCATIONS.load(Ordering::Relaxed) - before)
}
