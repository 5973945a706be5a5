//! One connection, from CONNECT to its end, in one task.
//!
//! In: packets of the peer, publications from the hub. Out: the same the other way round.
//! It never trusts a client id that the certificate does not say, and never reads faster than others take.

use super::BrokerCounters;
use super::hub::{FILTERS_MAX, Hub, Place, RETAINED_BYTES_MAX, Waiting};
use super::rights::Identity;
use super::wire::{Reader, WireError, Writer, split};
use crate::intake::PACKET_BYTES_MAX;
use rumqttc::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode, LastWill, Packet, PubAck,
    PubAckReason, Publish, PublishProperties, QoS, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, UnsubAckReason,
    Unsubscribe,
};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tillwatch_feed::codec::PAYLOAD_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

/// CONNECT must come within this time.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A session without connection lives on for so long at most; it keeps nothing but its will, which waits no longer.
const SESSION_S_MAX: u32 = 300;
/// Keep-alive of clients that ask for none, or for longer.
const KEEP_ALIVE_S_MAX: u16 = 300;
/// Publications to one client without a PUBACK.
const IN_FLIGHT_MAX: u16 = 256;
/// What a client may send without a PUBACK; one is handled at a time.
const RECEIVE_MAX: u16 = 64;
/// With this much unwritten no more publications are taken for a client.
const UNWRITTEN_SOFT_MAX: usize = 256 * 1024;
/// With this much unwritten nothing more is read from it either.
const UNWRITTEN_HARD_MAX: usize = 1024 * 1024;
/// A reader that takes nothing for so long is disconnected, so that the stores can go on.
const SLOW_READER_MAX: Duration = Duration::from_secs(30);
/// Central's name among the clients.
const CENTRAL: &str = "*";
/// Publications written in one go.
const BURST_MAX: usize = 64;

/// What is known of the other end before it says anything.
pub(super) enum Peer {
    /// By the common name of its certificate.
    Certified(String),
    /// On loopback, without TLS: the client id is believed.
    Claimed,
    /// This process.
    Central,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// DISCONNECT without a wish for the will.
    Polite,
    Abrupt,
    /// By another connection of the same client, or because it was too slow.
    Kicked,
}

struct Will {
    publish: Publish,
    delay: Duration,
}

struct Session<S> {
    hub: Arc<Hub>,
    client: String,
    identity: Identity,
    place: Place,
    writer: Writer<S>,
    /// Packet ids of publications without a PUBACK.
    in_flight: HashSet<u16>,
    in_flight_max: usize,
    /// The largest packet that the peer takes. Source: MQTT 5, section 3.1.2.11.4.
    packet_bytes_max: usize,
    next_id: u16,
    /// Retained messages that a subscription asked for.
    backlog: VecDeque<Publish>,
}

