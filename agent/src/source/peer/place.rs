//! Where a peer is: its name resolved, each address held against the grant, and only those connected to.
//!
//! What a name resolves to may change from one moment to the next, so what is connected to is the checked address,
//! never the name again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use tillwatch_border::PeerFault;

use super::PeerError;

/// A name server that does not answer holds a thread, for all plugins together at most so many.
const RESOLVING_MAX: usize = 8;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
const RESOLVER_STACK_BYTES: usize = 256 << 10;

static RESOLVING: AtomicUsize = AtomicUsize::new(0);

/// Host and port of a peer, and the addresses that it may have although they are not public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub port: u16,
    pub addresses: Vec<Network>,
}

/// `10.20.0.0/16` or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl std::str::FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(drop)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(bits_max);
        if bits > bits_max {
            return Err(());
        }
        Ok(Self { address, bits })
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                u32::from(network) & mask == u32::from(address) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                u128::from(network) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    }
}

impl Place {
    /// The addresses that may be connected to, at least one.
    ///
    /// # Errors
    /// When the name has no address, in time, or none that the grant allows.
    pub fn resolve(&self, within: Duration) -> Result<Vec<SocketAddr>, PeerError> {
        let found = match self.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, self.port)],
            Err(_a_name) => look_up(&self.host, self.port, within)?,
        };
        let allowed: Vec<SocketAddr> = found
            .iter()
            .filter(|address| self.allows(address.ip()))
            .take(ADDRESSES_MAX)
            .copied()
            .collect();
        match (allowed.is_empty(), found.first()) {
            (false, _) => Ok(allowed),
            (true, None) => Err(PeerError::new(PeerFault::Unreachable, "its name has no address")),
            (true, Some(found)) => Err(PeerError::denied(format!(
                "{} is {}, which is not a public address, and agent.toml does not grant it\nhint: add addresses = [\"{}\"]",
                self.host,
                found.ip(),
                found.ip()
            ))),
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return false;
        }
        let is_named = self
            .host
            .parse()
            .is_ok_and(|named: IpAddr| named.to_canonical() == address)
            || (self.host == "localhost" && address.is_loopback())
            || self.addresses.iter().any(|network| network.contains(address));
        is_named || is_public(address)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

/// Waits for the system's resolver, which knows no deadline, on a thread of its own.
fn look_up(host: &str, port: u16, within: Duration) -> Result<Vec<SocketAddr>, PeerError> {
    let unreachable = |why: String| PeerError::new(PeerFault::Unreachable, why);
    if RESOLVING.fetch_add(1, Relaxed) >= RESOLVING_MAX {
        RESOLVING.fetch_sub(1, Relaxed);
        return Err(unreachable("too many names are being looked up".to_owned()));
    }
    let (sender, found) = mpsc::channel();
    let name = host.to_owned();
    let thread = std::thread::Builder::new()
        .stack_size(RESOLVER_STACK_BYTES)
        .spawn(move || {
            let addresses = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            RESOLVING.fetch_sub(1, Relaxed);
            // Nobody may wait for it any more.
            drop(sender.send(addresses));
        });
    if let Err(error) = thread {
        RESOLVING.fetch_sub(1, Relaxed);
        return Err(unreachable(error.to_string()));
    }
    match found.recv_timeout(within) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(unreachable(format!("{host}: {error}"))),
        Err(_late) => Err(PeerError::new(
            PeerFault::Timeout,
            format!("{host} was not found in time"),
        )),
    }
}

/// Of the internet. What is not surely so is not; the operator may still name it.
/// Source: the IANA registries of special-purpose addresses, RFC 6890.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _d] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !is_special
}

/// Only 2000::/3 is given out; within it some ranges stand for addresses of version 4, or for nobody's.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_given_out = first & 0xe000 == 0x2000;
    let is_special = first == 0x2002 || first == 0x3fff || (first == 0x2001 && (second < 0x200 || second == 0xdb8));
    is_given_out && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, addresses: &[&str]) -> Place {
        Place {
            host: host.to_owned(),
            port: 80,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn only_public_addresses_are_connected_to_unless_they_are_named() {
        let (by_name, store) = (
            place("pos.example", &[]),
            place("pos.example", &["10.20.0.0/16", "fd00::1"]),
        );
        for (address, is_public, is_granted) in [
            ("93.184.216.34", true, true),
            ("2606:2800:220:1::1", true, true),
            ("10.20.3.4", false, true),
            ("::ffff:10.20.3.4", false, true),
            ("10.21.3.4", false, false),
            ("fd00::1", false, true),
            ("fd00::2", false, false),
            ("127.0.0.1", false, false),
            ("::1", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("169.254.169.254", false, false),
            ("172.16.0.1", false, false),
            ("192.168.0.1", false, false),
            ("100.64.0.1", false, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("fe80::1", false, false),
            ("64:ff9b::7f00:1", false, false),
            ("2002:7f00:1::", false, false),
            ("::127.0.0.1", false, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(by_name.allows(address), is_public, "{address}");
            assert_eq!(store.allows(address), is_granted, "{address}");
        }
    }

    #[test]
    fn an_address_in_the_grant_itself_is_named_and_never_more_than_it() {
        assert!(place("127.0.0.1", &[]).allows("127.0.0.1".parse().unwrap()));
        assert!(!place("127.0.0.1", &[]).allows("127.0.0.2".parse().unwrap()));
        assert!(place("localhost", &[]).allows("::1".parse().unwrap()));
        assert!(!place("localhost", &[]).allows("10.0.0.1".parse().unwrap()));
        assert!(!place("0.0.0.0", &["0.0.0.0/0"]).allows("0.0.0.0".parse().unwrap()));
    }

    #[test]
    fn a_name_that_leads_to_this_machine_is_denied_with_what_to_add() {
        let hostname = place("LocalHost", &[]);
        let error = hostname.resolve(Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.fault, PeerFault::Denied, "{error}");
        assert!(error.why.contains("hint: add addresses = [\""), "{error}");
        assert!(place("localhost", &[]).resolve(Duration::from_secs(10)).is_ok());
    }

    #[test]
    fn networks_are_read_with_their_bits() {
        for wrong in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "pos.example", "10.0.0.0/x"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert!(
            "0.0.0.0/0"
                .parse::<Network>()
                .unwrap()
                .contains("9.9.9.9".parse().unwrap())
        );
    }
}
