//! The beginning of a MySQL connection: greeting, TLS, and a login that never shows the password to who does not know it.
//!
//! Source: MySQL internals, "Connection Phase". What is not asked for here the server may not do: neither several
//! statements in one, nor reading a file of this machine.

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use tillwatch_border::PeerFault;

use super::super::super::PeerError;
use super::super::{Server, server};
use super::parse::Pieces;
use super::wire::{Wire, malformed};
use super::{error_of, expect};

const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
/// Without these there is no talk.
const NEEDED: u32 = PROTOCOL_41 | SECURE_CONNECTION;
const WANTED: u32 = NEEDED | LONG_PASSWORD | LONG_FLAG | CONNECT_WITH_DB | TRANSACTIONS | PLUGIN_AUTH;
/// `utf8mb4_general_ci`, which all versions know.
const CHARSET: u8 = 45;
/// What the server may be sent, and says it will send, at most.
const PACKET_BYTES_MAX: u32 = 16 << 20;
const SCRAMBLE_BYTES: usize = 20;
/// Answers of a login that goes on.
const STEPS_MAX: usize = 8;

struct Greeting {
    is_mariadb: bool,
    capabilities: u32,
    scramble: Vec<u8>,
    method: String,
}

/// A connection that is logged in, and whether it is to MariaDB.
///
/// # Errors
/// When the server is not trusted, or does not let the user in.
pub(super) fn log_in(mut wire: Wire, server: &Server, password: &[u8]) -> Result<(Wire, bool), PeerError> {
    let greeting = greeting(&expect(&mut wire)?)?;
    if greeting.capabilities & NEEDED != NEEDED {
        return Err(malformed("the server is too old"));
    }
    let mut capabilities = greeting.capabilities & WANTED;
    if let Some(ca) = &server.ca {
        if greeting.capabilities & SSL == 0 {
            return Err(PeerError::new(PeerFault::Untrusted, "the server has no TLS"));
        }
        capabilities |= SSL;
        wire.send(&preface(capabilities))?;
        wire = wire.secure(server::trusting(ca)?, server::tls_name(server)?)?;
    }
    let mut packet = preface(capabilities);
    let mut login = Login {
        method: greeting.method,
        scramble: greeting.scramble,
        password,
    };
    // Of a method that is unknown the server is told nothing; it then names one that the account has.
    let proof = login.proof().unwrap_or_default();
    push_text(&mut packet, &server.user);
    packet.push(u8::try_from(proof.len()).unwrap_or(0));
    packet.extend_from_slice(&proof);
    push_text(&mut packet, &server.name);
    push_text(&mut packet, &login.method);
    wire.send(&packet)?;
    for _ in 0..STEPS_MAX {
        let answer = expect(&mut wire)?;
        if login.go_on(&answer, &mut wire)? {
            return Ok((wire, greeting.is_mariadb));
        }
    }
    Err(malformed("the login has no end"))
}

fn preface(capabilities: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend_from_slice(&capabilities.to_le_bytes());
    packet.extend_from_slice(&PACKET_BYTES_MAX.to_le_bytes());
    packet.push(CHARSET);
    packet.extend_from_slice(&[0; 23]);
    packet
}

fn push_text(packet: &mut Vec<u8>, text: &str) {
    packet.extend_from_slice(text.as_bytes());
    packet.push(0);
}

fn greeting(packet: &[u8]) -> Result<Greeting, PeerError> {
    let mut pieces = Pieces(packet);
    match pieces.u8()? {
        10 => {}
        0xff => return Err(error_of(packet)),
        _ => return Err(malformed("the server speaks another protocol")),
    }
    let version = pieces.until_zero()?;
    pieces.take(4)?;
    let mut scramble = pieces.take(8)?.to_vec();
    pieces.take(1)?;
    let low = pieces.u16()?;
    pieces.take(3)?;
    let high = pieces.u16()?;
    pieces.take(11)?;
    scramble.extend_from_slice(pieces.take(SCRAMBLE_BYTES - scramble.len())?);
    pieces.take(1)?;
    let method = pieces.until_zero().unwrap_or(b"mysql_native_password");
    Ok(Greeting {
        is_mariadb: memchr::memmem::find(version, b"MariaDB").is_some(),
        capabilities: u32::from(high) << 16 | u32::from(low),
        scramble,
        method: String::from_utf8_lossy(method).into_owned(),
    })
}

