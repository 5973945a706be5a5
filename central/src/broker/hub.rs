//! Who is connected, who reads what, what is retained, and whose will waits.
//!
//! In: publications of sessions. Out: the same into the queues of those who read them.
//! It never waits: what must be waited for is handed back to the session that publishes.

use super::BrokerCounters;
use super::rights::Identity;
use rumqttc::{Publish, QoS, RetainForwardRule, SubscribeFilter};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tillwatch_feed::topic::ArchiveId;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

/// Publications on their way to one reader; a store that publishes waits when this is full.
pub(super) const QUEUE_READER_MAX: usize = 256;
/// Publications on their way to one store; more are dropped.
pub(super) const QUEUE_STORE_MAX: usize = 64;
/// Filters of one session, and of one SUBSCRIBE.
pub(super) const FILTERS_MAX: usize = 32;
/// Retained messages of one site: state, cfg, and an ack for each archive.
pub(super) const RETAINED_PER_SITE_MAX: usize = 16;
/// Bytes of one retained message or will, as a packet: with its topic and properties.
pub(super) const RETAINED_BYTES_MAX: usize = 16 * 1024;

/// Shared by all sessions.
pub(super) struct Hub {
    pub(super) archives: Vec<ArchiveId>,
    pub(super) counters: BrokerCounters,
    /// Sites that may have something retained, and wills that may wait.
    sites_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<String, Entry>,
    /// Client ids of those that may read every store.
    readers: Vec<String>,
    /// By site, then topic.
    retained: HashMap<String, BTreeMap<String, Retained>>,
    wills: HashMap<String, WaitingWill>,
    numbers: u64,
}

struct WaitingWill {
    /// Of the session that left it.
    number: u64,
    publish: Publish,
    /// Publishes it when its time has come.
    task: AbortHandle,
}

struct Entry {
    number: u64,
    filters: Vec<SubscribeFilter>,
    queue: mpsc::Sender<Publish>,
    kick: Arc<Notify>,
    is_store: bool,
}

struct Retained {
    publish: Publish,
    at: Instant,
}

/// What a session gets when it is let in.
pub(super) struct Place {
    /// Tells this session from earlier ones of the same client.
    pub(super) number: u64,
    pub(super) queue: mpsc::Receiver<Publish>,
    /// Another connection of the same client, or an order to go.
    pub(super) kick: Arc<Notify>,
    /// The will of the session that ended with this one's clean start; to be published first.
    pub(super) will: Option<Publish>,
}

/// A reader whose queue must be waited for.
pub(super) struct Waiting {
    pub(super) client: String,
    pub(super) queue: mpsc::Sender<Publish>,
    pub(super) publish: Publish,
}

