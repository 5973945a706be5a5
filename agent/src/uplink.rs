//! The way to the broker: MQTT 5, the only file that knows the client library.
//!
//! In: payloads with their topics, each with a token. Out: connected or not, what became of each token,
//! acknowledgements of the archives, settings from the center.
//! It keeps nothing, repeats nothing and decides no order: what was on its way when a connection ends is reported as
//! disconnected, and the owner starts again. It reconnects for ever, on real time, with full jitter.

mod messages;
mod address;
mod settings;
mod connector;
mod proxy;
mod certificates;
mod shards;
mod retry;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{
    AsyncClient, ConnAck, ConnectionError, Event, EventLoop, Incoming, IncomingPacketSizeLimit, LastWill,
    LastWillProperties, MqttOptions, PublishNotice, PublishNoticeError, PublishOptions, QoS, SubscribeFilterInput,
    TlsConfiguration, Transport,
};
use tillwatch_core::delivery::Refusal;
use tillwatch_feed::codec::encode_state;
use tillwatch_feed::message::State;
use tillwatch_feed::topic::{Leaf, PREFIX, Shard, topic};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::rate::Said;
pub use address::{BrokerAddress, ProxyAddress, ProxyKind, UrlError, parse_proxy, parse_url};
use certificates::{Certificates, LOOK_EVERY};
pub use connector::Traffic;
pub(crate) use connector::connect;
use messages::understand;
pub(crate) use messages::{FromUplink, Publish, ToUplink};
pub use proxy::{Proxy, ProxyLogin};
use retry::Retry;
pub use settings::UplinkSettings;
use shards::Shards;

/// Larger messages from the broker end the connection.
const INCOMING_BYTES_MAX: u32 = 256 << 10;
/// What a publish needs beside topic and payload: fixed head, packet id, properties' length.
const PACKET_OVERHEAD_BYTES: usize = 16;
/// Requests of our own beside the window: subscriptions, the state, and those of former shards.
const REQUESTS_EXTRA: usize = 16;
const EVENTS_MAX: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A clean stop waits no longer for the broker.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(3);

/// What an agent waits between its attempts to connect, one after the other; for whoever simulates a fleet of them.
pub fn retry_waits(settings: &UplinkSettings) -> impl Iterator<Item = Duration> + use<> {
    let mut retry = Retry::new(settings);
    std::iter::repeat_with(move || retry.next())
}

/// Starts the task; it ends when the sender of `ToUplink` is dropped, after saying goodbye to the broker.
pub(crate) fn start(
    settings: UplinkSettings,
    state: watch::Receiver<State>,
    requests: mpsc::Receiver<ToUplink>,
    reports: mpsc::Sender<FromUplink>,
) -> JoinHandle<()> {
    let uplink = Uplink {
        retry: Retry::new(&settings),
        certificates: Certificates::new(&settings.site, settings.tls.clone()),
        shards: Shards::open(&settings.site, settings.shard_file.as_deref(), &settings.shard),
        settings,
        state,
        requests,
        reports,
        birth_number: 0,
        ignored: Said::default(),
        refused: Said::default(),
    };
    tokio::spawn(uplink.run())
}

struct Uplink {
    settings: UplinkSettings,
    state: watch::Receiver<State>,
    requests: mpsc::Receiver<ToUplink>,
    reports: mpsc::Sender<FromUplink>,
    retry: Retry,
    certificates: Certificates,
    shards: Shards,
    birth_number: u64,
    ignored: Said,
    refused: Said,
}

/// Why a session ended.
enum Ended {
    /// The owner wants no more.
    Stopped,
    /// There are other certificates.
    Renewed,
    Lost(String),
}

impl Uplink {
    async fn run(mut self) {
        loop {
            let ended = self.session().await;
            if self.reports.send(FromUplink::Disconnected).await.is_err() {
                return;
            }
            let error = match ended {
                Ended::Stopped => return,
                Ended::Renewed => continue,
                Ended::Lost(error) => error,
            };
            let wait = self.retry.next();
            warn!(site = %self.settings.site, error, retry_ms = wait.as_millis(), "not connected to the broker");
            if !self.wait(wait).await {
                return;
            }
        }
    }

