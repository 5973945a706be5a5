//! Tests of plugins without a sandbox: a host made of files, and golden cases.
//!
//! What comes in is a folder; what goes out are batches, or a panic that shows the difference.
//! The same folders run on the built `.wasm` through `tillwatch plugin test`.
//!
//! ```no_run
//! use tillwatch_sdk::{Collector, Descriptor, testing};
//!
//! /// In a plugin's tests: `check::<Requests>(&descriptor())`.
//! fn check<C: Collector>(descriptor: &Descriptor) {
//!     testing::golden::<C>(descriptor, "testcases");
//! }
//! ```

mod answers;
mod case;
mod files;
mod golden;
mod mutate;
mod shown;

pub use files::FileHost;
pub use golden::golden;
pub use mutate::mutated;
pub use shown::shown_settings;

use crate::{Batch, Collector, Error};

/// Calls of one run: a collector that still says `more` after these is taken for an endless one.
pub const CALLS_MAX: usize = 1000;

/// Calls `collect` until it no longer says `more`, committing what was read as the agent does.
///
/// ```
/// use tillwatch_sdk::testing::{FileHost, collect_all};
/// use tillwatch_sdk::{Batch, Collector, Error};
///
/// /// How many samples a collector finds in a log.
/// fn samples<C: Collector>(collector: &mut C, log: &[u8]) -> Result<usize, Error> {
///     let mut host = FileHost::new(0);
///     host.append_lines("log", log);
///     let batches = collect_all(collector, &mut host)?;
///     Ok(batches.iter().map(Batch::samples).sum())
/// }
/// ```
///
/// # Errors
/// The collector's first error; what that call read is given again at the next call.
pub fn collect_all<C: Collector>(collector: &mut C, host: &mut FileHost) -> Result<Vec<Batch>, Error> {
    let mut batches = Vec::new();
    for _ in 0..CALLS_MAX {
        let batch = collector.collect(host).inspect_err(|_| host.roll_back())?;
        host.commit();
        let more = batch.more;
        batches.push(batch);
        if !more {
            return Ok(batches);
        }
    }
    Err(Error::permanent(format!(
        "collect still says more after {CALLS_MAX} calls"
    )))
}
