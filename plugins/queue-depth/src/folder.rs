//! A drop folder as a queue: each file is a message that waits.

use tillwatch_sdk::{Batch, Listing};

use crate::metric;

/// Pushes what lies in the folder now.
pub(crate) fn push(listing: &Listing, queue: &str, now_ms: u64, batch: &mut Batch) {
    // A file written by a clock that is ahead has age 0.
    let age_ms = listing
        .oldest_modified_ms
        .map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
    batch.push_integer(metric::QUEUE_DEPTH, &[queue], integer(listing.count), now_ms);
    batch.push_integer(metric::QUEUE_OLDEST_AGE, &[queue], integer(age_ms), now_ms);
    batch.push_integer(metric::QUEUE_BYTES, &[queue], integer(listing.bytes), now_ms);
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