    /// False when the owner is gone. What it asks to be sent meanwhile is dropped: it was told of the disconnection.
    /// Certificates that were brought end the wait: they may be what was missing.
    async fn wait(&mut self, duration: Duration) -> bool {
        let end = tokio::time::sleep(duration);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return true,
                request = self.requests.recv() => if request.is_none() { return false },
                () = self.settings.renew.notified() => if self.look_at_certificates() { return true },
            }
        }
    }

    fn look_at_certificates(&mut self) -> bool {
        self.certificates.look(machine_now_ms())
    }

    /// One connection, from the attempt to its end.
    async fn session(&mut self) -> Ended {
        // Later than any number before, also after a restart, as long as the machine's time does not go back.
        self.birth_number = machine_now_ms().max(self.birth_number.saturating_add(1));
        self.look_at_certificates();
        let capacity = usize::from(self.settings.in_flight_max) + REQUESTS_EXTRA;
        let built = AsyncClient::builder(self.options()).capacity(capacity).try_build();
        let (client, event_loop) = match built {
            Ok(built) => built,
            Err(error) => return Ended::Lost(error.to_string()),
        };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let poller = tokio::spawn(poll(event_loop, sender));
        let session = Session {
            uplink: self,
            client,
            events,
            early: Vec::new(),
            early_ignored: 0,
            notices: JoinSet::new(),
            packet_bytes_max: None,
        };
        let ended = session.run().await;
        poller.abort();
        ended
    }

    fn options(&self) -> MqttOptions {
        let settings = &self.settings;
        let broker = (settings.broker.host.as_str(), settings.broker.port);
        let mut options = MqttOptions::new(settings.site.as_str(), broker);
        options
            .set_keep_alive(settings.keep_alive_s)
            .set_connect_timeout(CONNECT_TIMEOUT)
            .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(INCOMING_BYTES_MAX))
            // A will waits no longer than its session lasts. The next connection still begins a session of its own.
            .set_session_expiry_interval(Some(settings.will_delay_s))
            .set_outgoing_inflight_upper_limit(settings.in_flight_max)
            .set_last_will(self.will());
        if let (true, Some(tls)) = (settings.broker.is_secure, self.certificates.config()) {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        }
        let (broker, proxy) = (settings.broker.clone(), settings.proxy.clone());
        let traffic = Arc::clone(&settings.traffic);
        options.set_socket_connector(move |_host_and_port, _options| {
            let (broker, proxy, traffic) = (broker.clone(), proxy.clone(), Arc::clone(&traffic));
            async move { connect(&broker, proxy.as_ref(), traffic).await }
        });
        options
    }

    fn topic(&self, leaf: &Leaf) -> String {
        topic(&self.settings.shard, &self.settings.site, leaf)
    }

    fn state_payload(&self, online: bool) -> Vec<u8> {
        let state = State {
            online,
            birth_number: self.birth_number,
            ..self.state.borrow().clone()
        };
        encode_state(&state)
    }

    fn will(&self) -> LastWill {
        let properties = LastWillProperties {
            delay_interval: Some(self.settings.will_delay_s),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        let payload = self.state_payload(false);
        LastWill::new(
            self.topic(&Leaf::State),
            payload,
            QoS::AtLeastOnce,
            true,
            Some(properties),
        )
    }
}

/// What the library's event loop has to say; it is polled in a task of its own, since canceling a poll loses bytes.
enum Polled {
    Connected { packet_bytes_max: Option<u32> },
    Arrived { topic: String, payload: Vec<u8> },
    Failed(ConnectionError),
}

