//! The embedded broker with real clients: TLS, rights, retained messages, wills, and as many messages as it must carry.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, Incoming, LastWill, MqttOptions, PubAckReason,
    PublishOptions, QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tillwatch_central::broker::Broker;
use tillwatch_central::config::{EmbeddedBrokerConfig, TlsFiles};
use tillwatch_central::intake::{self, IntakeSettings, Way};
use tillwatch_central::receive::{Arrived, OutgoingAck};
use tillwatch_central::tls;
use tillwatch_feed::topic::Leaf;
use tokio::sync::mpsc;

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, and certificates signed by it.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    fn files(&self, name: &str) -> TlsFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str, text: String| {
            let path = self.folder.path().join(format!("{name}.{kind}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = self.folder.path().join("ca.pem");
        TlsFiles {
            ca,
            certificate: file("pem", certificate.pem()),
            key: file("key", key.serialize_pem()),
        }
    }
}

async fn plain_broker() -> Broker {
    let listen_plain = Some("127.0.0.1:0".parse().unwrap());
    let archives = vec!["warehouse".parse().unwrap()];
    let config = EmbeddedBrokerConfig {
        listen: None,
        listen_plain,
        archives,
        connections_max: 200,
    };
    Broker::start(&config).await.unwrap()
}

fn options(client: &str, address: SocketAddr) -> MqttOptions {
    let mut options = MqttOptions::new(client, ("localhost", address.port()));
    options
        .set_clean_start(true)
        .set_keep_alive(10)
        .set_max_packet_size(Some(300_000));
    options.set_outgoing_inflight_upper_limit(50);
    options
}

/// A client whose events are waited for.
struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    async fn connect(options: MqttOptions) -> Result<Self, ConnectionError> {
        let (client, events) = AsyncClient::builder(options).capacity(100).build();
        let mut this = Self { client, events };
        this.wait(|event| matches!(event, Incoming::ConnAck(_)).then_some(()))
            .await?;
        Ok(this)
    }

    async fn plain(broker: &Broker, client: &str) -> Self {
        Self::connect(options(client, broker.address_plain.unwrap()))
            .await
            .unwrap()
    }

    /// Polls until an incoming packet is what is waited for.
    async fn wait<T>(&mut self, mut is_it: impl FnMut(Incoming) -> Option<T>) -> Result<T, ConnectionError> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await?
                    && let Some(found) = is_it(packet)
                {
                    return Ok(found);
                }
            }
        });
        found.await.expect("what was waited for never came")
    }

    async fn subscribe(&mut self, filters: &[&str]) -> Vec<SubscribeReasonCode> {
        let filters: Vec<_> = filters
            .iter()
            .map(|path| SubscribeFilter::new(*path, QoS::AtLeastOnce))
            .collect();
        self.client.subscribe_many(filters).await.unwrap();
        let answer = |packet| {
            if let Incoming::SubAck(ack) = packet {
                Some(ack.return_codes)
            } else {
                None
            }
        };
        self.wait(answer).await.unwrap()
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> PubAckReason {
        let options = PublishOptions::at_least_once().retain(retain);
        self.client.publish(topic, payload.to_vec(), options).await.unwrap();
        self.wait(|packet| {
            if let Incoming::PubAck(ack) = packet {
                Some(ack.reason)
            } else {
                None
            }
        })
        .await
        .unwrap()
    }

    /// Topic, payload and retain flag of the next publication.
    async fn next(&mut self) -> (String, Vec<u8>, bool) {
        let publish = |packet| {
            if let Incoming::Publish(publish) = packet {
                Some(publish)
            } else {
                None
            }
        };
        let publish = self.wait(publish).await.unwrap();
        (
            String::from_utf8(publish.topic.to_vec()).unwrap(),
            publish.payload.to_vec(),
            publish.retain,
        )
    }
}

const FEED: [&str; 4] = ["tw1/+/+/birth", "tw1/+/+/state", "tw1/+/+/sum", "tw1/+/+/evt"];

