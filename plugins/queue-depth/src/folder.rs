//! A drop folder as a queue: each file is a message that waits.

use tillwatch_sdk::{Batch, Listing};

use crate::{System, metric};

/// Pushes what lies in the folder now.
pub(crate) fn push(listing: &Listing, queue: &str, now_ms: u64, batch: &mut Batch) {
    // A file written by a clock that is ahead has age 0.
    let age_ms = listing
        .oldest_modified_ms
        .map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
    let labels = [System::Files.name(), queue];
    batch.push_integer(metric::QUEUE_DEPTH, &labels, integer(listing.count), now_ms);
    batch.push_integer(metric::QUEUE_OLDEST_AGE, &labels, integer(age_ms), now_ms);
    batch.push_integer(metric::QUEUE_BYTES, &labels, integer(listing.bytes), now_ms);
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
