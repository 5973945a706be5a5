//! How long transactions took, from POSLog documents: the whole, and its ring, tender and idle times.
//!
//! ```text
//! <Transaction><BeginDateTime>…</BeginDateTime><EndDateTime>…</EndDateTime><RetailTransaction>
//!   <PerformanceMetrics><RingElapsedTime>PT12S</RingElapsedTime><TenderElapsedTime>PT1M4.5S</TenderElapsedTime>…
//! ```
//! Elements are known by their local names, so that all versions and vendors' prefixes are the same. After the first fault
//! of the XML nothing more comes; what came before is good.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use tillwatch_sdk::parse::{Decimal, Offset, Wrong, time_ms};

/// Deeper elements make a document wrong.
const DEPTH_MAX: usize = 64;
/// `TransactionStatus` of what was no sale, or is none yet.
const VOID: [&str; 16] = [
    "Suspended",
    "SuspendedRetrieved",
    "SuspendedDeleted",
    "InProcess",
    "InProgress",
    "Started",
    "Pending",
    "Training",
    "Voided",
    "Void",
    "PostVoided",
    "PostVoid",
    "Canceled",
    "Cancelled",
    "Aborted",
    "Failed",
];
/// No time or duration is longer.
const TEXT_BYTES_MAX: usize = 64;
/// A longer one is a till that was left overnight, or a clock that was set.
const DURATION_US_MAX: i64 = 86_400_000_000;

pub(crate) const PHASES: [&str; 3] = ["ring", "tender", "idle"];

/// What a finished retail transaction says of its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) end_ms: u64,
    pub(crate) whole_us: Option<i64>,
    /// By `PHASES`.
    pub(crate) phases_us: [Option<i64>; PHASES.len()],
    /// What is wrong with a phase that was left out.
    pub(crate) wrong: Option<Wrong>,
}

/// The transactions of a document.
pub(crate) struct Poslog<'a> {
    reader: Reader<&'a [u8]>,
    local: Offset,
    depth: usize,
    text: String,
    open: Option<Open>,
    any_element: bool,
    ended: bool,
}

/// A transaction that is being read.
#[derive(Default)]
struct Open {
    depth: usize,
    is_retail: bool,
    /// Cancelled, suspended or a training: its times tell nothing.
    is_void: bool,
    begin: Option<String>,
    end: Option<String>,
    receipt: Option<String>,
    phases: [Option<String>; PHASES.len()],
}

impl<'a> Poslog<'a> {
    pub(crate) fn new(document: &'a str, local: Offset) -> Self {
        Self {
            reader: Reader::from_str(document.trim_start_matches('\u{feff}')),
            local,
            depth: 0,
            text: String::new(),
            open: None,
            any_element: false,
            ended: false,
        }
    }

    /// The next retail transaction; none at the end of a whole document.
    fn read(&mut self) -> Result<Option<Took>, Wrong> {
        loop {
            match self.reader.read_event().or(Err(Wrong::Syntax))? {
                Event::Start(element) => self.enter(&element)?,
                Event::Empty(element) => {
                    self.enter(&element)?;
                    self.depth = self.depth.saturating_sub(1);
                }
                Event::End(element) => {
                    if let Some(open) = self.leave(element.local_name().as_ref()) {
                        return open.took(self.local).map(Some);
                    }
                }
                Event::Text(text) => self.append(&text.into_inner()),
                Event::CData(text) => self.append(&text.into_inner()),
                // No time holds an entity; what does is not recognized.
                Event::GeneralRef(_) => self.append("&"),
                Event::Eof if self.depth == 0 && self.any_element => return Ok(None),
                Event::Eof => return Err(Wrong::Syntax),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
    }

    fn enter(&mut self, element: &BytesStart<'_>) -> Result<(), Wrong> {
        if self.depth >= DEPTH_MAX {
            return Err(Wrong::Limit);
        }
        self.any_element = true;
        self.text.clear();
        let (name, is_true) = (element.local_name(), |key| attribute_is(element, key, &["true", "1"]));
        match (name.as_ref(), &mut self.open) {
            ("Transaction", None) => {
                self.open = Some(Open {
                    depth: self.depth,
                    is_void: is_true("CancelFlag") || is_true("TrainingModeFlag"),
                    ..Open::default()
                });
            }
            ("RetailTransaction", Some(open)) => {
                open.is_retail = true;
                open.is_void |= is_true("CancelFlag") || attribute_is(element, "TransactionStatus", &VOID);
            }
            _ => {}
        }
        self.depth = self.depth.saturating_add(1);
        Ok(())
    }

    /// The transaction when it counts and ends here.
    fn leave(&mut self, name: &str) -> Option<Open> {
        self.depth = self.depth.saturating_sub(1);
        let open = self.open.as_mut()?;
        if self.depth == open.depth {
            return self
                .open
                .take()
                .filter(|open| open.is_retail && !open.is_void && open.says_something());
        }
        let below = self.depth.saturating_sub(open.depth);
        let slot = match name {
            // Line items have such times, too.
            "BeginDateTime" if below == 1 => &mut open.begin,
            "EndDateTime" if below == 1 => &mut open.end,
            "ReceiptDateTime" if below == 2 => &mut open.receipt,
            _ => {
                let [ring, tender, idle] = &mut open.phases;
                match name {
                    "RingElapsedTime" => ring,
                    "TenderElapsedTime" => tender,
                    "IdleElapsedTime" => idle,
                    _ => return None,
                }
            }
        };
        *slot = Some(self.text.trim_ascii().to_owned());
        self.text.clear();
        None
    }

    /// A text that is too long is cut, and then no time.
    fn append(&mut self, text: &str) {
        let room = TEXT_BYTES_MAX.saturating_sub(self.text.len());
        if self.open.is_some() {
            self.text.extend(text.chars().take(room));
        }
    }
}

impl Iterator for Poslog<'_> {
    type Item = Result<Took, Wrong>;

    /// A transaction with a wrong time costs that transaction; wrong XML ends the document.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let took = self.read().transpose();
        self.ended = matches!(took, None | Some(Err(Wrong::Syntax | Wrong::Limit)));
        took
    }
}