#[tokio::test]
async fn what_a_store_says_reaches_an_archive_and_the_answer_reaches_the_store() {
    let broker = plain_broker().await;
    let mut archive = Client::plain(&broker, "warehouse").await;
    assert_eq!(
        archive.subscribe(&FEED).await,
        [SubscribeReasonCode::Success(QoS::AtLeastOnce); 4]
    );
    let mut store = Client::plain(&broker, "store-1").await;
    store.subscribe(&["tw1/a/store-1/ack/+", "tw1/a/store-1/cmd"]).await;
    assert_eq!(
        store.publish("tw1/a/store-1/sum", b"hello", false).await,
        PubAckReason::Success
    );
    assert_eq!(
        archive.next().await,
        ("tw1/a/store-1/sum".into(), b"hello".to_vec(), false)
    );
    assert_eq!(
        archive.publish("tw1/a/store-1/ack/warehouse", b"got it", true).await,
        PubAckReason::Success
    );
    assert_eq!(
        store.next().await,
        ("tw1/a/store-1/ack/warehouse".into(), b"got it".to_vec(), false)
    );
}

#[tokio::test]
async fn what_is_retained_awaits_whoever_comes_later_until_it_is_cleared() {
    let broker = plain_broker().await;
    let mut store = Client::plain(&broker, "store-1").await;
    store.publish("tw1/a/store-1/state", b"old", true).await;
    store.publish("tw1/a/store-1/state", b"new", true).await;
    store.publish("tw1/a/store-1/sum", b"not retained", false).await;
    let mut archive = Client::plain(&broker, "warehouse").await;
    archive.subscribe(&FEED).await;
    assert_eq!(
        archive.next().await,
        ("tw1/a/store-1/state".into(), b"new".to_vec(), true)
    );
    store.publish("tw1/a/store-1/state", b"", true).await;
    store.publish("tw1/a/store-1/sum", b"a", false).await;
    let mut late = Client::plain(&broker, "warehouse").await;
    late.subscribe(&FEED).await;
    store.publish("tw1/a/store-1/sum", b"b", false).await;
    assert_eq!(late.next().await.1, b"b");
}

#[tokio::test]
async fn topics_of_others_are_refused() {
    let broker = plain_broker().await;
    let mut store = Client::plain(&broker, "store-1").await;
    for topic in [
        "tw1/a/store-2/sum",
        "tw1/a/store-1/ack/main",
        "tw1/a/store-1/cmd",
        "elsewhere",
    ] {
        assert_eq!(
            store.publish(topic, b"x", false).await,
            PubAckReason::NotAuthorized,
            "{topic}"
        );
    }
    let filters = ["tw1/a/store-2/cmd", "#", "tw1/+/+/sum", "tw1/a/store-1/cfg"];
    let answers = store.subscribe(&filters).await;
    assert_eq!(answers[..3], [SubscribeReasonCode::NotAuthorized; 3]);
    assert_eq!(answers[3], SubscribeReasonCode::Success(QoS::AtLeastOnce));
    let mut archive = Client::plain(&broker, "warehouse").await;
    assert_eq!(
        archive.publish("tw1/a/store-1/ack/main", b"x", true).await,
        PubAckReason::NotAuthorized
    );
    assert_eq!(
        archive.publish("tw1/a/store-1/cmd", b"x", false).await,
        PubAckReason::NotAuthorized
    );
}

fn with_will(mut options: MqttOptions) -> MqttOptions {
    let will = LastWill::new("tw1/a/store-1/state", b"gone".to_vec(), QoS::AtLeastOnce, true, None);
    options.set_last_will(will).set_session_expiry_interval(Some(3_600));
    options
}

#[tokio::test]
async fn a_will_is_told_when_a_store_breaks_off_and_not_when_it_says_goodbye() {
    let broker = plain_broker().await;
    let mut archive = Client::plain(&broker, "warehouse").await;
    archive.subscribe(&FEED).await;
    let address = broker.address_plain.unwrap();

    let polite = Client::connect(with_will(options("store-1", address))).await.unwrap();
    polite.client.disconnect().await.unwrap();
    let mut events = polite.events;
    while events.poll().await.is_ok() {}

    drop(Client::connect(with_will(options("store-1", address))).await.unwrap());
    assert_eq!(
        archive.next().await,
        ("tw1/a/store-1/state".into(), b"gone".to_vec(), false)
    );
    // Only one will was told: the next publication is this one.
    let mut store = Client::plain(&broker, "store-1").await;
    store.publish("tw1/a/store-1/state", b"back", true).await;
    assert_eq!(archive.next().await.1, b"back");
}

