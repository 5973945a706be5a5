//! The feed's end at central: the one file with an MQTT client.
//!
//! In: publications on `tw1/+/+/{birth,state,sum,evt}`. Out: the same as [`Arrived`]; and acknowledgements back.
//! It moves bytes and reads none. PUBACK goes out by itself, since nothing is deleted for it: the agents wait for the
//! acknowledgement that follows the commit.
//!
//! ```text
//!  broker ──► event loop (task of its own) ──► arrivals, bounded: when full, the socket is not read
//!  broker ◄── request channel ◄── this task ◄── acks, bounded
//! ```
//! Each connection has a fresh client and a clean session. What was lost with the old one comes again, because the first
//! thing said after subscribing is a new start number.

use crate::receive::{Arrived, OutgoingAck};
use rumqttc::{
    AsyncClient, Broker, ConnectionError, Event, EventLoop, Incoming, MqttOptions, PublishOptions, QoS,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tillwatch_feed::codec::PAYLOAD_BYTES_MAX;
use tillwatch_feed::topic;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Publications that the broker may send without a PUBACK; the client allocates by it.
const RECEIVE_MAX: u16 = 256;
/// Acknowledgements under way; the client allocates by it too.
const IN_FLIGHT_MAX: u16 = 256;
/// Requests between our task and the client's.
const REQUESTS_MAX: usize = 64;
/// The largest packet that central reads, as a client and as a broker: what its broker takes its intake must take too,
/// or one packet of one store would end the connection of all. A topic and properties come on top of the payload.
pub(crate) const PACKET_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 4_096;
const KEEP_ALIVE_S: u16 = 30;
/// Reconnecting: full jitter below a limit that doubles up to the cap.
const RETRY_FIRST_MS: u64 = 500;
const RETRY_CAP_MS: u64 = 30_000;
/// A connection that lived this long resets the limit.
const RETRY_RESET: Duration = Duration::from_secs(60);
const SUBSCRIPTIONS: [&str; 4] = ["tw1/+/+/birth", "tw1/+/+/state", "tw1/+/+/sum", "tw1/+/+/evt"];

/// How to reach the broker.
#[derive(Clone)]
pub struct IntakeSettings {
    pub client_id: String,
    pub way: Way,
}

/// The road to the broker.
#[derive(Clone)]
pub enum Way {
    Network {
        host: String,
        port: u16,
        tls: Option<Arc<ClientConfig>>,
    },
    /// The broker in this process hands out one end of a stream for each connection.
    InProcess(Arc<dyn Fn() -> std::io::Result<tokio::io::DuplexStream> + Send + Sync>),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("connection to the broker ended")]
    Connection(#[source] Box<ConnectionError>),
    #[error(
        "the broker refuses subscription {filter}: {reason:?}\n  hint: the archive's identity needs the right to read all stores"
    )]
    Subscription {
        filter: &'static str,
        reason: SubscribeReasonCode,
    },
    #[error("subscribing")]
    Client(#[source] Box<rumqttc::ClientError>),
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// Receives until the other end of `arrivals` is gone.
pub async fn run(settings: IntakeSettings, arrivals: mpsc::Sender<Arrived>, mut acks: mpsc::Receiver<OutgoingAck>) {
    let mut limit_ms = RETRY_FIRST_MS;
    while !arrivals.is_closed() {
        let began = tokio::time::Instant::now();
        match connection(&settings, &arrivals, &mut acks).await {
            Ok(()) => return,
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "connection to the broker lost"
            ),
        }
        if began.elapsed() > RETRY_RESET {
            limit_ms = RETRY_FIRST_MS;
        }
        let wait_ms = random().map_or(limit_ms, |number| number % limit_ms);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        limit_ms = (limit_ms * 2).min(RETRY_CAP_MS);
    }
}

