//! What the compiler process may use; beyond it the kernel ends it, and the plugin is not admitted.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

/// A plugin of 150 KB takes less than a second. More memory comes with more time, in proportion.
const CPU_S_MAX: u64 = 30;
/// Virtual memory, unless the agent allows more; a plugin of 150 KB takes 40 MiB, one of 5 MB 70 MiB, and a single
/// function of 1 MB 210 MiB.
pub(crate) const ADDRESS_SPACE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The largest artifact.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Sets the limits for the rest of this process' life.
pub(crate) fn limit_this_process(memory_bytes_max: u64) -> Result<()> {
    let cpu_s_max = CPU_S_MAX * memory_bytes_max.div_ceil(ADDRESS_SPACE_BYTES_MAX);
    for (resource, most) in [
        (Resource::Cpu, cpu_s_max),
        (Resource::As, memory_bytes_max),
        (Resource::Fsize, FILE_BYTES_MAX),
        (Resource::Core, 0),
        // Compiling takes one thread; a process of root is not held by this.
        (Resource::Nproc, 0),
    ] {
        setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )
        .with_context(|| format!("limiting {resource:?} to {most}"))?;
    }
    Ok(())
}