#[tokio::test]
async fn a_second_connection_of_a_client_takes_the_place_of_the_first() {
    let broker = plain_broker().await;
    let mut first = Client::plain(&broker, "store-1").await;
    let mut second = Client::plain(&broker, "store-1").await;
    assert!(
        first
            .wait(|packet| matches!(packet, Incoming::PingResp).then_some(()))
            .await
            .is_err()
    );
    assert_eq!(
        second.publish("tw1/a/store-1/sum", b"x", false).await,
        PubAckReason::Success
    );
}

#[tokio::test]
async fn only_the_client_that_its_certificate_names_is_let_in() {
    let authority = Authority::new();
    let listen = Some(("127.0.0.1:0".parse().unwrap(), authority.files("broker")));
    let archives = vec!["warehouse".parse().unwrap()];
    let config = EmbeddedBrokerConfig {
        listen,
        listen_plain: None,
        archives,
        connections_max: 10,
    };
    let broker = Broker::start(&config).await.unwrap();
    let secure = |client: &str, files: &TlsFiles| {
        let mut options = options(client, broker.address.unwrap());
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls::client(files).unwrap())));
        options
    };
    let files = authority.files("store-1");
    let mut store = Client::connect(secure("store-1", &files)).await.unwrap();
    assert_eq!(
        store.publish("tw1/a/store-1/sum", b"x", false).await,
        PubAckReason::Success
    );
    let other = Client::connect(secure("store-2", &files))
        .await
        .err()
        .expect("another client id");
    let refused = |error| {
        matches!(
            error,
            ConnectionError::ConnectionRefused(ConnectReturnCode::ClientIdentifierNotValid)
        )
    };
    assert!(refused(other));
    let odd = authority.files("Not A Site");
    assert!(refused(
        Client::connect(secure("Not A Site", &odd))
            .await
            .err()
            .expect("a name that is no site")
    ));

    let foreign = Authority::new();
    let mut stranger = foreign.files("store-1");
    stranger.ca.clone_from(&files.ca);
    assert!(
        Client::connect(secure("store-1", &stranger)).await.is_err(),
        "signed by another authority"
    );
    assert!(
        Client::connect(options("store-1", broker.address.unwrap()))
            .await
            .is_err(),
        "no TLS at all"
    );
}

/// Whoever has no certificate holds no place of those who have one.
#[tokio::test]
async fn connections_that_never_say_who_they_are_take_no_place_of_a_store() {
    let authority = Authority::new();
    let config = EmbeddedBrokerConfig {
        listen: Some(("127.0.0.1:0".parse().unwrap(), authority.files("broker"))),
        listen_plain: None,
        archives: vec![],
        connections_max: 2,
    };
    let broker = Broker::start(&config).await.unwrap();
    let address = broker.address.unwrap();
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut options = options("store-1", address);
    let tls = tls::client(&authority.files("store-1")).unwrap();
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
    let mut store = Client::connect(options).await.unwrap();
    assert_eq!(
        store.publish("tw1/a/store-1/sum", b"x", false).await,
        PubAckReason::Success
    );
}

fn in_process(broker: Broker) -> IntakeSettings {
    IntakeSettings {
        client_id: "main".into(),
        way: Way::InProcess(std::sync::Arc::new(move || broker.connect())),
    }
}