async fn poll(mut event_loop: EventLoop, events: mpsc::Sender<Polled>) {
    loop {
        let event = match event_loop.poll().await {
            Ok(Event::Incoming(incoming)) => to_polled(incoming),
            Ok(_) => None,
            Err(error) => {
                // Whoever listened is gone when this fails, and so is the reason to report it.
                events.send(Polled::Failed(error)).await.unwrap_or_default();
                return;
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

fn to_polled(incoming: Incoming) -> Option<Polled> {
    match incoming {
        Incoming::ConnAck(ConnAck { properties, .. }) => Some(Polled::Connected {
            packet_bytes_max: properties.and_then(|properties| properties.max_packet_size),
        }),
        Incoming::Publish(publish) => {
            let topic = String::from_utf8_lossy(&publish.topic).into_owned();
            Some(Polled::Arrived {
                topic,
                payload: publish.payload.to_vec(),
            })
        }
        _ => None,
    }
}

type Completion = (Sent, Result<(), PublishNoticeError>);

/// What the broker answers.
enum Sent {
    /// The owner's payload.
    Payload(u64),
    /// That nothing is retained there any more.
    Clearing(Shard),
}

struct Session<'a> {
    uplink: &'a mut Uplink,
    client: AsyncClient,
    events: mpsc::Receiver<Polled>,
    /// A broker may send what it retained before it confirms the subscription.
    early: Vec<(String, Vec<u8>)>,
    /// Found no room there.
    early_ignored: u64,
    notices: JoinSet<Completion>,
    packet_bytes_max: Option<u32>,
}

impl Session<'_> {
    async fn run(mut self) -> Ended {
        if let Err(ended) = self.connected().await {
            return ended;
        }
        if let Err(error) = self.subscribe().await {
            return Ended::Lost(error);
        }
        self.uplink.retry.connected();
        info!(site = %self.uplink.settings.site, "connected to the broker");
        if self.uplink.reports.send(FromUplink::Connected).await.is_err() {
            return Ended::Stopped;
        }
        for (topic, payload) in std::mem::take(&mut self.early) {
            if let Some(ended) = self.on_arrived(&topic, &payload).await {
                return ended;
            }
        }
        if self.early_ignored > 0 {
            let (messages, error) = (self.early_ignored, "too many came at once");
            warn!(site = %self.uplink.settings.site, error, messages, "ignored a message of the broker");
            if let Some(ended) = self.report(FromUplink::Ignored { messages }).await {
                return ended;
            }
        }
        let renew = Arc::clone(&self.uplink.settings.renew);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.reset();
        loop {
            let has_room = self.notices.len() < usize::from(self.uplink.settings.in_flight_max);
            let ended = tokio::select! {
                _ = look.tick() => self.renewed().await,
                () = renew.notified() => self.renewed().await,
                event = self.events.recv() => self.on_event(event).await,
                Some(done) = self.notices.join_next() => self.on_completion(done).await,
                request = self.uplink.requests.recv(), if has_room => match request {
                    Some(request) => self.on_request(request).await,
                    None => return self.goodbye().await,
                },
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Until the broker has answered. What the owner asks to be sent meanwhile is dropped: it was told that we are not
    /// connected.
    async fn connected(&mut self) -> Result<(), Ended> {
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Polled::Connected { packet_bytes_max }) => {
                        self.packet_bytes_max = packet_bytes_max;
                        return Ok(());
                    }
                    Some(Polled::Arrived { .. }) => {}
                    Some(Polled::Failed(error)) => return Err(Ended::Lost(describe(&error))),
                    None => return Err(Ended::Lost("the client stopped".to_owned())),
                },
                request = self.uplink.requests.recv() => if request.is_none() { return Err(Ended::Stopped) },
            }
        }
    }

    /// Acknowledgements and settings, then the retained state.
    async fn subscribe(&mut self) -> Result<(), String> {
        let settings = &self.uplink.settings;
        let acks = format!("{PREFIX}/{}/{}/ack/+", settings.shard, settings.site);
        // An acknowledgement says all that was said before, and is retained: one that is lost with its connection, or by
        // a broker without room, is made good by the next, and answering each would cost two packets a minute.
        let filters = [
            SubscribeFilterInput::new(acks, QoS::AtMostOnce),
            SubscribeFilterInput::new(self.uplink.topic(&Leaf::Cfg), QoS::AtLeastOnce),
        ];
        let notice = self
            .client
            .subscribe_many_tracked(filters)
            .await
            .map_err(|error| error.to_string())?;
        tokio::select! {
            answer = notice.wait_completion_async() => {
                answer.map_err(|error| format!("the broker refuses the subscription: {error}"))?;
            }
            error = failure(&mut self.events, &mut self.early, &mut self.early_ignored) => return Err(error),
        }
        self.publish_state(true)?;
        self.clear_former_shards()
    }

    /// Empty, and so retained no more. Until the broker has taken it, each connection tries again.
    fn clear_former_shards(&mut self) -> Result<(), String> {
        for shard in self.uplink.shards.former().to_vec() {
            let topic = topic(&shard, &self.uplink.settings.site, &Leaf::State);
            let options = PublishOptions::at_least_once().retained();
            let notice = self
                .client
                .try_publish_tracked(topic, Vec::new(), options)
                .map_err(|error| error.to_string())?;
            self.notices
                .spawn(async move { (Sent::Clearing(shard), notice.wait_completion_async().await) });
        }
        Ok(())
    }

    /// With other certificates a connection of its own begins; without the goodbye that tells everybody that we stop.
    async fn renewed(&mut self) -> Option<Ended> {
        if !self.uplink.look_at_certificates() {
            return None;
        }
        match tokio::time::timeout(GOODBYE_TIMEOUT, self.disconnect()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error, "no orderly end of the connection"),
            Err(_elapsed) => debug!("the broker did not end the connection"),
        }
        Some(Ended::Renewed)
    }

    fn publish_state(&mut self, online: bool) -> Result<PublishNotice, String> {
        let (topic, payload) = (self.uplink.topic(&Leaf::State), self.uplink.state_payload(online));
        let options = PublishOptions::at_least_once().retained();
        self.client
            .try_publish_tracked(topic, payload, options)
            .map_err(|error| error.to_string())
    }

    async fn on_event(&mut self, event: Option<Polled>) -> Option<Ended> {
        match event {
            Some(Polled::Arrived { topic, payload }) => self.on_arrived(&topic, &payload).await,
            Some(Polled::Connected { .. }) => None,
            Some(Polled::Failed(error)) => Some(Ended::Lost(describe(&error))),
            None => Some(Ended::Lost("the client stopped".to_owned())),
        }
    }

    async fn on_arrived(&mut self, topic: &str, payload: &[u8]) -> Option<Ended> {
        match understand(topic, payload) {
            Ok(report) => {
                if let FromUplink::Configured(config) = &report {
                    self.uplink.retry.announced(config);
                }
                self.report(report).await
            }
            Err(error) => {
                if let Some(messages) = self.uplink.ignored.count(machine_now_ms()) {
                    warn!(site = %self.uplink.settings.site, error, messages, "ignored a message of the broker");
                }
                self.report(FromUplink::Ignored { messages: 1 }).await
            }
        }
    }

    async fn on_completion(&mut self, done: Result<Completion, tokio::task::JoinError>) -> Option<Ended> {
        match done {
            Ok((Sent::Payload(token), Ok(()))) => self.report(FromUplink::Published { token }).await,
            Ok((Sent::Clearing(shard), Ok(()))) => {
                self.uplink.shards.cleared(&shard);
                info!(site = %self.uplink.settings.site, %shard, "the state under a former shard is cleared");
                None
            }
            Ok((Sent::Clearing(shard), Err(error))) => {
                warn!(site = %self.uplink.settings.site, %shard, %error, "the state under a former shard is not cleared");
                None
            }
            Ok((Sent::Payload(token), Err(PublishNoticeError::V5PubAck(reason)))) => {
                if let Some(payloads) = self.uplink.refused.count(machine_now_ms()) {
                    warn!(site = %self.uplink.settings.site, ?reason, payloads, "the broker refuses a payload");
                }
                self.report(FromUplink::Refused {
                    token,
                    refusal: Refusal::Denied,
                })
                .await
            }
            // The connection is about to end, and with it everything that was on its way.
            Ok((Sent::Payload(_), Err(error))) => {
                debug!(%error, "not confirmed");
                None
            }
            Err(error) => Some(Ended::Lost(error.to_string())),
        }
    }

    async fn on_request(&mut self, request: ToUplink) -> Option<Ended> {
        let publish = match request {
            ToUplink::Publish(publish) => publish,
            ToUplink::StateChanged => return self.publish_state(true).err().map(Ended::Lost),
        };
        let Publish { token, leaf, payload } = publish;
        let topic = self.uplink.topic(&leaf);
        let packet_bytes = payload.len() + topic.len() + PACKET_OVERHEAD_BYTES;
        if self.packet_bytes_max.is_some_and(|most| packet_bytes > most as usize) {
            return self
                .report(FromUplink::Refused {
                    token,
                    refusal: Refusal::TooLarge,
                })
                .await;
        }
        match self
            .client
            .try_publish_tracked(topic, payload, PublishOptions::at_least_once())
        {
            Ok(notice) => {
                self.notices
                    .spawn(async move { (Sent::Payload(token), notice.wait_completion_async().await) });
                None
            }
            Err(error) => Some(Ended::Lost(error.to_string())),
        }
    }

    async fn report(&mut self, report: FromUplink) -> Option<Ended> {
        let sent = self.uplink.reports.send(report).await;
        sent.is_err().then_some(Ended::Stopped)
    }

    /// Without the will.
    async fn disconnect(&mut self) -> Result<(), String> {
        self.client.disconnect().await.map_err(|error| error.to_string())?;
        // The poller ends with an error once the disconnect is out.
        failure(&mut self.events, &mut Vec::new(), &mut 0).await;
        Ok(())
    }

    /// Says that we stop, so that nobody waits for the will.
    async fn goodbye(mut self) -> Ended {
        let leave = async {
            match self.publish_state(false) {
                Ok(notice) => notice
                    .wait_completion_async()
                    .await
                    .map_err(|error| error.to_string())?,
                Err(error) => return Err(error),
            }
            self.disconnect().await
        };
        match tokio::time::timeout(GOODBYE_TIMEOUT, leave).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error, "no orderly goodbye to the broker"),
            Err(_) => debug!("the broker did not answer the goodbye"),
        }
        Ended::Stopped
    }
}