/// Serves a connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send>(stream: S, peer: Peer, hub: Arc<Hub>) {
    let (mut reader, mut writer) = split(stream);
    let first = timeout(CONNECT_MAX, reader.packet()).await;
    let Ok(Ok(Packet::Connect(connect, will, _))) = first else {
        return BrokerCounters::count(&hub.counters.connections_refused);
    };
    let admitted = admit(&hub, &peer, &connect, will);
    let (identity, will) = match admitted {
        Ok(admitted) => admitted,
        Err(code) => {
            BrokerCounters::count(&hub.counters.connections_refused);
            warn!(
                client = connect.client_id.escape_debug().to_string(),
                ?code,
                "connection refused"
            );
            let refusal = Packet::ConnAck(ConnAck {
                session_present: false,
                code,
                properties: None,
            });
            if writer.put(&refusal).is_ok() {
                drop(timeout(CONNECT_MAX, writer.drain()).await); // it is refused, heard or not
            }
            return;
        }
    };
    BrokerCounters::count(&hub.counters.connections);
    // No client can have this name, so nobody takes central's place.
    let client = if identity == Identity::Central {
        CENTRAL.to_owned()
    } else {
        connect.client_id.clone()
    };
    let place = hub.attach(&client, &identity, connect.clean_start);
    let number = place.number;
    info!(%identity, "connected");
    if let Some(old) = &place.will {
        forward(&hub, old).await;
    }
    let asked = connect.properties.as_ref();
    let receive_max = asked.and_then(|p| p.receive_maximum).unwrap_or(u16::MAX);
    let packet_bytes_max = asked.and_then(|p| p.max_packet_size).unwrap_or(u32::MAX);
    let mut session = Session {
        hub: Arc::clone(&hub),
        client: client.clone(),
        identity,
        place,
        writer,
        in_flight: HashSet::new(),
        in_flight_max: usize::from(receive_max.min(IN_FLIGHT_MAX)),
        packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
        next_id: 0,
        backlog: VecDeque::new(),
    };
    let keep_alive_s = match connect.keep_alive {
        0 => KEEP_ALIVE_S_MAX,
        asked => asked.min(KEEP_ALIVE_S_MAX),
    };
    let session_s = asked.and_then(|p| p.session_expiry_interval).unwrap_or(0);
    let end = session
        .run(&mut reader, keep_alive_s, session_s)
        .await
        .unwrap_or_else(|error| {
            debug!(identity = %session.identity, %error, "connection broke");
            End::Abrupt
        });
    info!(identity = %session.identity, ?end, "disconnected");
    let is_last = hub.detach(&client, number);
    if let Some(will) = will
        && end != End::Polite
    {
        leave(&hub, client, number, will, is_last).await;
    }
}

/// Who it is, and the will it leaves; or why it is not let in.
fn admit(
    hub: &Hub,
    peer: &Peer,
    connect: &Connect,
    will: Option<LastWill>,
) -> Result<(Identity, Option<Will>), ConnectReturnCode> {
    let name = match peer {
        Peer::Certified(name) if *name != connect.client_id => return Err(ConnectReturnCode::ClientIdentifierNotValid),
        Peer::Certified(name) => name,
        Peer::Claimed | Peer::Central => &connect.client_id,
    };
    let archive = hub.archives.iter().find(|archive| archive.as_str() == name);
    let identity = match (peer, archive) {
        (Peer::Central, _) => Identity::Central,
        (_, Some(archive)) => Identity::Archive(archive.clone()),
        (_, None) => Identity::Store(
            name.parse()
                .map_err(|_invalid| ConnectReturnCode::ClientIdentifierNotValid)?,
        ),
    };
    let session_expiry_s = connect
        .properties
        .as_ref()
        .and_then(|p| p.session_expiry_interval)
        .unwrap_or(0);
    let will = will.map(|will| read_will(will, session_expiry_s));
    match &will {
        Some(will) if will.publish.size() > RETAINED_BYTES_MAX => Err(ConnectReturnCode::PacketTooLarge),
        Some(will) if refusal(&identity, &will.publish).is_some() => Err(ConnectReturnCode::NotAuthorized),
        _ => Ok((identity, will)),
    }
}

/// A will waits for its delay, but no longer than the session would have lived. Source: MQTT 5, section 3.1.3.2.2.
fn read_will(will: LastWill, session_expiry_s: u32) -> Will {
    let delay_s = will
        .properties
        .as_ref()
        .and_then(|p| p.delay_interval)
        .unwrap_or(0)
        .min(session_expiry_s)
        .min(SESSION_S_MAX);
    let properties = will.properties.map(|properties| PublishProperties {
        payload_format_indicator: properties.payload_format_indicator,
        message_expiry_interval: properties.message_expiry_interval,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        user_properties: properties.user_properties,
        content_type: properties.content_type,
        ..PublishProperties::default()
    });
    let publish = Publish {
        dup: false,
        qos: will.qos,
        retain: will.retain,
        topic: will.topic,
        pkid: 0,
        payload: will.message,
        properties,
    };
    Will {
        publish,
        delay: Duration::from_secs(u64::from(delay_s)),
    }
}

