//! The address of a peer behind a balancer: PROXY protocol version 2.
//!
//! A balancer that forwards TCP sends one binary header before the peer's own bytes. [`read`] takes exactly
//! that header from the stream, so that what follows (TLS or HTTP) is untouched, and reads at most
//! [`MAX_HEADER`] bytes for it. Whoever can send the header chooses the address that limits and logs see;
//! that is why it is read from [`TrustedSources`] only, and why a trusted source that does not send one is
//! refused rather than guessed at.
//!
//! Specification: <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, section 2.2.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What every version 2 header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const FIXED_LEN: usize = 16;
/// Longest header accepted. IPv6 addresses take 36 bytes; the rest is room for the extension fields of
/// balancers, of which certificates' subjects are the longest in use.
pub const MAX_HEADER: usize = 4096;
/// Version 2 with command LOCAL: the balancer's own connection, such as a health check.
const LOCAL: u8 = 0x20;

/// Who is at the other end of a connection that carried a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A peer behind the balancer.
    Peer {
        /// The peer's address, IPv4 also where the balancer wrote it as IPv6.
        source: SocketAddr,
        /// The address that the peer dialled.
        destination: SocketAddr,
    },
    /// The balancer itself (a health check), or a peer without an internet address; the address of the
    /// connection is the one that counts.
    Balancer,
}

/// Why no header could be read.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection ended or broke inside the header.
    #[error("the connection ended inside the PROXY header")]
    Read(#[from] std::io::Error),
    /// The text form was sent.
    #[error("PROXY protocol version 1 was sent, configure the balancer to send version 2")]
    VersionOne,
    /// The connection begins with something else.
    #[error("no PROXY header was sent, configure the balancer to send PROXY protocol version 2")]
    Missing,
    /// The header is longer than any in use.
    #[error("the PROXY header has {0} bytes, at most {MAX_HEADER} are accepted")]
    TooLong(usize),
    /// The header contradicts itself or uses values that the specification does not assign.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// The header is about UDP.
    #[error("the PROXY header is for datagrams, this is a TCP listener")]
    NotStream,
}

/// Reads one header and nothing after it.
///
/// The caller sets the deadline. Not cancel safe: bytes read before a cancellation are lost, and so is the
/// connection.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Origin, ProxyError> {
    let mut header = vec![0; FIXED_LEN];
    // The signature alone first: the shortest version 1 header is shorter than the fixed part.
    stream.read_exact(&mut header[..SIGNATURE.len()]).await?;
    if header.starts_with(b"PROXY ") {
        return Err(ProxyError::VersionOne);
    }
    if header[..SIGNATURE.len()] != SIGNATURE {
        return Err(ProxyError::Missing);
    }
    stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if FIXED_LEN + rest > MAX_HEADER {
        return Err(ProxyError::TooLong(FIXED_LEN + rest));
    }
    header.resize(FIXED_LEN + rest, 0);
    stream.read_exact(&mut header[FIXED_LEN..]).await?;
    decode(&header)
}

fn decode(header: &[u8]) -> Result<Origin, ProxyError> {
    // The specification has the receiver ignore whatever addresses come with LOCAL, even malformed ones.
    if header[12] == LOCAL {
        return Ok(Origin::Balancer);
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (parsed, _) = ProxyHeader::parse(header, config).map_err(|_| ProxyError::Malformed)?;
    let Some(address) = parsed.proxied_address() else { return Ok(Origin::Balancer) };
    if address.protocol != Protocol::Stream {
        return Err(ProxyError::NotStream);
    }
    Ok(Origin::Peer { source: canonical(address.source), destination: canonical(address.destination) })
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Networks whose hosts are believed about the address of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedSources(Vec<IpNet>);

impl TrustedSources {
    /// Trusts the hosts of these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this host is trusted. IPv4 addresses match in their IPv6 form too.
    pub fn contains(&self, host: IpAddr) -> bool {
        let host = host.to_canonical();
        self.0.iter().any(|network| network.contains(&host))
    }
}

impl FromStr for TrustedSources {
    type Err = ParseSourcesError;

    /// Networks or single addresses, separated by commas: `10.0.0.0/8,192.0.2.7,fd00::/8`.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
        items
            .map(|item| {
                item.parse::<IpNet>()
                    .or_else(|_| item.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| ParseSourcesError(item.to_owned()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for TrustedSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{network}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for TrustedSources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for TrustedSources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An entry that is neither a network nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network such as 10.0.0.0/8 or an address such as 192.0.2.7")]
pub struct ParseSourcesError(String);

#[cfg(test)]
mod tests;
