//! A store made of real files: an access log that rotates, POSLog documents dropped in a folder, a drop folder that fills.
//!
//! In: minutes of the story. Out: what a store server's disk looks like at that time.
//! The collectors read these files as they would a store's own.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::story::{Chain, MINUTE_MS, Minute, Request, Sale, Store, timestamp};

/// Rotated access logs that are kept, as logrotate does.
const ROTATIONS: usize = 5;

/// The files of one store.
pub struct RealStore {
    pub folder: PathBuf,
    store: Store,
    transactions: u64,
    waiting: Vec<PathBuf>,
    messages: u64,
}

impl RealStore {
    /// An empty store below `folder`.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn new(folder: &Path, store: &Store) -> Result<Self> {
        for name in ["pos", "mainframe"] {
            std::fs::create_dir_all(folder.join(name)).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            store: store.clone(),
            transactions: 0,
            waiting: Vec::new(),
            messages: 0,
        })
    }

    /// Writes what happened from `from_ms` until `until_ms`: a document an hour, an access log a week.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_history(&mut self, chain: &Chain, from_ms: u64, until_ms: u64) -> Result<()> {
        const HOUR_MINUTES: usize = 60;
        const WEEK_HOURS: usize = 7 * 24;
        let minutes: Vec<u64> = (from_ms..until_ms).step_by(60_000).collect();
        for (hour, starts) in minutes.chunks(HOUR_MINUTES).enumerate() {
            if hour > 0 && hour % WEEK_HOURS == 0 {
                self.rotate()?;
            }
            let happened: Vec<Minute> = starts
                .iter()
                .map(|start_ms| chain.minute(&self.store, *start_ms))
                .collect();
            let requests: Vec<&Request> = happened.iter().flat_map(|minute| &minute.requests).collect();
            self.log(&requests)?;
            let sales: Vec<&Sale> = happened.iter().flat_map(|minute| &minute.sales).collect();
            self.drop_document(&sales, starts[0] + MINUTE_MS)?;
        }
        Ok(())
    }

    /// Writes what happens from `from_ms` until `until_ms`, both within one minute.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_slice(&mut self, chain: &Chain, from_ms: u64, until_ms: u64) -> Result<()> {
        let start_ms = from_ms - from_ms % MINUTE_MS;
        let minute = chain.minute(&self.store, start_ms);
        let is_now = |time_ms: u64| (from_ms..until_ms).contains(&time_ms);
        self.log(
            &minute
                .requests
                .iter()
                .filter(|request| is_now(request.time_ms))
                .collect::<Vec<_>>(),
        )?;
        self.drop_document(
            &minute
                .sales
                .iter()
                .filter(|sale| is_now(sale.time_ms))
                .collect::<Vec<_>>(),
            until_ms,
        )?;
        let age_ms = minute.queue_oldest_age_s * 1000;
        self.set_queue(
            usize::try_from(minute.queue_depth)?,
            until_ms.saturating_sub(age_ms),
            until_ms,
        )
    }

    /// The store's id.
    pub fn id(&self) -> &str {
        &self.store.id
    }

    /// The same store, its files copied to `folder`.
    #[must_use]
    pub fn moved_to(&self, folder: &Path) -> Self {
        let moved = |path: &PathBuf| folder.join("mainframe").join(path.file_name().unwrap_or_default());
        Self {
            folder: folder.to_path_buf(),
            store: self.store.clone(),
            transactions: self.transactions,
            waiting: self.waiting.iter().map(moved).collect(),
            messages: self.messages,
        }
    }

    /// What logrotate does: access.log becomes access.log.1, and so on.
    ///
    /// # Errors
    /// When a file cannot be renamed.
    pub fn rotate(&self) -> Result<()> {
        let name = |number: usize| match number {
            0 => self.folder.join("access.log"),
            _ => self.folder.join(format!("access.log.{number}")),
        };
        for number in (0..ROTATIONS).rev() {
            if name(number).exists() {
                std::fs::rename(name(number), name(number + 1))?;
            }
        }
        File::create(name(0))?;
        Ok(())
    }

    /// The agent's settings for this store.
    pub fn agent_toml(&self, port: u16, pki: &crate::pki::Identity, plugin_dir: &Path) -> String {
        let folder = self.folder.display();
        format!(
            r#"site = "{site}"
time_zone = "Europe/Berlin"
state_dir = "{folder}/state"
plugin_dir = "{plugins}"

[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "{ca}"
certificate = "{certificate}"
key = "{key}"
reconnect_within = "1s"

[[plugin]]
name = "web"
use = "pos-latency"
[plugin.sources.access_log]
file = "{folder}/access.log"
[plugin.settings]
routes = [{{ exact = "/checkout", route = "/checkout" }}, {{ exact = "/loyalty", route = "/loyalty" }}]

[[plugin]]
name = "sales"
use = "sales"
[plugin.sources.transactions]
folder = "{folder}/pos"
pattern = "*.xml"
[plugin.settings]
currency = "EUR"

[[plugin]]
name = "mainframe"
use = "queue-depth"
[plugin.sources.folder]
folder = "{folder}/mainframe"
pattern = "*.msg"
[plugin.settings]
queue = "mainframe"
"#,
            site = self.store.id,
            plugins = plugin_dir.display(),
            ca = pki.ca.display(),
            certificate = pki.certificate.display(),
            key = pki.key.display(),
        )
    }

    fn log(&self, requests: &[&Request]) -> Result<()> {
        let mut text = String::new();
        for request in requests {
            let time = timestamp(request.time_ms).strftime("%d/%b/%Y:%H:%M:%S +0000");
            writeln!(
                text,
                "192.0.2.7 - - [{time}] \"POST {} HTTP/1.1\" 200 311 \"-\" \"till\" rt={:.3} uct=0.000 uht={1:.3} urt={1:.3}",
                request.route, request.seconds
            )?;
        }
        let path = self.folder.join("access.log");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(text.as_bytes())
            .with_context(|| format!("writing {}", path.display()))
    }

    /// As points of sale do it: written under another name, then renamed.
    fn drop_document(&mut self, sales: &[&Sale], now_ms: u64) -> Result<()> {
        if sales.is_empty() {
            return Ok(());
        }
        let mut text = String::from(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<POSLog xmlns=\"http://www.nrf-arts.org/IXRetail/namespace/\" MajorVersion=\"6\" MinorVersion=\"0\">",
        );
        for sale in sales {
            self.transactions += 1;
            push_transaction(&mut text, &self.store.id, self.transactions, sale)?;
        }
        text.push_str("</POSLog>\n");
        let path = self.folder.join("pos").join(format!("tlog-{now_ms}.xml"));
        let partial = path.with_extension("part");
        std::fs::write(&partial, text)?;
        std::fs::rename(&partial, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// Leaves `depth` messages in the drop folder; the oldest is from `oldest_ms`.
    fn set_queue(&mut self, depth: usize, oldest_ms: u64, now_ms: u64) -> Result<()> {
        while self.waiting.len() > depth {
            std::fs::remove_file(self.waiting.remove(0))?;
        }
        while self.waiting.len() < depth {
            self.messages += 1;
            let path = self.folder.join("mainframe").join(format!("{:08}.msg", self.messages));
            std::fs::write(&path, b"points")?;
            set_modified(&path, now_ms)?;
            self.waiting.push(path);
        }
        self.waiting
            .first()
            .map_or(Ok(()), |oldest| set_modified(oldest, oldest_ms))
    }
}

fn push_transaction(text: &mut String, store: &str, sequence: u64, sale: &Sale) -> Result<()> {
    let end = timestamp(sale.time_ms);
    let amount = format!("{}.{:02}", sale.amount_minor / 100, sale.amount_minor % 100);
    let tender = if sale.card { "CreditDebit" } else { "Cash" };
    write!(
        text,
        "<Transaction><RetailStoreID>{store}</RetailStoreID><WorkstationID>{lane}</WorkstationID><SequenceNumber>{sequence}</SequenceNumber><BusinessDayDate>{day}</BusinessDayDate><EndDateTime>{end}</EndDateTime><CurrencyCode>EUR</CurrencyCode><RetailTransaction>",
        lane = sale.lane,
        day = end.strftime("%Y-%m-%d"),
    )?;
    for line in 1..=sale.items {
        write!(
            text,
            "<LineItem><SequenceNumber>{line}</SequenceNumber><Sale ItemType=\"Stock\"><Quantity>1</Quantity></Sale></LineItem>"
        )?;
    }
    write!(
        text,
        "<LineItem><SequenceNumber>{line}</SequenceNumber><Tender TenderType=\"{tender}\" TypeCode=\"Sale\"><Amount>{amount}</Amount></Tender></LineItem><Total TotalType=\"TransactionGrandAmount\">{amount}</Total></RetailTransaction></Transaction>",
        line = sale.items + 1
    )?;
    Ok(())
}

fn set_modified(path: &Path, ms: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_modified(UNIX_EPOCH + Duration::from_millis(ms))
        .with_context(|| format!("dating {}", path.display()))
}
