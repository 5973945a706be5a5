//! A point of sale whose every line is numbered: line n sells for n minor units.
//!
//! In: nothing. Out: the log, and exactly what stands in it, by interval. It goes on while everything else is killed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::history::Values;
use crate::story::timestamp;

/// Told apart in the lines.
pub const ROUTES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(20);
/// Lines in a pause are fewer.
const LINES_MAX: u32 = 4;
const LINES_MAX_BUSY: u32 = 20;

#[derive(Default)]
struct Shared {
    is_paused: AtomicBool,
    is_over: AtomicBool,
    values: Mutex<Values>,
}

/// Writes until it is dropped.
pub struct Producer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Producer {
    /// A busy one writes several times as much.
    ///
    /// # Errors
    /// When the log cannot be made.
    pub fn start(log: &Path, summary_ms: u64, seed: u64, is_busy: bool) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || produce(file, summary_ms, seed, is_busy, &theirs));
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What was written up to now.
    pub fn values(&self) -> Values {
        self.shared
            .values
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Nothing more is written after the line that is being written, or it goes on.
    pub fn pause(&self, is_paused: bool) {
        self.shared.is_paused.store(is_paused, Ordering::SeqCst);
        std::thread::sleep(2 * PAUSE);
    }

    /// # Errors
    /// When it has ended, since its log could not be written.
    pub fn check(&mut self) -> Result<()> {
        if !self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            return Ok(());
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(error),
            _ => bail!("the producer ended"),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the log of the point of sale: {error}");
        }
    }
}

fn produce(mut log: File, summary_ms: u64, seed: u64, is_busy: bool, shared: &Shared) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let lines_max = if is_busy { LINES_MAX_BUSY } else { LINES_MAX };
    let mut number = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        if !shared.is_paused.load(Ordering::SeqCst) {
            let mut lines = String::new();
            for _ in 0..random.u32(0..lines_max) {
                number += 1;
                let mut values = shared.values.lock().unwrap_or_else(PoisonError::into_inner);
                lines += &line(number, summary_ms, &mut values, &mut random)?;
            }
            // In one write or torn in two, as programs do it.
            let (first, rest) = lines.as_bytes().split_at(random.usize(0..=lines.len()));
            log.write_all(first)
                .and_then(|()| log.write_all(rest))
                .context("writing the log of the point of sale")?;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn line(number: i64, summary_ms: u64, values: &mut Values, random: &mut fastrand::Rng) -> Result<String> {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let sold = values.entry(now_ms - now_ms % summary_ms).or_default();
    sold.transactions += 1;
    sold.amount_minor += number;
    let (time, major, minor) = (timestamp(now_ms), number / 100, number % 100);
    let (route, latency) = (random.u32(0..ROUTES), 10f64.powf(random.f64() * 4.0 - 3.0));
    Ok(format!(
        "{{\"time\":\"{time}\",\"total\":{major}.{minor:02},\"items\":1,\"tender\":\"cash\",\"path\":\"/r{route}\",\"latency\":{latency:.4}}}\n"
    ))
}
