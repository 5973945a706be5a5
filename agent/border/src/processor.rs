//! How much processor time a plugin's thread has used, by the kernel's own count: a plugin is not blamed for a machine
//! that has no time for it.
//!
//! The sandbox opens the counter of each of its threads before it is sealed and hands it over; what it does later does not
//! change what the kernel counts. Without it (no `/proc`) all time that passes counts as used.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::handover::{receive_descriptors, send_descriptors};

/// Nanoseconds on a processor come first; see proc(5).
const OF_THIS_THREAD: &str = "/proc/thread-self/schedstat";
/// Three numbers.
const LINE_BYTES_MAX: usize = 64;

/// The counter of one thread.
#[derive(Debug, Default)]
pub(crate) struct Processor(Option<File>);

/// Gives the calling thread's counter to whoever is at the other end of its socket, before anything else is said there.
///
/// # Errors
/// When the socket does not take it.
pub fn hand_over_processor(socket: impl AsFd) -> io::Result<()> {
    let counter = File::open(OF_THIS_THREAD).ok();
    let descriptors: Vec<_> = counter.iter().map(AsFd::as_fd).collect();
    send_descriptors(socket, &descriptors)
}

impl Processor {
    /// What [`hand_over_processor`] gave, which has come already.
    pub(crate) fn receive(socket: &UnixStream) -> Self {
        let received = receive_descriptors(socket, RecvFlags::DONTWAIT);
        let counter = received.ok().and_then(|descriptors| descriptors.into_iter().next());
        Self(counter.map(File::from))
    }

    /// Since the thread began; a thread that runs may have used a few milliseconds more.
    pub(crate) fn used(&self) -> Option<Duration> {
        let mut line = [0; LINE_BYTES_MAX];
        let length = self.0.as_ref()?.read_at(&mut line, 0).ok()?;
        let text = std::str::from_utf8(line.get(..length)?).ok()?;
        let nanoseconds = text.split(' ').next()?.parse().ok()?;
        Some(Duration::from_nanos(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    const BUSY: Duration = Duration::from_millis(40);

    fn spin(time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_thread_is_counted_by_itself_and_only_while_it_runs() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (go, gone) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            hand_over_processor(&theirs).unwrap();
            while let Ok(time) = gone.recv() {
                spin(time);
                theirs.set_nonblocking(true).unwrap();
                hand_over_processor(&theirs).unwrap();
            }
        });
        ours.set_nonblocking(false).unwrap();
        let counter = receive_descriptors(&ours, RecvFlags::empty()).unwrap().pop().unwrap();
        let processor = Processor(Some(File::from(counter)));
        let before = processor.used().unwrap();
        spin(BUSY);
        assert!(processor.used().unwrap() - before < BUSY / 2, "another thread was busy");
        // A machine that is busy itself gives the thread less than that.
        while processor.used().unwrap() - before < BUSY {
            go.send(BUSY / 8).unwrap();
            receive_descriptors(&ours, RecvFlags::empty()).unwrap();
        }
        drop(go);
        thread.join().unwrap();
    }

    #[test]
    fn what_is_no_counter_counts_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(Processor::receive(&ours).used().is_none(), "nothing came");
        send_descriptors(&theirs, &[]).unwrap();
        assert!(Processor::receive(&ours).used().is_none(), "there is no counter");
        send_descriptors(&theirs, &[theirs.as_fd()]).unwrap();
        assert!(
            Processor::receive(&ours).used().is_none(),
            "a socket is not read for it"
        );
    }
}