impl Open {
    fn says_something(&self) -> bool {
        let has_whole = self.begin.is_some() && self.end.is_some();
        has_whole || self.phases.iter().any(Option::is_some)
    }

    fn took(&self, local: Offset) -> Result<Took, Wrong> {
        let time = |text: &Option<String>| text.as_ref().map(|text| time_ms(text, local)).transpose();
        let (begin_ms, end_ms) = (time(&self.begin)?, time(&self.end)?);
        let (mut phases_us, mut wrong) = ([None; PHASES.len()], None);
        for (us, text) in phases_us.iter_mut().zip(&self.phases) {
            match text.as_deref().filter(|text| !text.is_empty()).map(duration_us) {
                Some(Err(is_wrong)) => wrong = Some(is_wrong),
                read => *us = read.and_then(Result::ok),
            }
        }
        let whole_us = match (begin_ms, end_ms) {
            (Some(begin_ms), Some(end_ms)) => {
                let ms = i64::try_from(end_ms.checked_sub(begin_ms).ok_or(Wrong::Time)?).or(Err(Wrong::Time))?;
                Some(ms.saturating_mul(1000)).filter(|us| *us <= DURATION_US_MAX)
            }
            _ => None,
        };
        Ok(Took {
            end_ms: end_ms.or(time(&self.receipt)?).or(begin_ms).ok_or(Wrong::Missing)?,
            whole_us,
            phases_us,
            wrong,
        })
    }
}

fn attribute_is(element: &BytesStart<'_>, key: &str, values: &[&str]) -> bool {
    let mut attributes = element.attributes();
    // Looking for repeated attributes takes quadratic time.
    let mut known = attributes.with_checks(false).flatten();
    let found = known.find(|attribute| attribute.key.local_name().as_ref() == key);
    found.is_some_and(|attribute| {
        let value: &str = &attribute.value;
        // Vendors put a prefix before their own words.
        let word = value.rsplit(':').next().unwrap_or_default().trim_ascii();
        values.iter().any(|wanted| word.eq_ignore_ascii_case(wanted))
    })
}

/// `PT1M4.5S`, or plain seconds as some tills write them. Months and years have no length: Java writes none of them.
/// Source: ISO 8601, as XML Schema part 2, section 3.2.6 takes it.
pub(crate) fn duration_us(text: &str) -> Result<i64, Wrong> {
    let us = match text.strip_prefix('P') {
        None => Decimal::parse(text)?.units(6)?,
        Some("") => return Err(Wrong::Number),
        Some(parts) => {
            let (days, clock) = parts.split_once('T').unwrap_or((parts, ""));
            if parts.ends_with('T') {
                return Err(Wrong::Number);
            }
            let days_us = sum_us(days, &[('Y', 0), ('M', 0), ('W', 604_800), ('D', 86_400)])?;
            days_us.saturating_add(sum_us(clock, &[('H', 3_600), ('M', 60), ('S', 1)])?)
        }
    };
    if (0..=DURATION_US_MAX).contains(&us) {
        Ok(us)
    } else {
        Err(Wrong::Number)
    }
}

