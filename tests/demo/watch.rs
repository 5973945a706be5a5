//! The table in the terminal: what central says now, above what is happening.

use std::io::{IsTerminal as _, Write as _};

use tillwatch_tests::story::{Chain, timestamp};

use crate::verdict::Told;

/// Rows of the table.
const ROWS_MAX: usize = 8;

/// Draws over its last drawing on a terminal; prints plain lines, and fewer, elsewhere.
pub(crate) struct Watch {
    is_terminal: bool,
    is_silent: bool,
    drawn_lines: usize,
    last_plain: String,
}

impl Watch {
    /// Silent ones draw nothing.
    pub(crate) fn new(is_silent: bool) -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            is_silent,
            drawn_lines: 0,
            last_plain: String::new(),
        }
    }

    /// One line that stays.
    pub(crate) fn say(&mut self, line: &str) {
        if !self.is_silent {
            self.drawn_lines = 0;
            eprintln!("{line}");
        }
    }

    /// The state of the story at `now_ms`.
    pub(crate) fn draw(&mut self, chain: &Chain, now_ms: u64, incidents: &[Told], anomalies: u64) {
        if self.is_silent {
            return;
        }
        let lines = table(chain, now_ms, incidents, anomalies);
        if self.is_terminal {
            self.redraw(&lines);
        } else if let Some(first) = lines.get(2).filter(|first| **first != self.last_plain) {
            self.last_plain.clone_from(first);
            let below = match incidents.len() - 1 {
                0 => String::new(),
                below => format!("  (and {below} below it)"),
            };
            eprintln!("{}\n{first}{below}", lines[0]);
        }
    }

    fn redraw(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn_lines > 0 {
            text += &format!("\x1b[{}A\x1b[J", self.drawn_lines);
        }
        text += &lines.join("\n");
        text.push('\n');
        self.drawn_lines = lines.len();
        let mut terminal = std::io::stderr();
        if terminal
            .write_all(text.as_bytes())
            .and_then(|()| terminal.flush())
            .is_err()
        {
            self.is_silent = true;
        }
    }
}

fn table(chain: &Chain, now_ms: u64, incidents: &[Told], anomalies: u64) -> Vec<String> {
    let clock = timestamp(now_ms)
        .to_zoned(chain.zone.clone())
        .strftime("%a %H:%M")
        .to_string();
    let mut lines = vec![format!(
        "{clock}  {}; central sees {anomalies} anomalies",
        happening(chain, now_ms)
    )];
    lines.push(format!(
        "{:>4}  {:<22} {:<12} {:>6}  {:>12}  {}",
        "rank", "likely cause", "where", "stores", "lost sales", "90 % interval"
    ));
    lines.extend(incidents.iter().take(ROWS_MAX).map(row));
    if incidents.len() > ROWS_MAX {
        lines.push(format!(
            "      and {} more that cost less or nothing",
            incidents.len() - ROWS_MAX
        ));
    }
    lines
}

fn happening(chain: &Chain, now_ms: u64) -> String {
    let harmless = chain
        .harmless
        .iter()
        .filter(|harmless| harmless.start_ms <= now_ms)
        .count();
    let fault = match &chain.fault {
        Some(fault) if (fault.start_ms..fault.end_ms).contains(&now_ms) => {
            format!(
                "the queue to the mainframe is slow in {} since {} min",
                fault.region,
                (now_ms - fault.start_ms) / 60_000
            )
        }
        Some(fault) if now_ms >= fault.end_ms => "the queue to the mainframe is well again".to_owned(),
        _ => "nothing costs sales".to_owned(),
    };
    format!("in truth: {fault}; {harmless} harmless anomalies so far")
}

fn row(told: &Told) -> String {
    let place = told.region.as_deref().or(told.site.as_deref()).unwrap_or("all");
    let (cost, interval) = match (told.cost_minor, told.lower_minor, told.upper_minor) {
        (Some(cost), Some(lower), Some(upper)) => (
            format!("{} {}", cost / 100, told.currency.as_deref().unwrap_or_default()),
            format!("{} to {}", lower / 100, upper / 100),
        ),
        _ => (String::new(), told.price_state.replace('_', " ")),
    };
    format!(
        "{:>4}  {:<22} {place:<12} {:>6}  {cost:>12}  {interval}",
        told.rank, told.cause, told.sites
    )
}