/// The ways to log in that show nobody the password.
struct Login<'a> {
    method: String,
    scramble: Vec<u8>,
    password: &'a [u8],
}

impl Login<'_> {
    /// Whether it is done.
    fn go_on(&mut self, answer: &[u8], wire: &mut Wire) -> Result<bool, PeerError> {
        let mut pieces = Pieces(answer);
        match (pieces.u8()?, pieces.0) {
            (0x00, _) => return Ok(true),
            (0xff, _) => return Err(error_of(answer)),
            (0xfe, _) => {
                let method = pieces.until_zero().unwrap_or(b"mysql_old_password");
                self.method = String::from_utf8_lossy(method).into_owned();
                self.scramble = pieces.0.get(..SCRAMBLE_BYTES).unwrap_or_default().to_vec();
                wire.send(&self.proof()?)?;
            }
            (0x01, [3]) if self.method == CACHING => {}
            // The server has forgotten what proves it, and wants the password itself.
            (0x01, [4]) if self.method == CACHING && wire.is_secure() => {
                wire.send(&[self.password, &[0][..]].concat())?;
            }
            (0x01, [4]) if self.method == CACHING => {
                return Err(PeerError::denied(
                    "the server asks for the password itself, which is sent over TLS only: add ca",
                ));
            }
            _ => return Err(malformed("the login goes on in an unknown way")),
        }
        Ok(false)
    }

    /// That the password is known, for this connection alone.
    fn proof(&self) -> Result<Vec<u8>, PeerError> {
        let (algorithm, is_doubled_first) = match self.method.as_str() {
            NATIVE => (&SHA1_FOR_LEGACY_USE_ONLY, false),
            CACHING => (&SHA256, true),
            _ => {
                return Err(PeerError::denied(format!(
                    "the server asks for a login by {:?}: give the account {NATIVE} or {CACHING}",
                    self.method
                        .chars()
                        .filter(|letter| !letter.is_control())
                        .take(40)
                        .collect::<String>()
                )));
            }
        };
        if self.password.is_empty() {
            return Ok(Vec::new());
        }
        let once = hash(algorithm, &[self.password]);
        let twice = hash(algorithm, &[&once]);
        let mask = if is_doubled_first {
            hash(algorithm, &[&twice, &self.scramble])
        } else {
            hash(algorithm, &[&self.scramble, &twice])
        };
        Ok(once.iter().zip(mask).map(|(once, mask)| once ^ mask).collect())
    }
}

const NATIVE: &str = "mysql_native_password";
const CACHING: &str = "caching_sha2_password";

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    digest(algorithm, &parts.concat()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a public client's tests, whose author took them from real servers.
    #[test]
    fn what_proves_the_password_is_what_servers_expect() {
        let proof = |method: &str| {
            let login = Login {
                method: method.to_owned(),
                scramble: b"NR3HP:qIYa_9=db?Sd{`".to_vec(),
                password: b"G!ider27",
            };
            login.proof()
        };
        let native = [
            0x09, 0xcf, 0xf8, 0x85, 0x5e, 0x9e, 0x70, 0x53, 0x40, 0xff, 0x22, 0x70, 0xd8, 0xfb, 0x9f, 0xad, 0xba, 0x90,
            0x6b, 0x70,
        ];
        assert_eq!(proof(NATIVE).unwrap(), native);
        let caching = [
            0x4f, 0x97, 0xbb, 0xfd, 0x20, 0x24, 0x01, 0xc4, 0x2a, 0x69, 0xde, 0xaa, 0xe5, 0x3b, 0xda, 0x07, 0x7e, 0xd7,
            0x57, 0x85, 0x63, 0xc1, 0xa8, 0x0e, 0xb8, 0x16, 0xc8, 0x21, 0x19, 0xb6, 0x8d, 0x2e,
        ];
        assert_eq!(proof(CACHING).unwrap(), caching);
        assert_eq!(proof("mysql_clear_password").unwrap_err().fault, PeerFault::Denied);
    }
}