/// Why a publication is not taken.
fn refusal(identity: &Identity, publish: &Publish) -> Option<PubAckReason> {
    let topic = std::str::from_utf8(&publish.topic);
    if publish.qos == QoS::ExactlyOnce || !topic.is_ok_and(|topic| identity.may_publish(topic)) {
        return Some(PubAckReason::NotAuthorized);
    }
    (publish.payload.len() > PAYLOAD_BYTES_MAX).then_some(PubAckReason::QuotaExceeded)
}

/// Publishes the will now or after its delay; not at all when the same session goes on elsewhere.
async fn leave(hub: &Arc<Hub>, client: String, number: u64, will: Will, is_last: bool) {
    if will.delay.is_zero() {
        return forward(hub, &will.publish).await;
    }
    if !is_last {
        return;
    }
    let (later, name) = (Arc::clone(hub), client.clone());
    let task = tokio::spawn(async move {
        tokio::time::sleep(will.delay).await;
        if let Some(publish) = later.take_will(&name, number) {
            forward(&later, &publish).await;
        }
    });
    if let Some(publish) = hub.keep_will(&client, number, will.publish, task.abort_handle()) {
        task.abort();
        forward(hub, &publish).await;
    }
}

/// Publishes, and waits for readers whose queue is full, up to a limit.
async fn forward(hub: &Hub, publish: &Publish) {
    let Ok(topic) = std::str::from_utf8(&publish.topic) else {
        return;
    };
    for Waiting { client, queue, publish } in hub.publish(topic, publish) {
        if timeout(SLOW_READER_MAX, queue.send(publish)).await.is_err() {
            BrokerCounters::count(&hub.counters.slow_readers);
            warn!(client, "reader takes nothing, disconnected");
            hub.kick(&client);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send> Session<S> {
    async fn run(&mut self, reader: &mut Reader<S>, keep_alive_s: u16, session_s: u32) -> Result<End, WireError> {
        self.writer.put(&Packet::ConnAck(welcome(keep_alive_s, session_s)))?;
        // One and a half times the keep-alive. Source: MQTT 5, section 3.1.2.10.
        let patience = Duration::from_millis(u64::from(keep_alive_s) * 1_500);
        let mut deadline = Instant::now() + patience;
        loop {
            let unwritten = self.writer.bytes_waiting();
            let has_window = self.in_flight.len() < self.in_flight_max && unwritten < UNWRITTEN_SOFT_MAX;
            tokio::select! {
                packet = reader.packet(), if unwritten < UNWRITTEN_HARD_MAX => {
                    if let Some(end) = self.handle(packet).await? {
                        return Ok(end);
                    }
                    deadline = Instant::now() + patience;
                }
                publish = self.place.queue.recv(), if has_window && self.backlog.is_empty() => {
                    if let Some(publish) = publish {
                        self.send(publish)?;
                        self.send_more()?;
                    }
                }
                drained = self.writer.drain(), if !self.writer.is_idle() => drained?,
                () = tokio::time::sleep_until(deadline) => return self.dismiss(DisconnectReasonCode::KeepAliveTimeout, End::Abrupt).await,
                () = self.place.kick.notified() => return self.dismiss(DisconnectReasonCode::SessionTakenOver, End::Kicked).await,
            }
            self.send_backlog()?;
        }
    }

    /// One packet; the end of the session when it was the last one.
    async fn handle(&mut self, packet: Result<Packet, WireError>) -> Result<Option<End>, WireError> {
        let packet = match packet {
            Ok(packet) => packet,
            Err(error @ (WireError::Malformed(_) | WireError::TooLarge)) => {
                warn!(identity = %self.identity, %error, "connection ended");
                let reason = match error {
                    WireError::TooLarge => DisconnectReasonCode::PacketTooLarge,
                    _ => DisconnectReasonCode::MalformedPacket,
                };
                return self.dismiss(reason, End::Abrupt).await.map(Some);
            }
            Err(error) => return Err(error),
        };
        match packet {
            Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                return self
                    .dismiss(DisconnectReasonCode::QoSNotSupported, End::Abrupt)
                    .await
                    .map(Some);
            }
            Packet::Publish(publish) => self.take(publish).await?,
            Packet::PubAck(ack) => {
                self.in_flight.remove(&ack.pkid);
            }
            Packet::Subscribe(subscribe) => self.subscribe(subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe)?,
            Packet::PingReq => self.writer.put(&Packet::PingResp)?,
            Packet::Disconnect(disconnect) => {
                let wants_will = disconnect.reason_code == DisconnectReasonCode::DisconnectWithWillMessage;
                return Ok(Some(if wants_will { End::Abrupt } else { End::Polite }));
            }
            _ => {
                return self
                    .dismiss(DisconnectReasonCode::ProtocolError, End::Abrupt)
                    .await
                    .map(Some);
            }
        }
        Ok(None)
    }

    async fn take(&mut self, mut publish: Publish) -> Result<(), WireError> {
        let (id, qos) = (publish.pkid, publish.qos);
        let reason = if let Some(reason) = refusal(&self.identity, &publish) {
            BrokerCounters::count(&self.hub.counters.publications_refused);
            let topic = String::from_utf8_lossy(&publish.topic)
                .escape_debug()
                .take(200)
                .collect::<String>();
            warn!(identity = %self.identity, topic, ?reason, "publication refused");
            reason
        } else {
            if let Some(properties) = publish.properties.as_mut() {
                properties.topic_alias = None;
                properties.subscription_identifiers.clear();
            }
            forward(&self.hub, &publish).await;
            PubAckReason::Success
        };
        if qos == QoS::AtLeastOnce {
            self.writer.put(&Packet::PubAck(PubAck {
                pkid: id,
                reason,
                properties: None,
            }))?;
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), WireError> {
        let mut return_codes = Vec::with_capacity(subscribe.filters.len());
        let mut retained = Vec::new();
        for (number, mut filter) in subscribe.filters.into_iter().enumerate() {
            if number >= FILTERS_MAX {
                BrokerCounters::count(&self.hub.counters.subscriptions_refused);
                return_codes.push(SubscribeReasonCode::QuotaExceeded);
                continue;
            }
            if !self.identity.may_subscribe(&filter.path) {
                BrokerCounters::count(&self.hub.counters.subscriptions_refused);
                let path = filter.path.escape_debug().take(200).collect::<String>();
                warn!(identity = %self.identity, path, "subscription refused");
                return_codes.push(SubscribeReasonCode::NotAuthorized);
                continue;
            }
            if filter.qos == QoS::ExactlyOnce {
                filter.qos = QoS::AtLeastOnce;
            }
            let qos = filter.qos;
            match self.hub.subscribe(&self.client, self.place.number, filter) {
                Some(found) => {
                    retained.extend(found);
                    return_codes.push(SubscribeReasonCode::Success(qos));
                }
                None => return_codes.push(SubscribeReasonCode::QuotaExceeded),
            }
        }
        self.writer.put(&Packet::SubAck(SubAck {
            pkid: subscribe.pkid,
            return_codes,
            properties: None,
        }))?;
        // Asking again replaces what was still to be sent, so that the backlog is bounded by what is retained.
        let mut topics = HashSet::new();
        retained.retain(|publish| topics.insert(publish.topic.clone()));
        self.backlog.retain(|waiting| !topics.contains(&waiting.topic));
        self.backlog.extend(retained);
        Ok(())
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) -> Result<(), WireError> {
        let reasons =
            unsubscribe.filters.iter().map(
                |path| match self.hub.unsubscribe(&self.client, self.place.number, path) {
                    true => UnsubAckReason::Success,
                    false => UnsubAckReason::NoSubscriptionExisted,
                },
            );
        let answer = UnsubAck {
            pkid: unsubscribe.pkid,
            reasons: reasons.collect(),
            properties: None,
        };
        self.writer.put(&Packet::UnsubAck(answer))
    }

    fn has_window(&self) -> bool {
        self.in_flight.len() < self.in_flight_max && self.writer.bytes_waiting() < UNWRITTEN_SOFT_MAX
    }

    fn send_backlog(&mut self) -> Result<(), WireError> {
        while self.has_window() {
            let Some(publish) = self.backlog.pop_front() else {
                return Ok(());
            };
            self.send(publish)?;
        }
        Ok(())
    }

    /// What waits already, so that a burst becomes few writes.
    fn send_more(&mut self) -> Result<(), WireError> {
        for _ in 1..BURST_MAX {
            if !self.has_window() {
                return Ok(());
            }
            let Ok(publish) = self.place.queue.try_recv() else {
                return Ok(());
            };
            self.send(publish)?;
        }
        Ok(())
    }

    /// Sends, or leaves out what is larger than the peer takes.
    fn send(&mut self, mut publish: Publish) -> Result<(), WireError> {
        if publish.qos == QoS::AtLeastOnce {
            publish.pkid = self.free_id();
        }
        if publish.size() > self.packet_bytes_max {
            BrokerCounters::count(&self.hub.counters.publications_too_large);
            warn!(identity = %self.identity, bytes = publish.size(), "publication larger than its reader takes, left out");
            return Ok(());
        }
        if publish.qos == QoS::AtLeastOnce {
            self.in_flight.insert(publish.pkid);
        }
        self.writer.put(&Packet::Publish(publish))
    }

    /// There is always a free one, since far fewer than 65,535 are in flight.
    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains(&self.next_id) {
                return self.next_id;
            }
        }
    }

    /// Says why, if the other end still listens.
    async fn dismiss(&mut self, reason: DisconnectReasonCode, end: End) -> Result<End, WireError> {
        self.writer.put(&Packet::Disconnect(Disconnect::new(reason)))?;
        drop(timeout(Duration::from_secs(1), self.writer.drain()).await); // it is dismissed, heard or not
        Ok(end)
    }
}

/// What this broker can do, and how long it keeps a session that wished to live for `session_s`.
fn welcome(keep_alive_s: u16, session_s: u32) -> ConnAck {
    let properties = ConnAckProperties {
        session_expiry_interval: (session_s > SESSION_S_MAX).then_some(SESSION_S_MAX),
        receive_max: Some(RECEIVE_MAX),
        max_qos: Some(1),
        retain_available: Some(1),
        max_packet_size: u32::try_from(PACKET_BYTES_MAX).ok(),
        assigned_client_identifier: None,
        topic_alias_max: Some(0),
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: Some(1),
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        server_keep_alive: Some(keep_alive_s),
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(properties),
    }
}

#[cfg(test)]
mod tests {
    use super::super::hub::{QUEUE_READER_MAX, QUEUE_STORE_MAX};
    use super::super::seat;
    use super::*;
    use rumqttc::{ConnectAuth, ConnectProperties, LastWillProperties, SubscribeFilter};
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::io::DuplexStream;
    use tokio::sync::Semaphore;

    /// The other end of a session, packet by packet.
    struct Client {
        reader: Reader<DuplexStream>,
        writer: Writer<DuplexStream>,
    }

    /// What a client says of itself when it connects.
    struct Hello {
        client: &'static str,
        keep_alive_s: u16,
        clean_start: bool,
        properties: ConnectProperties,
        will: Option<LastWill>,
    }

    fn hello(client: &'static str) -> Hello {
        Hello {
            client,
            keep_alive_s: 10,
            clean_start: true,
            properties: ConnectProperties::new(),
            will: None,
        }
    }

    impl Client {
        /// Connected and let in.
        async fn connect(hub: &Arc<Hub>, hello: Hello) -> Self {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            tokio::spawn(serve(theirs, Peer::Claimed, Arc::clone(hub)));
            Self::over(ours, hello).await
        }

        /// Connected over a stream whose other end is served, and let in.
        async fn over(stream: DuplexStream, hello: Hello) -> Self {
            let (reader, writer) = split(stream);
            let mut this = Self { reader, writer };
            let connect = Connect {
                keep_alive: hello.keep_alive_s,
                client_id: hello.client.to_owned(),
                clean_start: hello.clean_start,
                properties: Some(hello.properties),
            };
            this.say(&Packet::Connect(connect, hello.will, ConnectAuth::None)).await;
            assert!(matches!(this.hear().await, Packet::ConnAck(_)));
            this
        }

        async fn say(&mut self, packet: &Packet) {
            self.writer.put(packet).unwrap();
            self.writer.drain().await.unwrap();
        }

        async fn hear(&mut self) -> Packet {
            self.reader.packet().await.unwrap()
        }

        async fn subscribe(&mut self, filter: &str) {
            let mut subscribe = Subscribe::new(SubscribeFilter::new(filter, QoS::AtLeastOnce), None);
            subscribe.pkid = 1;
            self.say(&Packet::Subscribe(subscribe)).await;
            assert!(matches!(self.hear().await, Packet::SubAck(_)));
        }

        async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> PubAckReason {
            let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
            publish.pkid = 1;
            self.say(&Packet::Publish(publish)).await;
            match self.hear().await {
                Packet::PubAck(ack) => ack.reason,
                other => panic!("{other:?} instead of an answer"),
            }
        }

        /// Payload of the next publication.
        async fn next(&mut self) -> Vec<u8> {
            match self.hear().await {
                Packet::Publish(publish) => publish.payload.to_vec(),
                other => panic!("{other:?} instead of a publication"),
            }
        }
    }

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(vec!["warehouse".parse().unwrap()], 10))
    }

    fn counted(number: &AtomicU64) -> u64 {
        number.load(Ordering::Relaxed)
    }

    const SUM: &str = "tw1/a/store-1/sum";

    #[tokio::test]
    async fn a_reader_gets_no_packet_larger_than_it_said_it_takes() {
        let hub = hub();
        let mut asks = hello("warehouse");
        asks.properties.max_packet_size = Some(1_000);
        let mut archive = Client::connect(&hub, asks).await;
        archive.subscribe("tw1/+/+/sum").await;
        let mut store = Client::connect(&hub, hello("store-1")).await;
        assert_eq!(store.publish(SUM, vec![1; 1_000]).await, PubAckReason::Success);
        assert_eq!(store.publish(SUM, vec![2; 10]).await, PubAckReason::Success);
        assert_eq!(archive.next().await, vec![2; 10]);
        assert_eq!(counted(&hub.counters.publications_too_large), 1);
    }

    fn will(delay_s: u32) -> LastWill {
        let mut will = LastWill::new("tw1/a/store-1/state", b"gone".to_vec(), QoS::AtLeastOnce, true, None);
        will.properties = Some(LastWillProperties {
            delay_interval: Some(delay_s),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: vec![],
        });
        will
    }

    #[test]
    fn a_will_waits_no_longer_than_a_session_may_live() {
        assert_eq!(read_will(will(2), 60).delay, Duration::from_secs(2));
        assert_eq!(read_will(will(60), 2).delay, Duration::from_secs(2));
        let capped = Duration::from_secs(u64::from(SESSION_S_MAX));
        assert_eq!(read_will(will(u32::MAX), u32::MAX).delay, capped);
    }

    /// Each time that a store broke off, a task once slept for as long as its will asked, up to 136 years.
    #[tokio::test]
    async fn a_store_that_comes_and_goes_leaves_one_waiting_will() {
        let hub = hub();
        let tasks = tokio::runtime::Handle::current().metrics();
        for _ in 0..20 {
            drop(Client::connect(&hub, with_will(SESSION_S_MAX)).await);
            settle().await;
        }
        assert!(tasks.num_alive_tasks() <= 2, "{} tasks", tasks.num_alive_tasks());
    }

    /// `store-1` with a will and a long session.
    fn with_will(delay_s: u32) -> Hello {
        let mut asks = hello("store-1");
        asks.properties.session_expiry_interval = Some(SESSION_S_MAX);
        asks.will = Some(will(delay_s));
        asks
    }

    /// All other tasks do what they can without time going on.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_will_with_delay_waits_and_is_forgotten_when_the_session_goes_on() {
        let hub = hub();
        let mut archive = Client::connect(&hub, hello("warehouse")).await;
        archive.subscribe("tw1/+/+/state").await;
        archive.subscribe("tw1/+/+/sum").await;
        let resumes = || Hello {
            clean_start: false,
            ..with_will(2)
        };
        drop(Client::connect(&hub, with_will(2)).await);
        settle().await;
        // The second comes back after the first broke off; the third takes the place of the second.
        let second = Client::connect(&hub, resumes()).await;
        let mut third = Client::connect(&hub, resumes()).await;
        tokio::time::sleep(Duration::from_secs(8)).await; // longer than the delay of any will
        third.publish(SUM, b"still here".to_vec()).await;
        assert_eq!(archive.next().await, b"still here");
        drop((second, third));
        settle().await;
        drop(Client::connect(&hub, hello("store-1")).await);
        let told = archive.next().await;
        assert_eq!(told, b"gone", "a clean start ends the session, and so tells its will");
        // And one that nobody comes back for is told when its time has come.
        drop(Client::connect(&hub, with_will(2)).await);
        let broke_off = Instant::now();
        assert_eq!(archive.next().await, b"gone");
        assert_eq!(broke_off.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_for_one_and_a_half_keep_alives_is_dismissed() {
        let hub = hub();
        let mut store = Client::connect(&hub, hello("store-1")).await;
        tokio::time::sleep(Duration::from_secs(14)).await;
        store.say(&Packet::PingReq).await;
        assert_eq!(store.hear().await, Packet::PingResp);
        let silent_since = Instant::now();
        let Packet::Disconnect(said) = store.hear().await else {
            panic!("not dismissed")
        };
        assert_eq!(said.reason_code, DisconnectReasonCode::KeepAliveTimeout);
        assert_eq!(silent_since.elapsed().as_secs(), 15);
    }

    /// One archive that hangs must not hold up the stores for ever.
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_dropped_and_the_stores_go_on() {
        let hub = hub();
        let patient = |client| Hello {
            keep_alive_s: KEEP_ALIVE_S_MAX,
            ..hello(client)
        };
        let mut archive = Client::connect(&hub, patient("warehouse")).await;
        archive.subscribe("tw1/+/+/sum").await;
        let mut store = Client::connect(&hub, patient("store-1")).await;
        let began = Instant::now();
        for _ in 0..usize::from(IN_FLIGHT_MAX) + QUEUE_READER_MAX {
            assert_eq!(store.publish(SUM, vec![1]).await, PubAckReason::Success);
        }
        assert!(began.elapsed().is_zero(), "nobody waits while there is room");
        assert_eq!(store.publish(SUM, vec![2]).await, PubAckReason::Success);
        assert_eq!(began.elapsed(), SLOW_READER_MAX);
        assert_eq!(counted(&hub.counters.slow_readers), 1);
        settle().await;
        assert_eq!(store.publish(SUM, vec![3]).await, PubAckReason::Success);
        assert_eq!(began.elapsed(), SLOW_READER_MAX, "it is waited for no longer");
    }

    /// Nobody waits for a store: what it does not read is dropped, and sent again when it asks.
    #[tokio::test(start_paused = true)]
    async fn a_store_that_reads_nothing_loses_what_is_said_to_it_and_holds_up_nobody() {
        let hub = hub();
        let mut asks = hello("store-1");
        asks.properties.receive_maximum = Some(1);
        let mut store = Client::connect(&hub, asks).await;
        store.subscribe("tw1/a/store-1/ack/+").await;
        let mut archive = Client::connect(&hub, hello("warehouse")).await;
        let began = Instant::now();
        // One is under way, and the queue is full.
        for number in 0..QUEUE_STORE_MAX + 4 {
            let payload = vec![u8::try_from(number).unwrap()];
            let answer = archive.publish("tw1/a/store-1/ack/warehouse", payload).await;
            assert_eq!(answer, PubAckReason::Success);
            settle().await;
        }
        assert!(began.elapsed().is_zero());
        assert_eq!(counted(&hub.counters.publications_dropped), 3);
        for number in 0..=QUEUE_STORE_MAX {
            let Packet::Publish(publish) = store.hear().await else {
                panic!("no publication")
            };
            assert_eq!(publish.payload[..], [u8::try_from(number).unwrap()]);
            let ack = PubAck {
                pkid: publish.pkid,
                reason: PubAckReason::Success,
                properties: None,
            };
            store.say(&Packet::PubAck(ack)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_beyond_the_limit_are_refused_until_one_ends() {
        let hub = hub();
        let room = Arc::new(Semaphore::new(1));
        let from = "127.0.0.1:1".parse().unwrap();
        let seated = || {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            (
                ours,
                seat(theirs, Peer::Claimed, from, Arc::clone(&hub), Arc::clone(&room)),
            )
        };
        let (stream, served) = seated();
        let first = tokio::spawn(served);
        let client = Client::over(stream, hello("store-1")).await;
        let (_stream, refused) = seated();
        let began = Instant::now();
        refused.await;
        assert!(began.elapsed().is_zero(), "before anything was said");
        assert_eq!(counted(&hub.counters.connections_refused), 1);
        drop(client);
        first.await.unwrap();
        let (stream, served) = seated();
        tokio::spawn(served);
        Client::over(stream, hello("store-2")).await;
        assert_eq!(counted(&hub.counters.connections_refused), 1);
    }

    #[tokio::test]
    async fn filters_beyond_the_limit_of_a_packet_are_refused() {
        let hub = hub();
        let mut store = Client::connect(&hub, hello("store-1")).await;
        let filter = SubscribeFilter::new("tw1/a/store-1/cmd", QoS::AtLeastOnce);
        let mut subscribe = Subscribe::new_many(vec![filter; FILTERS_MAX + 2], None);
        subscribe.pkid = 1;
        store.say(&Packet::Subscribe(subscribe)).await;
        let Packet::SubAck(answer) = store.hear().await else {
            panic!("no answer")
        };
        let (taken, refused) = answer.return_codes.split_at(FILTERS_MAX);
        assert!(taken.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))));
        assert_eq!(refused, [SubscribeReasonCode::QuotaExceeded; 2]);
    }

    #[tokio::test]
    async fn a_payload_beyond_the_feeds_limit_is_refused() {
        let hub = hub();
        let mut store = Client::connect(&hub, hello("store-1")).await;
        let largest = vec![0; PAYLOAD_BYTES_MAX];
        assert_eq!(store.publish(SUM, largest).await, PubAckReason::Success);
        let larger = vec![0; PAYLOAD_BYTES_MAX + 1];
        assert_eq!(store.publish(SUM, larger).await, PubAckReason::QuotaExceeded);
        assert_eq!(counted(&hub.counters.publications_refused), 1);
    }
}
