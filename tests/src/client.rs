//! An MQTT client with somebody's certificate, to try what it may do and to hear what others say.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{
    AsyncClient, Event, Incoming, MqttOptions, PublishNoticeError, PublishOptions, QoS, TlsConfiguration, Transport,
};
use tillwatch_agent::tls::client_config;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::pki::Identity;

/// For the broker's answers.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client with somebody's certificate, whatever it calls itself.
pub struct Client {
    client: AsyncClient,
    pub arrived: mpsc::Receiver<(String, Vec<u8>)>,
}

impl Client {
    /// # Errors
    /// When the broker does not take it.
    pub async fn connect(port: u16, client_id: &str, identity: &Identity) -> Result<Self> {
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
    ///
    /// # Errors
    /// When it does not say.
    pub async fn may_write(&self, topic: &str) -> Result<bool> {
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

    /// Has the broker retain it.
    ///
    /// # Errors
    /// When the broker refuses, or does not answer.
    pub async fn retain(&self, topic: &str, payload: Vec<u8>) -> Result<()> {
        let options = PublishOptions::at_least_once().retained();
        let notice = self.client.publish_tracked(topic, payload, options).await?;
        Ok(timeout(PATIENCE, notice.wait_completion_async())
            .await
            .context("retaining")??)
    }

    /// # Errors
    /// When the broker refuses, or does not answer.
    pub async fn subscribe(&self, filter: &str) -> Result<()> {
        let notice = self.client.subscribe_tracked(filter, QoS::AtLeastOnce).await?;
        timeout(PATIENCE, notice.wait_completion_async())
            .await
            .context("subscribing")??;
        Ok(())
    }
}
