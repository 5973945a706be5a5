//! The log of the agent and of central: the same kind of warning about the same source at most once a minute.
//!
//! In: events of `tracing`. Out: lines, the next one of a kind with how many were left out since the last.
//! It never holds back what is no warning or error, and its memory is bounded whatever names come from outside.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Between two lines of one kind and source.
pub const SAME_EVERY: Duration = Duration::from_secs(60);
/// Kinds and sources told apart; beyond that all further sources of a kind count as one.
pub const SOURCES_MAX: usize = 1_024;
/// Fields that say whom a message is about, or are part of its kind.
const SOURCE_FIELDS: [&str; 8] = ["site", "identity", "client", "from", "plugin", "source", "kind", "said"];
const SOURCE_CHARS_MAX: usize = 80;

static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Lines left out since the program started.
#[must_use]
pub fn lines_left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Formats events as `F` does, but not the same again and again.
#[derive(Debug, Default)]
pub struct Sparing<F> {
    format: F,
    said: Mutex<Said>,
}

impl<F> Sparing<F> {
    #[must_use]
    pub fn new(format: F) -> Self {
        Self {
            format,
            said: Mutex::default(),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Sparing<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if *event.metadata().level() > Level::WARN {
            return self.format.format_event(ctx, writer, event);
        }
        let key = (event.metadata().callsite(), source(event));
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = said.may_say(key, Instant::now()) else {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        drop(said);
        self.format.format_event(ctx, writer.by_ref(), event)?;
        if left_out > 0 {
            writeln!(writer, "    and {left_out} more like it before")?;
        }
        Ok(())
    }
}

type Key = (Identifier, String);

/// When each was said last, and how many were left out since.
#[derive(Debug, Default)]
struct Said(HashMap<Key, (Instant, u64)>);

impl Said {
    /// How many were left out before this one; `None` when this one is left out too.
    fn may_say(&mut self, mut key: Key, now: Instant) -> Option<u64> {
        if !self.0.contains_key(&key) && self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, (at, _)| now < *at + SAME_EVERY);
            if self.0.len() >= SOURCES_MAX {
                key.1.clear();
            }
        }
        let Some((at, left_out)) = self.0.get_mut(&key) else {
            self.0.insert(key, (now, 0));
            return Some(0);
        };
        if now < *at + SAME_EVERY {
            *left_out += 1;
            return None;
        }
        *at = now;
        Some(std::mem::take(left_out))
    }
}

/// Whom the event is about; an address without its port, which changes with each connection.
fn source(event: &Event<'_>) -> String {
    let mut source = Source(String::new());
    event.record(&mut source);
    source.0
}

struct Source(String);

impl Visit for Source {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !SOURCE_FIELDS.contains(&field.name()) {
            return;
        }
        let text = format!("{value:?}");
        let name = match (field.name(), text.rsplit_once(':')) {
            ("from", Some((address, _port))) => address,
            _ => &text,
        };
        self.0.extend(name.chars().take(SOURCE_CHARS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing::{info, warn};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(work: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Sparing::new(tracing_subscriber::fmt::format().without_time()))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn the_same_warning_about_the_same_store_comes_once_and_every_other_line_comes() {
        let lines = logged(|| {
            for number in 0..5 {
                warn!(site = "a", number, "records lost");
                info!(site = "a", number, "connected");
            }
            warn!(site = "b", number = 0, "records lost");
            warn!(site = "a", "message refused");
            for said in ["no total", "no time", "no total"] {
                warn!(plugin = "sales", said, "plugin");
            }
            warn!(plugin = "queue", said = "no total", "plugin");
        });
        let warnings: Vec<_> = lines.iter().filter(|line| line.contains("WARN")).collect();
        assert_eq!(lines.len() - warnings.len(), 5, "{lines:?}");
        assert_eq!(warnings.len(), 2 + 1 + 3, "{warnings:?}");
    }

    #[test]
    fn a_client_that_comes_back_from_another_port_is_the_same_source() {
        let lines = logged(|| {
            for port in 0..5 {
                warn!(from = %std::net::SocketAddr::from(([10, 0, 0, 1], port)), "no secure connection");
            }
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
    }

    fn key(source: &str) -> Key {
        struct Site;
        impl tracing::callsite::Callsite for Site {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("nobody asks")
            }
        }
        static SITE: Site = Site;
        (Identifier(&SITE), source.to_owned())
    }

    #[test]
    fn after_a_minute_it_is_said_again_with_how_many_were_left_out() {
        let (mut said, began) = (Said::default(), Instant::now());
        assert_eq!(said.may_say(key("a"), began), Some(0));
        assert_eq!(said.may_say(key("a"), began + SAME_EVERY / 3), None);
        assert_eq!(said.may_say(key("a"), began + SAME_EVERY / 2), None);
        assert_eq!(said.may_say(key("a"), began + SAME_EVERY), Some(2));
        assert_eq!(said.may_say(key("a"), began + 3 * SAME_EVERY), Some(0));
    }

    #[test]
    fn names_from_outside_cannot_fill_the_memory() {
        let (mut said, began) = (Said::default(), Instant::now());
        let spoken = (0..3 * SOURCES_MAX).filter(|number| said.may_say(key(&number.to_string()), began).is_some());
        assert_eq!(spoken.count(), SOURCES_MAX + 1, "those without room share one line");
        assert!(said.0.len() <= SOURCES_MAX + 1);
        let later = began + 2 * SAME_EVERY;
        assert_eq!(said.may_say(key("new"), later), Some(0));
        assert!(said.0.len() <= 2);
    }
}
