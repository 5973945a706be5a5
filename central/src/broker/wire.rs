//! MQTT 5 packets on a stream, by the codec of the client library.
//!
//! In: bytes of a peer that may be hostile. Out: whole packets within a size; and the way back.
//! Both directions can be given up and taken up again at any await, so that one task can wait for either.

use crate::intake::PACKET_BYTES_MAX;
use bytes::BytesMut;
use rumqttc::Packet;
use rumqttc::mqttbytes::{self, check};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

const READ_BYTES: usize = 16 * 1024;

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("connection lost")]
    Io(#[from] io::Error),
    #[error("connection closed")]
    Closed,
    #[error("malformed packet: {0}")]
    Malformed(#[source] mqttbytes::Error),
    #[error("packet larger than {PACKET_BYTES_MAX} bytes")]
    TooLarge,
}

pub(super) struct Reader<S> {
    half: ReadHalf<S>,
    buffer: BytesMut,
}

pub(super) struct Writer<S> {
    half: WriteHalf<S>,
    buffer: BytesMut,
    is_flushed: bool,
}

pub(super) fn split<S: AsyncRead + AsyncWrite>(stream: S) -> (Reader<S>, Writer<S>) {
    let (read, write) = tokio::io::split(stream);
    let reader = Reader {
        half: read,
        buffer: BytesMut::new(),
    };
    (
        reader,
        Writer {
            half: write,
            buffer: BytesMut::new(),
            is_flushed: true,
        },
    )
}

impl<S: AsyncRead> Reader<S> {
    /// The next packet; may be given up and called again.
    pub(super) async fn packet(&mut self) -> Result<Packet, WireError> {
        loop {
            if let Some(packet) = parse(&mut self.buffer)? {
                return Ok(packet);
            }
            self.buffer.reserve(READ_BYTES);
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }
}

/// The first packet in the buffer, when it is there as a whole.
pub(super) fn parse(buffer: &mut BytesMut) -> Result<Option<Packet>, WireError> {
    let max = u32::try_from(PACKET_BYTES_MAX).ok();
    match check(buffer.iter(), max) {
        Ok(_) => {}
        Err(mqttbytes::Error::InsufficientBytes(_)) => return Ok(None),
        Err(mqttbytes::Error::PayloadSizeLimitExceeded { .. }) => return Err(WireError::TooLarge),
        Err(error) => return Err(WireError::Malformed(error)),
    }
    // The packet is there as a whole: what still lacks bytes now is malformed.
    Packet::read(buffer, max).map(Some).map_err(WireError::Malformed)
}

impl<S: AsyncWrite> Writer<S> {
    /// Puts a packet into the buffer.
    pub(super) fn put(&mut self, packet: &Packet) -> Result<(), WireError> {
        self.is_flushed = false;
        packet.write(&mut self.buffer, None).map_err(WireError::Malformed)?;
        Ok(())
    }

    pub(super) fn bytes_waiting(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is_flushed
    }

    /// Writes until nothing waits; may be given up and called again.
    pub(super) async fn drain(&mut self) -> Result<(), WireError> {
        while !self.buffer.is_empty() {
            if self.half.write_buf(&mut self.buffer).await? == 0 {
                return Err(WireError::Closed);
            }
        }
        self.half.flush().await?;
        self.is_flushed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::{Connect, ConnectAuth, LastWill, Publish, QoS, Subscribe, SubscribeFilter};

    fn corpus() -> Vec<Packet> {
        let connect = Connect {
            keep_alive: 10,
            client_id: "store-1".into(),
            clean_start: true,
            properties: None,
        };
        let will = LastWill::new("tw1/a/store-1/state", vec![1, 2, 3], QoS::AtLeastOnce, true, None);
        let mut publish = Publish::new("tw1/a/store-1/sum", QoS::AtLeastOnce, vec![7; 20], None);
        publish.pkid = 5;
        let mut subscribe = Subscribe::new(SubscribeFilter::new("tw1/a/store-1/cmd", QoS::AtLeastOnce), None);
        subscribe.pkid = 6;
        vec![
            Packet::Connect(connect, Some(will), ConnectAuth::None),
            Packet::Publish(publish),
            Packet::Subscribe(subscribe),
            Packet::PingReq,
        ]
    }

    #[test]
    fn packets_survive_in_any_portions() {
        let mut all = BytesMut::new();
        for packet in corpus() {
            packet.write(&mut all, None).unwrap();
        }
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in all {
            buffer.extend_from_slice(&[byte]);
            found.extend(parse(&mut buffer).unwrap());
        }
        assert_eq!(found, corpus());
    }

    /// The codec was written for clients; here its bytes come from anybody.
    #[test]
    fn hostile_bytes_are_refused_and_never_panic() {
        let mut refused = 0;
        for packet in corpus() {
            let mut whole = BytesMut::new();
            packet.write(&mut whole, None).unwrap();
            for at in 0..whole.len() {
                for value in 0..=255 {
                    let mut changed = whole.clone();
                    changed[at] = value;
                    refused += u32::from(parse(&mut changed).is_err());
                    // Cut short, but said to be whole.
                    let mut cut = whole.clone();
                    cut.truncate(at.max(2));
                    let length = cut.len();
                    cut[1] = u8::try_from(length - 2).unwrap();
                    cut[at.min(length - 1)] = value;
                    refused += u32::from(parse(&mut cut).is_err());
                }
            }
        }
        assert!(refused > 1_000, "{refused}");
    }

    #[test]
    fn a_packet_beyond_the_limit_is_refused_before_it_is_there() {
        let mut buffer = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
        assert!(matches!(parse(&mut buffer), Err(WireError::TooLarge)));
    }
}