/// One connection, from CONNECT to its end; `Ok` when nobody takes arrivals any more.
async fn connection(
    settings: &IntakeSettings,
    arrivals: &mpsc::Sender<Arrived>,
    acks: &mut mpsc::Receiver<OutgoingAck>,
) -> Result<(), IntakeError> {
    let (client, event_loop) = AsyncClient::builder(options(settings)).capacity(REQUESTS_MAX).build();
    // A set of one: the task ends with this function, however that ends.
    let mut polling = JoinSet::new();
    polling.spawn(poll(event_loop, client.clone(), arrivals.clone()));
    loop {
        tokio::select! {
            ended = polling.join_next() => return ended.and_then(Result::ok).unwrap_or(Ok(())),
            ack = acks.recv() => {
                let Some(OutgoingAck { topic, payload, .. }) = ack else { return Ok(()) };
                let sent = client.publish(topic, payload, PublishOptions::at_least_once().retained()).await;
                if sent.is_err() {
                    // The client is gone, so its task is at its end too and knows why.
                    return polling.join_next().await.and_then(Result::ok).unwrap_or(Ok(()));
                }
            }
        }
    }
}

/// Drives the client; waits as long as `arrivals` is full, and the broker with it.
async fn poll(
    mut event_loop: EventLoop,
    client: AsyncClient,
    arrivals: mpsc::Sender<Arrived>,
) -> Result<(), IntakeError> {
    loop {
        let event = event_loop
            .poll()
            .await
            .map_err(|error| IntakeError::Connection(Box::new(error)))?;
        let Event::Incoming(packet) = event else { continue };
        let arrived = match packet {
            Incoming::ConnAck(_) => {
                let filters = SUBSCRIPTIONS.map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
                client
                    .try_subscribe_many(filters)
                    .map_err(|error| IntakeError::Client(Box::new(error)))?;
                continue;
            }
            Incoming::SubAck(answer) => {
                check_subscriptions(&answer.return_codes)?;
                info!("subscribed to the feed");
                Arrived::Connected {
                    start: random().map_err(IntakeError::Random)?,
                }
            }
            Incoming::Publish(publish) => match message(&publish.topic, &publish.payload) {
                Some(message) => message,
                None => continue,
            },
            _ => continue,
        };
        if arrivals.send(arrived).await.is_err() {
            return Ok(());
        }
    }
}

fn check_subscriptions(answers: &[SubscribeReasonCode]) -> Result<(), IntakeError> {
    for (filter, reason) in SUBSCRIPTIONS.into_iter().zip(answers) {
        if !matches!(reason, SubscribeReasonCode::Success(_)) {
            return Err(IntakeError::Subscription {
                filter,
                reason: *reason,
            });
        }
    }
    Ok(())
}

fn message(topic: &[u8], payload: &[u8]) -> Option<Arrived> {
    let parsed = std::str::from_utf8(topic).ok().map(topic::parse);
    match parsed {
        Some(Ok((shard, site, leaf))) => Some(Arrived::Message {
            shard,
            site,
            leaf,
            payload: payload.to_vec(),
        }),
        Some(Err(error)) => {
            warn!(%error, "message on a topic that is none of the feed's");
            None
        }
        None => None,
    }
}

fn options(settings: &IntakeSettings) -> MqttOptions {
    let mut options = match &settings.way {
        Way::Network { host, port, .. } => MqttOptions::new(&settings.client_id, Broker::tcp(host, *port)),
        Way::InProcess(_) => MqttOptions::new(&settings.client_id, Broker::tcp("in-process", 0)),
    };
    match &settings.way {
        Way::Network { tls: Some(tls), .. } => {
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::clone(tls))));
        }
        Way::Network { tls: None, .. } => {}
        Way::InProcess(connect) => {
            let connect = Arc::clone(connect);
            options.set_socket_connector(move |_host, _options| std::future::ready(connect()));
        }
    }
    let packet_bytes_max = u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX);
    options
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE_S)
        .set_receive_maximum(Some(RECEIVE_MAX))
        .set_max_packet_size(Some(packet_bytes_max))
        .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX);
    options
}

fn random() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}
