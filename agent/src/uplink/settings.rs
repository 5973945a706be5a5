//! How to reach the broker, and as whom.
//!
//! In: what agent.toml says. Out: the same with the defaults of everything that has one.

use std::path::PathBuf;
use std::sync::Arc;

use tillwatch_feed::topic::{Shard, SiteId};
use tokio::sync::Notify;

use super::address::BrokerAddress;
use super::connector::Traffic;
use super::proxy::Proxy;
use crate::tls::Tls;

/// See the module.
#[derive(Clone, Debug)]
pub struct UplinkSettings {
    pub broker: BrokerAddress,
    /// Who opens the way to it.
    pub proxy: Option<Proxy>,
    /// Required for `mqtts`.
    pub tls: Option<Tls>,
    /// Told that the files of certificate and key may be others now.
    pub renew: Arc<Notify>,
    /// Also the client id, and the name in the certificate.
    pub site: SiteId,
    pub shard: Shard,
    /// Remembers the shard, so that what is retained under the one before is cleared.
    pub shard_file: Option<PathBuf>,
    /// Publishes that wait for the broker at once.
    pub in_flight_max: u16,
    /// The first retry comes at a random time within this; later ones within twice as much each.
    pub first_retry_ms_max: u64,
    /// No retry is later.
    pub retry_ms_max: u64,
    /// The broker says that we are gone when we were for so long.
    pub will_delay_s: u32,
    /// A ping a minute would be a tenth of a day's bytes, and a summary each minute says the same: one that is not
    /// confirmed in a minute ends the connection (`connector.rs`). Only a proxy that confirms for a broker that is gone
    /// hides that, until a ping is not answered.
    pub keep_alive_s: u16,
    /// For the jitter: another one at each site.
    pub seed: u64,
    /// Bytes of all connections.
    pub traffic: Arc<Traffic>,
}

impl UplinkSettings {
    /// The defaults for this broker and site.
    #[must_use]
    pub fn new(broker: BrokerAddress, tls: Option<Tls>, site: SiteId, shard: Shard) -> Self {
        Self {
            broker,
            proxy: None,
            tls,
            renew: Arc::default(),
            site,
            shard,
            shard_file: None,
            in_flight_max: 50,
            first_retry_ms_max: 60_000,
            retry_ms_max: 120_000,
            will_delay_s: 30,
            keep_alive_s: 240,
            seed: fastrand::u64(..),
            traffic: Arc::default(),
        }
    }
}