impl Hub {
    pub(super) fn new(archives: Vec<ArchiveId>, sites_max: usize) -> Self {
        Self {
            archives,
            counters: BrokerCounters::default(),
            sites_max,
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a client in; an older connection of it is told to go.
    pub(super) fn attach(&self, client: &str, identity: &Identity, is_clean: bool) -> Place {
        let is_store = matches!(identity, Identity::Store(_));
        let (queue_in, queue) = mpsc::channel(if is_store { QUEUE_STORE_MAX } else { QUEUE_READER_MAX });
        let kick = Arc::new(Notify::new());
        let mut inner = self.inner();
        inner.numbers += 1;
        let number = inner.numbers;
        let entry = Entry {
            number,
            filters: Vec::new(),
            queue: queue_in,
            kick: Arc::clone(&kick),
            is_store,
        };
        match inner.sessions.insert(client.to_owned(), entry) {
            Some(old) => old.kick.notify_one(),
            None if !is_store => inner.readers.push(client.to_owned()),
            None => {}
        }
        // A will waits for its session to end, and a clean start ends it; else it is forgotten. MQTT 5, section 3.1.3.2.2.
        let will = inner
            .wills
            .remove(client)
            .inspect(|will| will.task.abort())
            .filter(|_| is_clean)
            .map(|will| will.publish);
        Place {
            number,
            queue,
            kick,
            will,
        }
    }

    /// The session is over, unless a newer one of the same client has taken its place.
    pub(super) fn detach(&self, client: &str, number: u64) -> bool {
        let mut inner = self.inner();
        let is_ours = inner.sessions.get(client).is_some_and(|entry| entry.number == number);
        if is_ours {
            inner.sessions.remove(client);
            inner.readers.retain(|reader| reader != client);
        }
        is_ours
    }

    /// Keeps a will until `task` takes it with [`Hub::take_will`]; there is one of a client at most. Given back when there
    /// is no room.
    pub(super) fn keep_will(&self, client: &str, number: u64, publish: Publish, task: AbortHandle) -> Option<Publish> {
        let mut inner = self.inner();
        if inner.wills.len() >= self.sites_max && !inner.wills.contains_key(client) {
            BrokerCounters::count(&self.counters.wills_early);
            return Some(publish);
        }
        let will = WaitingWill { number, publish, task };
        if let Some(old) = inner.wills.insert(client.to_owned(), will) {
            old.task.abort();
        }
        None
    }

    /// The will, if the client has not come back.
    pub(super) fn take_will(&self, client: &str, number: u64) -> Option<Publish> {
        let mut inner = self.inner();
        let is_ours = inner.wills.get(client).is_some_and(|will| will.number == number);
        if is_ours {
            inner.wills.remove(client).map(|will| will.publish)
        } else {
            None
        }
    }

    /// Tells a client to go.
    pub(super) fn kick(&self, client: &str) {
        if let Some(entry) = self.inner().sessions.get(client) {
            entry.kick.notify_one();
        }
    }

    /// Subscribes; what is retained under the filter, when the subscription asks for it. `None` when there is no room.
    pub(super) fn subscribe(&self, client: &str, number: u64, filter: SubscribeFilter) -> Option<Vec<Publish>> {
        let mut inner = self.inner();
        let entry = inner.sessions.get_mut(client).filter(|entry| entry.number == number)?;
        let known = entry.filters.iter().position(|known| known.path == filter.path);
        if let Some(at) = known {
            entry.filters.remove(at);
        }
        if entry.filters.len() >= FILTERS_MAX {
            return None;
        }
        entry.filters.push(filter.clone());
        let is_wanted = match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => known.is_none(),
            RetainForwardRule::Never => false,
        };
        Some(if is_wanted {
            inner.retained_under(&filter)
        } else {
            Vec::new()
        })
    }

    pub(super) fn unsubscribe(&self, client: &str, number: u64, path: &str) -> bool {
        let mut inner = self.inner();
        let Some(entry) = inner.sessions.get_mut(client).filter(|entry| entry.number == number) else {
            return false;
        };
        let before = entry.filters.len();
        entry.filters.retain(|filter| filter.path != path);
        entry.filters.len() < before
    }

    /// Hands a publication to everybody who reads it; the readers that the caller must wait for are returned.
    pub(super) fn publish(&self, topic: &str, publish: &Publish) -> Vec<Waiting> {
        BrokerCounters::count(&self.counters.publications);
        let mut inner = self.inner();
        if publish.retain && !inner.retain(topic, publish, self.sites_max) {
            BrokerCounters::count(&self.counters.retained_refused);
        }
        let store = site_of(topic)
            .and_then(|site| inner.sessions.get_key_value(site))
            .filter(|(_, e)| e.is_store);
        let readers = inner
            .readers
            .iter()
            .filter_map(|reader| inner.sessions.get_key_value(reader));
        let mut waiting = Vec::new();
        for (client, entry) in readers.chain(store) {
            let Some(publish) = entry.wants(topic, publish) else {
                continue;
            };
            if !entry.is_store {
                waiting.push(Waiting {
                    client: client.clone(),
                    queue: entry.queue.clone(),
                    publish,
                });
            } else if entry.queue.try_send(publish).is_err() {
                BrokerCounters::count(&self.counters.publications_dropped);
            }
        }
        waiting
    }
}

impl Entry {
    /// The publication as this session gets it; `None` when it has not subscribed to it.
    fn wants(&self, topic: &str, publish: &Publish) -> Option<Publish> {
        let matching = self.filters.iter().filter(|filter| is_match(&filter.path, topic));
        let filter = matching.max_by_key(|filter| filter.qos as u8)?;
        let mut publish = addressed(publish, filter);
        publish.retain = publish.retain && filter.preserve_retain;
        Some(publish)
    }
}

impl Inner {
    /// Keeps the last message of a topic, or with an empty payload forgets it; false when there is no room.
    fn retain(&mut self, topic: &str, publish: &Publish, sites_max: usize) -> bool {
        let Some(site) = site_of(topic) else { return false };
        if publish.payload.is_empty() {
            if let Some(topics) = self.retained.get_mut(site) {
                topics.remove(topic);
                if topics.is_empty() {
                    self.retained.remove(site);
                }
            }
            return true;
        }
        let has_room = self.retained.contains_key(site) || self.retained.len() < sites_max;
        if !has_room || publish.size() > RETAINED_BYTES_MAX {
            return false;
        }
        let topics = self.retained.entry(site.to_owned()).or_default();
        if topics.len() >= RETAINED_PER_SITE_MAX && !topics.contains_key(topic) {
            return false;
        }
        topics.insert(
            topic.to_owned(),
            Retained {
                publish: publish.clone(),
                at: Instant::now(),
            },
        );
        true
    }