fn machine_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Resolves when the connection ends; what arrives until then is kept, up to its bound, and then counted.
async fn failure(
    events: &mut mpsc::Receiver<Polled>,
    arrived: &mut Vec<(String, Vec<u8>)>,
    ignored: &mut u64,
) -> String {
    loop {
        match events.recv().await {
            Some(Polled::Failed(error)) => return describe(&error),
            Some(Polled::Arrived { topic, payload }) if arrived.len() < EVENTS_MAX => arrived.push((topic, payload)),
            Some(Polled::Arrived { .. }) => *ignored += 1,
            Some(Polled::Connected { .. }) => {}
            None => return "the client stopped".to_owned(),
        }
    }
}

/// The error with its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of the connections lost the retained acknowledgement, and sent everything again.
    #[tokio::test]
    async fn what_arrives_before_the_subscription_is_confirmed_is_kept() {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX + 2);
        let (mut early, mut ignored) = (Vec::new(), 0);
        let arrived = ("tw1/a/s/ack/main".to_owned(), vec![1]);
        for _ in 0..EVENTS_MAX + 2 {
            let (topic, payload) = arrived.clone();
            sender.send(Polled::Arrived { topic, payload }).await.unwrap();
        }
        drop(sender);
        failure(&mut events, &mut early, &mut ignored).await;
        assert_eq!((early, ignored), (vec![arrived; EVENTS_MAX], 2));
    }

    #[test]
    fn the_session_lasts_as_long_as_the_will_is_delayed() {
        let settings = UplinkSettings::new(
            parse_url("mqtt://localhost:1883").unwrap(),
            None,
            "s".parse().unwrap(),
            "a".parse().unwrap(),
        );
        let (_requests, requests) = mpsc::channel(1);
        let (reports, _reports) = mpsc::channel(1);
        let uplink = Uplink {
            retry: Retry::new(&settings),
            certificates: Certificates::new(&settings.site, None),
            shards: Shards::open(&settings.site, None, &settings.shard),
            settings,
            state: watch::channel(State::default()).1,
            requests,
            reports,
            birth_number: 0,
            ignored: Said::default(),
            refused: Said::default(),
        };
        assert_eq!(
            uplink.options().session_expiry_interval(),
            Some(uplink.settings.will_delay_s)
        );
    }
}
