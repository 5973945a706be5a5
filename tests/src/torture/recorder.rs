//! Hears everything that is said over the broker, beside the fault proxies: the acknowledgements, and how often each record
//! came.
//!
//! In: the feed. Out: what was heard. It never publishes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tillwatch_feed::codec::{decode, decode_ack};
use tillwatch_feed::message::{Ack, Body, RecordId};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::{Leaf, SiteId, parse};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::pki::Identity;

/// Its name, and its rights.
pub const NAME: &str = "recorder";
pub const RIGHTS: &str = "\nuser recorder\ntopic read tw1/#\n";
const RETRY: Duration = Duration::from_millis(50);

/// What was heard of one site.
#[derive(Debug, Default)]
pub struct Heard {
    pub acks: Vec<Ack>,
    pub acked: BTreeMap<u64, RangeSet>,
    /// Messages with records.
    pub messages: u64,
    /// When each copy of a record came, by the machine's clock; births are sent with each connection, and left out.
    pub copies: BTreeMap<RecordId, Vec<u64>>,
}

impl Heard {
    /// Does an acknowledgement of this record stand?
    pub fn is_acked(&self, id: RecordId) -> bool {
        self.acked
            .get(&id.generation)
            .is_some_and(|acked| acked.contains(id.seq))
    }

    fn on_ack(&mut self, ack: Ack) {
        for claim in &ack.generations {
            let acked = self.acked.entry(claim.generation).or_default();
            acked.insert(1, claim.through_seq);
            claim
                .ranges
                .iter()
                .for_each(|(first, last)| acked.insert(*first, *last));
        }
        self.acks.push(ack);
    }

    fn on_message(&mut self, payload: &[u8]) {
        let Ok(message) = decode(payload) else { return };
        let (first, last) = (message.seq_first, message.seq_last);
        match message.body {
            Body::Birth(_) | Body::Gap(_) => {}
            Body::Block(_) | Body::Finding(_) => {
                for seq in first..=last {
                    let generation = message.generation;
                    self.copies
                        .entry(RecordId { generation, seq })
                        .or_default()
                        .push(now_ms());
                }
                self.messages += 1;
            }
        }
    }
}

/// Listens until it is dropped.
pub struct Recorder {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Listens at this port to what concerns `site`, and connects again whenever that ends.
    pub fn start(runtime: &Handle, port: u16, identity: Identity, site: &str) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (into, site) = (Arc::clone(&heard), site.to_owned());
        let task = runtime.spawn(async move {
            loop {
                if let Ok(mut client) = Client::connect(port, NAME, &identity).await
                    && client.subscribe("tw1/#").await.is_ok()
                {
                    while let Some((topic, payload)) = client.arrived.recv().await {
                        take(&mut lock(&into), &site, &topic, &payload);
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        });
        Self { heard, task }
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn take(heard: &mut Heard, site: &str, topic: &str, payload: &[u8]) {
    let is_ours = |id: &SiteId| id.as_str() == site;
    match parse(topic) {
        Ok((_, id, Leaf::Ack(_))) if is_ours(&id) => {
            if let Ok(ack) = decode_ack(payload) {
                heard.on_ack(ack);
            }
        }
        Ok((_, id, Leaf::Sum | Leaf::Evt)) if is_ours(&id) => heard.on_message(payload),
        _ => {}
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
