//! The shipped rights of mosquitto, tried by a client that does what it may not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{
    AsyncClient, Event, Incoming, MqttOptions, PublishNoticeError, PublishOptions, QoS, TlsConfiguration, Transport,
};
use tillwatch_agent::tls::client_config;
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// A client with somebody's certificate, whatever it calls itself.
struct Client {
    client: AsyncClient,
    arrived: mpsc::Receiver<(String, Vec<u8>)>,
}

impl Client {
    async fn connect(port: u16, client_id: &str, identity: &Identity) -> Result<Self> {
        let mut options = MqttOptions::new(client_id, ("127.0.0.1", port));
        let tls = client_config(&identity.ca, &identity.certificate, &identity.key)?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(&tls))));
        let (client, mut event_loop) = AsyncClient::builder(options).capacity(16).build();
        let (sender, arrived) = mpsc::channel(64);
        let (connected_in, connected) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut connected_in = Some(connected_in);
            while let Ok(event) = event_loop.poll().await {
                match event {
                    Event::Incoming(Incoming::ConnAck(_)) => drop(connected_in.take().map(|sender| sender.send(()))),
                    Event::Incoming(Incoming::Publish(publish)) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        if sender.send((topic, publish.payload.to_vec())).await.is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        timeout(PATIENCE, connected)
            .await
            .context("connecting")?
            .context("not connected")?;
        Ok(Self { client, arrived })
    }

    /// Whether the broker takes it.
    async fn may_write(&self, topic: &str) -> Result<bool> {
        let options = PublishOptions::at_least_once();
        let notice = self.client.publish_tracked(topic, b"x".to_vec(), options).await?;
        match timeout(PATIENCE, notice.wait_completion_async())
            .await
            .context(topic.to_owned())?
        {
            Ok(()) => Ok(true),
            Err(PublishNoticeError::V5PubAck(_)) => Ok(false),
            Err(error) => bail!("{topic}: {error}"),
        }
    }

    async fn subscribe(&self, filter: &str) -> Result<()> {
        let notice = self.client.subscribe_tracked(filter, QoS::AtLeastOnce).await?;
        timeout(PATIENCE, notice.wait_completion_async())
            .await
            .context("subscribing")??;
        Ok(())
    }
}

fn topics(site: &str, leaves: &[&str]) -> Vec<String> {
    leaves.iter().map(|leaf| format!("tw1/a/{site}/{leaf}")).collect()
}

#[tokio::test]
async fn a_store_speaks_for_itself_alone_and_only_an_archive_acknowledges() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let port = mosquitto.port;
    // Calling itself by another's name gives a store no other rights than its certificate does.
    let store = Client::connect(port, "store-2", &authority.client("store-1")?).await?;
    let archive = Client::connect(port, "main", &authority.client("main")?).await?;
    for topic in topics("store-1", &["birth", "state", "sum", "evt", "rsp"]) {
        assert!(store.may_write(&topic).await?, "{topic}");
    }
    let forbidden = [
        topics("store-2", &["birth", "state", "sum", "evt", "rsp"]),
        topics("store-1", &["ack/main", "ack/other", "cmd", "cfg", "sum/more"]),
        vec!["other".to_owned(), "tw1/a/store-1".to_owned()],
    ];
    for topic in forbidden.concat() {
        assert!(!store.may_write(&topic).await?, "{topic}");
    }
    assert!(archive.may_write("tw1/a/store-1/ack/main").await?);
    for topic in topics("store-1", &["ack/other", "sum", "state", "cmd"]) {
        assert!(!archive.may_write(&topic).await?, "{topic}");
    }
    Ok(())
}

#[tokio::test]
async fn a_store_hears_what_is_meant_for_it_alone() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let port = mosquitto.port;
    let mut store = Client::connect(port, "store-1", &authority.client("store-1")?).await?;
    let mut archive = Client::connect(port, "main", &authority.client("main")?).await?;
    let other = Client::connect(port, "store-2", &authority.client("store-2")?).await?;
    store.subscribe("#").await?;
    archive.subscribe("tw1/+/+/sum").await?;
    assert!(other.may_write("tw1/a/store-2/sum").await?);
    assert!(archive.may_write("tw1/a/store-2/ack/main").await?);
    assert!(archive.may_write("tw1/a/store-1/ack/main").await?);
    // The broker keeps the order, so what came first would be here first.
    let heard = timeout(PATIENCE, store.arrived.recv())
        .await?
        .context("the store hears nothing")?;
    assert_eq!(heard.0, "tw1/a/store-1/ack/main");
    let heard = timeout(PATIENCE, archive.arrived.recv())
        .await?
        .context("the archive hears nothing")?;
    assert_eq!(heard.0, "tw1/a/store-2/sum");
    Ok(())
}

#[tokio::test]
async fn without_a_certificate_of_the_authority_there_is_no_connection() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let stranger = Authority::new(&place.path().join("stranger"))?.client("store-1")?;
    // It trusts our broker, but our broker does not trust it.
    let stranger = Identity {
        ca: authority.client("store-1")?.ca,
        ..stranger
    };
    let refused = Client::connect(mosquitto.port, "store-1", &stranger).await;
    assert!(refused.is_err());
    Ok(())
}