    fn retained_under(&self, filter: &SubscribeFilter) -> Vec<Publish> {
        let named = site_of(&filter.path).filter(|site| *site != "+");
        let sites: &mut dyn Iterator<Item = _> = match named {
            Some(site) => &mut self.retained.get(site).into_iter(),
            None => &mut self.retained.values(),
        };
        let topics = sites.flatten().filter(|(topic, _)| is_match(&filter.path, topic));
        topics.filter_map(|(_, retained)| retained.now(filter)).collect()
    }
}

impl Retained {
    /// As it is sent now, unless it has expired.
    fn now(&self, filter: &SubscribeFilter) -> Option<Publish> {
        let mut publish = addressed(&self.publish, filter);
        publish.retain = true;
        if let Some(properties) = publish.properties.as_mut()
            && let Some(seconds) = properties.message_expiry_interval
        {
            let left = Duration::from_secs(u64::from(seconds)).checked_sub(self.at.elapsed())?;
            properties.message_expiry_interval = u32::try_from(left.as_secs()).ok();
        }
        Some(publish)
    }
}

fn addressed(publish: &Publish, filter: &SubscribeFilter) -> Publish {
    let mut publish = publish.clone();
    publish.dup = false;
    publish.pkid = 0;
    if filter.qos == QoS::AtMostOnce {
        publish.qos = QoS::AtMostOnce;
    }
    publish
}

/// The third level of a topic of the feed.
fn site_of(topic: &str) -> Option<&str> {
    topic.split('/').nth(2)
}

/// Filters here have `+` only; the rights allow no `#`.
fn is_match(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == "+" || wanted == found => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::PublishProperties;

    #[test]
    fn a_plus_stands_for_one_level() {
        assert!(is_match("tw1/+/+/sum", "tw1/a/store-1/sum"));
        assert!(!is_match("tw1/+/+/sum", "tw1/a/store-1/evt"));
        assert!(!is_match("tw1/+/+", "tw1/a/store-1/sum"));
        assert!(!is_match("tw1/a/store-1/ack/+", "tw1/a/store-1/ack"));
        assert!(is_match("tw1/a/store-1/ack/+", "tw1/a/store-1/ack/main"));
    }

    fn retained(topic: &str, bytes: usize) -> Publish {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, vec![1; bytes], None);
        publish.retain = true;
        publish
    }

    #[test]
    fn what_is_retained_is_bounded_by_site_and_size() {
        let mut inner = Inner::default();
        for number in 0..RETAINED_PER_SITE_MAX {
            let topic = format!("tw1/s{number}/store-1/state");
            assert!(inner.retain(&topic, &retained(&topic, 1), 1));
        }
        let one_more = "tw1/x/store-1/state";
        assert!(!inner.retain(one_more, &retained(one_more, 1), 1));
        let other_site = "tw1/a/store-2/state";
        assert!(!inner.retain(other_site, &retained(other_site, 1), 1));
        assert!(!inner.retain(other_site, &retained(other_site, RETAINED_BYTES_MAX + 1), 2));
        assert!(inner.retain("tw1/s0/store-1/state", &retained("tw1/s0/store-1/state", 0), 1));
        assert!(inner.retain(one_more, &retained(one_more, 1), 1));
    }

    #[test]
    fn what_is_retained_is_measured_with_its_properties() {
        let mut inner = Inner::default();
        let topic = "tw1/a/store-1/state";
        let mut heavy = retained(topic, 1);
        heavy.properties = Some(PublishProperties {
            user_properties: vec![("k".into(), "v".repeat(RETAINED_BYTES_MAX))],
            ..PublishProperties::default()
        });
        assert!(!inner.retain(topic, &heavy, 1));
    }

    #[test]
    fn a_site_with_nothing_retained_takes_no_place() {
        let mut inner = Inner::default();
        for site in ["store-1", "store-2"] {
            let topic = format!("tw1/a/{site}/state");
            assert!(inner.retain(&topic, &retained(&topic, 1), 1));
            assert!(inner.retain(&topic, &retained(&topic, 0), 1));
        }
    }

    #[test]
    fn a_filter_finds_what_is_retained_at_its_site_and_at_all() {
        let mut inner = Inner::default();
        for site in ["store-1", "store-2"] {
            let topic = format!("tw1/a/{site}/cmd");
            assert!(inner.retain(&topic, &retained(&topic, 1), 2));
        }
        let found = |path: &str| {
            inner
                .retained_under(&SubscribeFilter::new(path, QoS::AtLeastOnce))
                .len()
        };
        assert_eq!(found("tw1/a/store-1/cmd"), 1);
        assert_eq!(found("tw1/a/store-3/cmd"), 0);
        assert_eq!(found("tw1/+/+/cmd"), 2);
    }
}
