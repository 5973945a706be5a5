//! Where a peer is: its name resolved, each address held against the grant, and only those connected to.
//!
//! What a name resolves to may change from one moment to the next, so what is connected to is the checked address,
//! never the name again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tillwatch_border::PeerFault;

use super::PeerError;

/// A name whose server does not answer holds a thread, for all plugins together at most so many.
const RESOLVING_MAX: usize = 8;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
const RESOLVER_STACK_BYTES: usize = 256 << 10;

/// Without a name server these are this machine, whatever a resolver says.
pub(crate) const LOCALHOST: &str = "localhost";
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

static LOOKUPS: Lookups = Lookups(Mutex::new(BTreeMap::new()));

/// Host and port of a peer, and the only addresses that its name may have; without any it is one of the internet.
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
        // What is connected to is never written as the other version.
        if bits > bits_max || address != address.to_canonical() {
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
            Ok(address) => vec![address],
            Err(_a_name) if self.host == LOCALHOST => LOOPBACK.to_vec(),
            Err(_a_name) => LOOKUPS.find(&self.host, within, ask_system)?,
        };
        let allowed = self.allowed(&found);
        match (allowed.is_empty(), found.first()) {
            (false, _) => Ok(allowed),
            (true, None) => Err(PeerError::new(PeerFault::Unreachable, "its name has no address")),
            (true, Some(found)) => Err(self.denied(*found)),
        }
    }

    fn allowed(&self, found: &[IpAddr]) -> Vec<SocketAddr> {
        let allowed = found.iter().filter(|address| self.allows(**address));
        let allowed = allowed.take(ADDRESSES_MAX);
        allowed.map(|address| SocketAddr::new(*address, self.port)).collect()
    }

    fn denied(&self, found: IpAddr) -> PeerError {
        let host = &self.host;
        let why = match self.addresses.is_empty() {
            true => "is not a public address, and agent.toml does not grant it",
            false => "is none of the addresses that agent.toml grants",
        };
        PeerError::denied(format!(
            "{host} is {found}, which {why}\nhint: add addresses = [\"{found}\"]"
        ))
    }

    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return false;
        }
        match self.host.parse::<IpAddr>() {
            Ok(named) => named.to_canonical() == address,
            Err(_a_name) if self.host == LOCALHOST => address.is_loopback(),
            Err(_a_name) if self.addresses.is_empty() => is_public(address),
            Err(_a_name) => self.addresses.iter().any(|network| network.contains(address)),
        }
    }

    /// Whether it is this machine, whatever a resolver says.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host == LOCALHOST || address.is_ok_and(|address| address.to_canonical().is_loopback())
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

/// What the system's resolver has not answered yet, by name: all who ask for a name wait for the same answer.
#[derive(Debug)]
struct Lookups(Mutex<BTreeMap<String, Arc<Lookup>>>);

#[derive(Debug, Default)]
struct Lookup {
    found: Mutex<Option<Result<Vec<IpAddr>, String>>>,
    is_done: Condvar,
}

