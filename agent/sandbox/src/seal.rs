//! Seals this process: from then on it computes, talks over the descriptors that it has, and can do nothing else.
//!
//! In: a process whose threads and code are all there. Out: no new file, socket, process or executable page, ever,
//! whatever native code runs in it; what is not on the list fails with `EPERM`.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// What computing, waiting, talking and ending needs.
const ALLOWED: [i64; 21] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// Memory, but never executable: the protection is the third argument of both.
const ALLOWED_WITHOUT_EXEC: [i64; 2] = [libc::SYS_mmap, libc::SYS_mprotect];
const PROTECTION_ARGUMENT: u8 = 2;

/// Why a process is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The kernel has no seccomp filters, or somebody forbade them.
    #[error("the kernel does not seal the process: {reason}")]
    Kernel { reason: String },
    #[error("restricting the process")]
    Process(#[from] io::Error),
}

/// Seals all threads of this process for the rest of its life; it gets no more writable memory than so much.
///
/// # Errors
/// When this kernel or processor cannot.
pub fn seal(data_bytes_max: u64) -> Result<(), SealError> {
    // Nobody of our user looks into it, and it leaves no core file.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)?;
    limit_resources(data_bytes_max)?;
    refuse_new_code()?;
    filter_calls()
}

/// Closes whatever descriptors this process inherited besides the first three.
/// Call it before anything is opened.
#[expect(unsafe_code, reason = "closing what nobody here owns yet")]
pub fn close_inherited() {
    // SAFETY: the caller has opened nothing yet, so that no descriptor above 2 has an owner in this process.
    // An older kernel refuses, and then what was inherited is only as good as the agent's own care.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// The filter refuses the same; these hold where somebody forgot a call on its list.
fn limit_resources(data_bytes_max: u64) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Nproc, 0),
        (Resource::Nofile, 0),
        // What escaped from a plugin does not fill the memory that the agent lives in, too.
        (Resource::Data, data_bytes_max),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Memory that is or was writable never becomes executable. Kernels before 6.3 do not know it, and have the filter.
#[expect(unsafe_code, reason = "no safe wrapper has this call yet")]
fn refuse_new_code() -> io::Result<()> {
    // SAFETY: the call takes numbers only, and changes nothing but what later calls may do.
    let result = unsafe { libc::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) };
    let error = io::Error::last_os_error();
    if result == 0 || error.raw_os_error() == Some(libc::EINVAL) {
        Ok(())
    } else {
        Err(error)
    }
}

fn filter_calls() -> Result<(), SealError> {
    let program = program().map_err(|error| SealError::Kernel {
        reason: error.to_string(),
    })?;
    apply_filter_all_threads(&program).map_err(|error| SealError::Kernel {
        reason: error.to_string(),
    })
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.into_iter().map(|call| (call, Vec::new())).collect();
    for call in ALLOWED_WITHOUT_EXEC {
        let executable = u64::try_from(libc::PROT_EXEC).unwrap_or(u64::MAX);
        let is_plain = SeccompCondition::new(
            PROTECTION_ARGUMENT,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(executable),
            0,
        )?;
        rules.insert(call, vec![SeccompRule::new(vec![is_plain])?]);
    }
    let refused = u32::try_from(libc::EPERM).unwrap_or(1);
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(refused), SeccompAction::Allow, processor)?;
    filter.try_into()
}