/// Numbers, each with its unit behind, in this order; of a unit without a length there must be none.
fn sum_us(mut parts: &str, units: &[(char, i64)]) -> Result<i64, Wrong> {
    let mut sum = 0_i64;
    for (unit, seconds) in units {
        if let Some((number, rest)) = parts.split_once(*unit) {
            let us = Decimal::parse(number)?.units(6)?;
            if *seconds == 0 && us != 0 {
                return Err(Wrong::Number);
            }
            sum = sum.saturating_add(us.saturating_mul(*seconds));
            parts = rest;
        }
    }
    if parts.is_empty() { Ok(sum) } else { Err(Wrong::Number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> Vec<Result<Took, Wrong>> {
        Poslog::new(document, Offset::default()).collect()
    }

    fn transaction(attributes: &str, times: &str, metrics: &str) -> String {
        format!(
            "<p:Transaction {attributes}>{times}<p:RetailTransaction><LineItem><EndDateTime>x</EndDateTime></LineItem>\
             <v:PerformanceMetrics>{metrics}</v:PerformanceMetrics></p:RetailTransaction></p:Transaction>"
        )
    }

    const END: &str = "<EndDateTime>2026-11-23T06:38:47Z</EndDateTime>";

    #[test]
    fn durations_are_those_of_iso_8601() {
        for (text, us) in [
            ("PT12S", 12_000_000),
            ("PT1M4.5S", 64_500_000),
            ("PT0.25S", 250_000),
            ("PT1H", 3_600_000_000),
            ("P0DT0H0M7S", 7_000_000),
            ("P0Y0M0DT0H0M12.000S", 12_000_000),
            ("P1D", 86_400_000_000),
            ("31.5", 31_500_000),
            ("0", 0),
        ] {
            assert_eq!(duration_us(text), Ok(us), "{text}");
        }
        for text in [
            "", "P", "PT", "P1M", "P1Y", "PT1S2M", "-PT1S", "PT-1S", "P2D", "1:04", "PT1", "\u{ff11}",
        ] {
            assert_eq!(duration_us(text), Err(Wrong::Number), "{text}");
        }
    }

    #[test]
    fn a_transaction_has_its_whole_time_and_its_phases() {
        let times = format!("<BeginDateTime>2026-11-23T07:37:30.500+01:00</BeginDateTime>{END}");
        let metrics = "<a:RingElapsedTime> PT40S </a:RingElapsedTime><TenderElapsedTime>PT20.25S</TenderElapsedTime>\
                       <IdleElapsedTime/>";
        let document = format!("<POSLog>{}</POSLog>", transaction("", &times, metrics));
        let expected = Took {
            end_ms: 1_795_415_927_000,
            whole_us: Some(76_500_000),
            phases_us: [Some(40_000_000), Some(20_250_000), None],
            wrong: None,
        };
        assert_eq!(read(&document), [Ok(expected)]);
    }

    #[test]
    fn what_was_no_sale_has_no_time() {
        let ring = "<RingElapsedTime>PT40S</RingElapsedTime>";
        for (attributes, count) in [
            ("", 1),
            ("CancelFlag=\"false\"", 1),
            ("CancelFlag=\"true\"", 0),
            ("TrainingModeFlag='1'", 0),
        ] {
            assert_eq!(read(&transaction(attributes, END, ring)).len(), count, "{attributes}");
        }
        for (attributes, count) in [
            ("TransactionStatus=\"Finished\"", 1),
            ("TransactionStatus=\"Suspended\"", 0),
            ("TransactionStatus=\"acs:Suspended\"", 0),
            ("TransactionStatus=\"SuspendedRetrieved\"", 0),
            ("TransactionStatus=\"InProcess\"", 0),
            ("TransactionStatus=\"PostVoided\"", 0),
            ("TransactionStatus=\"Aborted\"", 0),
            ("CancelFlag=\"true\"", 0),
        ] {
            let opened = format!("<p:RetailTransaction {attributes}>");
            let document = transaction("", END, ring).replace("<p:RetailTransaction>", &opened);
            assert_eq!(read(&document).len(), count, "{attributes}");
        }
        let control = transaction("", END, ring).replace("RetailTransaction", "ControlTransaction");
        assert!(read(&control).is_empty());
    }

    #[test]
    fn a_wrong_phase_costs_itself_a_wrong_time_its_transaction_and_wrong_xml_what_follows() {
        let metrics = "<RingElapsedTime>soon</RingElapsedTime><TenderElapsedTime>3</TenderElapsedTime>";
        let bad = transaction("", END, metrics);
        let backwards = transaction(
            "",
            &format!("<BeginDateTime>2026-11-24T00:00:00Z</BeginDateTime>{END}"),
            "",
        );
        let good = transaction("", END, "<RingElapsedTime>5</RingElapsedTime>");
        let read = read(&format!("<POSLog>{bad}{backwards}{good}</Wrong>{good}"));
        let kinds: Vec<_> = read
            .iter()
            .map(|took| {
                took.as_ref()
                    .map(|took| (took.phases_us, took.wrong))
                    .map_err(|wrong| *wrong)
            })
            .collect();
        assert_eq!(
            kinds,
            [
                Ok(([None, Some(3_000_000), None], Some(Wrong::Number))),
                Err(Wrong::Time),
                Ok(([Some(5_000_000), None, None], None)),
                Err(Wrong::Syntax)
            ]
        );
    }

    #[test]
    fn a_document_that_is_cut_or_deep_is_wrong() {
        assert_eq!(read("<POSLog><Transaction>"), [Err(Wrong::Syntax)]);
        assert_eq!(read(""), [Err(Wrong::Syntax)]);
        assert_eq!(read(&"<a>".repeat(65)), [Err(Wrong::Limit)]);
    }
}