/// Sixty stores, fifty messages each in flight, as fast as they can; central's own intake in process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_stores_are_carried_at_3000_messages_a_second() {
    const STORES: usize = 60;
    const MESSAGES: usize = 200;
    let broker = plain_broker().await;
    let address = broker.address_plain.unwrap();
    let (arrivals, mut arrived) = mpsc::channel(64);
    let (_acks, no_acks) = mpsc::channel(1);
    tokio::spawn(intake::run(in_process(broker), arrivals, no_acks));
    assert!(matches!(arrived.recv().await, Some(Arrived::Connected { .. })));
    let began = std::time::Instant::now();
    for number in 0..STORES {
        tokio::spawn(async move {
            let client = format!("store-{number}");
            let mut store = Client::connect(options(&client, address)).await.unwrap();
            let topic = format!("tw1/a/{client}/sum");
            let publisher = store.client.clone();
            tokio::spawn(async move {
                for number in 0..MESSAGES {
                    let mut payload = vec![0; 600];
                    payload[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
                    publisher
                        .publish(&topic, payload, PublishOptions::at_least_once())
                        .await
                        .unwrap();
                }
            });
            let mut acked = 0;
            store
                .wait(|packet| {
                    acked += usize::from(matches!(packet, Incoming::PubAck(_)));
                    (acked == MESSAGES).then_some(())
                })
                .await
                .unwrap();
        });
    }
    let mut seen = std::collections::HashMap::new();
    for _ in 0..STORES * MESSAGES {
        let Some(Arrived::Message { site, payload, .. }) = arrived.recv().await else {
            panic!("intake ended")
        };
        let next = seen.entry(site).or_insert(0_u64);
        assert_eq!(payload[..8], next.to_be_bytes(), "order");
        *next += 1;
    }
    let rate = STORES * MESSAGES * 1_000 / usize::try_from(began.elapsed().as_millis().max(1)).unwrap();
    println!("{rate} messages a second");
    assert!(rate >= 3_000, "{rate} messages a second");
}

#[tokio::test]
async fn the_intake_subscribes_tells_a_start_number_and_carries_acknowledgements() {
    let broker = plain_broker().await;
    let address = broker.address_plain.unwrap();
    let (arrivals, mut arrived) = mpsc::channel(16);
    let (acks, acks_out) = mpsc::channel(16);
    tokio::spawn(intake::run(in_process(broker), arrivals, acks_out));
    assert!(matches!(arrived.recv().await, Some(Arrived::Connected { .. })));
    let mut store = Client::connect(options("store-1", address)).await.unwrap();
    store.subscribe(&["tw1/b/store-1/ack/main"]).await;
    store.publish("tw1/b/store-1/evt", b"payload", false).await;
    let expected = Arrived::Message {
        shard: "b".parse().unwrap(),
        site: "store-1".parse().unwrap(),
        leaf: Leaf::Evt,
        payload: b"payload".to_vec(),
    };
    assert_eq!(arrived.recv().await, Some(expected));
    let topic = "tw1/b/store-1/ack/main".to_owned();
    acks.send(OutgoingAck {
        site: "store-1".parse().unwrap(),
        topic: topic.clone(),
        payload: b"ack".to_vec(),
    })
    .await
    .unwrap();
    assert_eq!(store.next().await, (topic.clone(), b"ack".to_vec(), false));
    let mut later = Client::connect(options("store-1", address)).await.unwrap();
    later.subscribe(&["tw1/b/store-1/ack/main"]).await;
    assert_eq!(later.next().await, (topic, b"ack".to_vec(), true));
}

/// A store with a valid certificate once could publish what central's own client refuses to read; central lost its
/// connection, and every agent of the chain had to send again.
#[tokio::test]
async fn a_packet_as_large_as_the_broker_takes_does_not_cut_central_off() {
    let broker = plain_broker().await;
    let address = broker.address_plain.unwrap();
    let (arrivals, mut arrived) = mpsc::channel(16);
    let (_acks, no_acks) = mpsc::channel(1);
    tokio::spawn(intake::run(in_process(broker), arrivals, no_acks));
    assert!(matches!(arrived.recv().await, Some(Arrived::Connected { .. })));
    let mut store = Client::connect(options("store-1", address)).await.unwrap();
    let refused = store.publish("tw1/a/store-1/sum", &vec![0; 264_000], false).await;
    assert_eq!(refused, PubAckReason::QuotaExceeded);
    store.publish("tw1/a/store-1/sum", b"small", false).await;
    let next = arrived.recv().await;
    assert!(
        matches!(&next, Some(Arrived::Message { payload, .. }) if payload == b"small"),
        "{next:?}"
    );
}

#[test]
fn a_missing_or_wrong_certificate_is_named_with_its_path() {
    let authority = Authority::new();
    let mut files = authority.files("store-1");
    files.key = Path::new("/nowhere/store-1.key").to_owned();
    let error = tls::client(&files).unwrap_err().to_string();
    assert!(error.contains("/nowhere/store-1.key"), "{error}");
    files.key = authority.files("other").key;
    files.certificate = authority.files("store-1").certificate;
    assert!(tls::client(&files).is_err(), "a key of another certificate");
}