impl Lookups {
    /// Waits for the resolver, which knows no deadline and so has a thread of its own.
    fn find(
        &'static self,
        host: &str,
        within: Duration,
        resolve: impl FnOnce(&str) -> std::io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> Result<Vec<IpAddr>, PeerError> {
        let lookup = self.begin(host, resolve)?;
        let found = lock(&lookup.found);
        let waited = lookup
            .is_done
            .wait_timeout_while(found, within, |found| found.is_none());
        let (found, _timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some(Ok(addresses)) => Ok(addresses.clone()),
            Some(Err(why)) => Err(PeerError::new(PeerFault::Unreachable, format!("{host}: {why}"))),
            None => {
                let why = format!("{host} was not found in time");
                Err(PeerError::new(PeerFault::Timeout, why))
            }
        }
    }

    /// That there is no room for it says nothing of the peer.
    fn begin(
        &'static self,
        host: &str,
        resolve: impl FnOnce(&str) -> std::io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> Result<Arc<Lookup>, PeerError> {
        let busy = |why: String| PeerError::new(PeerFault::TooSoon, why);
        let mut pending = lock(&self.0);
        if let Some(lookup) = pending.get(host) {
            return Ok(Arc::clone(lookup));
        }
        if pending.len() >= RESOLVING_MAX {
            let why = format!("{RESOLVING_MAX} other names are being looked up");
            return Err(busy(why));
        }
        let lookup = Arc::new(Lookup::default());
        let (name, answered) = (host.to_owned(), Arc::clone(&lookup));
        let work = move || {
            let found = resolve(&name).map_err(|error| error.to_string());
            lock(&self.0).remove(&name);
            *lock(&answered.found) = Some(found);
            answered.is_done.notify_all();
        };
        let thread = std::thread::Builder::new().stack_size(RESOLVER_STACK_BYTES);
        thread.spawn(work).map_err(|error| busy(error.to_string()))?;
        pending.insert(host.to_owned(), Arc::clone(&lookup));
        Ok(lookup)
    }
}

fn ask_system(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let found = (host, 0).to_socket_addrs()?;
    Ok(found.map(|address| address.ip()).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn of_a_name_with_many_addresses_the_first_that_are_allowed_are_tried() {
        let found: Vec<IpAddr> = (0..100_u8).map(|last| IpAddr::from([10, last % 2, 0, last])).collect();
        let tried = place("pos.example", &["10.1.0.0/16"]).allowed(&found);
        assert_eq!(tried.len(), ADDRESSES_MAX);
        assert_eq!(tried.last(), Some(&SocketAddr::from(([10, 1, 0, 15], 80))));
    }

    /// The addresses of a store only widened a grant: a name that was sent elsewhere was followed there.
    #[test]
    fn only_public_addresses_are_connected_to_or_only_those_that_are_named() {
        let (by_name, store) = (
            place("pos.example", &[]),
            place("pos.example", &["10.20.0.0/16", "fd00::1"]),
        );
        for (address, is_public, is_granted) in [
            ("93.184.216.34", true, false),
            ("2606:2800:220:1::1", true, false),
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
        assert!(!place("0.0.0.0", &["0.0.0.0/0"]).allows("0.0.0.0".parse().unwrap()));
    }

    /// A resolver may say that it is a machine of the internet, and it was asked without TLS.
    #[test]
    fn localhost_is_this_machine_whoever_says_what() {
        for networks in [&[][..], &["0.0.0.0/0", "::/0"]] {
            let localhost = place("localhost", networks);
            for elsewhere in ["10.0.0.1", "93.184.216.34", "2606:2800:220:1::1"] {
                assert!(!localhost.allows(elsewhere.parse().unwrap()), "{elsewhere}");
            }
            let resolved = localhost.resolve(Duration::ZERO).unwrap();
            assert_eq!(resolved, ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()]);
        }
        for (host, is_loopback) in [
            ("localhost", true),
            ("127.0.0.9", true),
            ("::1", true),
            ("10.0.0.1", false),
        ] {
            assert_eq!(place(host, &[]).is_loopback(), is_loopback, "{host}");
        }
        assert!(!place("localhost.example", &[]).is_loopback());
    }

    fn lookups() -> &'static Lookups {
        Box::leak(Box::new(Lookups(Mutex::default())))
    }

    /// One store's dead name took all threads for names, and every other peer of every plugin was reported as down.
    #[test]
    fn a_name_whose_server_is_silent_holds_one_thread_and_no_other_name() {
        let lookups = lookups();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let silent = move |_host: &str| {
            assert!(held.recv().is_err());
            Ok(vec![IpAddr::from([10, 0, 0, 1])])
        };
        let fault = lookups.find("dead.example", Duration::ZERO, silent).unwrap_err().fault;
        assert_eq!(fault, PeerFault::Timeout);
        let never = |_host: &str| -> std::io::Result<Vec<IpAddr>> { panic!("it is being looked up") };
        for _ in 0..2 * RESOLVING_MAX {
            let fault = lookups.find("dead.example", Duration::ZERO, never).unwrap_err().fault;
            assert_eq!(fault, PeerFault::Timeout);
        }
        let other = |_host: &str| Ok(vec![IpAddr::from([10, 0, 0, 2])]);
        let found = lookups.find("live.example", Duration::from_secs(10), other).unwrap();
        assert_eq!(found, [IpAddr::from([10, 0, 0, 2])]);
        let waiting = std::thread::spawn(move || lookups.find("dead.example", Duration::from_secs(10), never));
        let is_waiting = || Arc::strong_count(&lock(&lookups.0)["dead.example"]) >= 3;
        while !is_waiting() {
            assert!(!waiting.is_finished(), "it does not wait for the same answer");
            std::thread::yield_now();
        }
        drop(hold);
        assert_eq!(waiting.join().unwrap().unwrap(), [IpAddr::from([10, 0, 0, 1])]);
        assert!(lock(&lookups.0).is_empty());
    }

    #[test]
    fn that_no_more_names_can_be_looked_up_is_not_the_peers_fault() {
        let lookups = lookups();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for number in 0..=RESOLVING_MAX {
            let held = Arc::clone(&held);
            let silent = move |_host: &str| {
                assert!(lock(&held).recv().is_err());
                Ok(Vec::new())
            };
            let error = lookups
                .find(&format!("dead-{number}.example"), Duration::ZERO, silent)
                .unwrap_err();
            let expected = if number < RESOLVING_MAX {
                PeerFault::Timeout
            } else {
                PeerFault::TooSoon
            };
            assert_eq!(error.fault, expected, "{error}");
        }
        drop(hold);
    }

    #[test]
    fn a_name_that_nobody_has_is_unreachable() {
        let nobody = |_host: &str| Err(std::io::Error::other("no such name"));
        let error = lookups()
            .find("gone.example", Duration::from_secs(10), nobody)
            .unwrap_err();
        assert_eq!(
            (error.fault, error.why.as_str()),
            (PeerFault::Unreachable, "gone.example: no such name")
        );
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
        for wrong in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "pos.example",
            "10.0.0.0/x",
            // It would grant nothing: the address is held against it as one of version 4.
            "::ffff:10.0.0.0/104",
        ] {
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
