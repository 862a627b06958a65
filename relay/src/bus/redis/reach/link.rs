//! One connection to one server: who we are there, TLS, and the limits of the socket.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::timeout;

use super::ReachError;
use crate::bus::redis::settings::Server;

/// Commands that may be queued for a connection before whoever adds one waits. Nodes queue batches, of
/// which few are under way; the library's 50 would be felt by registry work only.
const PIPELINE: usize = 1024;
/// Bytes that are gathered into one write to the socket. The library's 8 KiB would cut a batch for ten
/// nodes into many system calls.
const WRITE_BOUNDARY: usize = 256 << 10;
/// Idle time after which the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Pause between its questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the cluster client tries a command again; its limit is the response timeout.
const CLUSTER_RETRIES: u32 = 4;

/// Receives what a server pushes.
pub(super) type Push = Box<dyn Fn(PushInfo) + Send + Sync>;

/// How connections are opened.
pub(super) struct Link {
    identity: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
    limit: Duration,
}

impl Link {
    pub(super) fn new(
        user: Option<&str>,
        password: Option<&str>,
        ca: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Self, ReachError> {
        let mut identity = RedisConnectionInfo::default().set_lib_name("culvert", env!("CARGO_PKG_VERSION"));
        if let Some(user) = user {
            identity = identity.set_username(user);
        }
        if let Some(password) = password {
            identity = identity.set_password(password);
        }
        if let Some(pem) = ca {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            match certificates {
                Ok(certificates) if !certificates.is_empty() => {}
                // An empty list would trust nobody and say so only at every handshake.
                Ok(_) => return Err(ReachError::Unusable("redis-ca holds no certificate".to_owned())),
                Err(error) => {
                    return Err(ReachError::Unusable(format!("redis-ca is no PEM file: {error}")));
                }
            }
        }
        let certificates = ca.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) });
        // The library asks rustls for the process's provider. Whoever was first keeps it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(Self { identity, certificates, limit })
    }

    /// How long a connection, or an answer, may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// A client for one server.
    pub(super) fn client(&self, server: &Server, protocol: ProtocolVersion) -> Result<Client, ReachError> {
        let address = if server.tls {
            ConnectionAddr::TcpTls {
                host: server.host.clone(),
                port: server.port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(server.host.clone(), server.port)
        };
        let made = address.into_connection_info().and_then(|info| {
            let info = info
                .set_redis_settings(self.identity.clone().set_protocol(protocol))
                .set_tcp_settings(self.tcp());
            match &self.certificates {
                Some(certificates) if server.tls => Client::build_with_tls(info, certificates.clone()),
                _ => Client::open(info),
            }
        });
        made.map_err(|error| ReachError::Unusable(error.to_string()))
    }

    /// What a client needs to know of a server, TLS included.
    pub(super) fn info(&self, server: &Server) -> Result<ConnectionInfo, ReachError> {
        Ok(self.client(server, ProtocolVersion::RESP2)?.get_connection_info().clone())
    }

    /// Limits of every connection.
    pub(super) fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.limit))
            .set_response_timeout(Some(self.limit))
            .set_pipeline_buffer_size(PIPELINE)
            .set_write_backpressure_boundary(WRITE_BOUNDARY)
    }

    /// Opens a connection of its own, which speaks RESP3.
    pub(super) async fn open(
        &self,
        server: &Server,
        push: Option<Push>,
    ) -> Result<MultiplexedConnection, ReachError> {
        let client = self.client(server, ProtocolVersion::RESP3)?;
        let mut config = self.config();
        if let Some(push) = push {
            config = config.set_push_sender(move |info: PushInfo| {
                push(info);
                Ok::<(), RedisError>(())
            });
        }
        // The library's own limit leaves out looking up the name.
        match timeout(self.limit, client.get_multiplexed_async_connection_with_config(&config)).await {
            Ok(opened) => opened.map_err(|source| self.error(server, source)),
            Err(_) => Err(ReachError::Timeout { server: server.to_string(), limit: self.limit }),
        }
    }

    /// A client for a cluster that begins at these servers.
    pub(super) fn cluster(&self, servers: &[Server]) -> Result<ClusterClient, ReachError> {
        let infos = servers.iter().map(|server| self.info(server)).collect::<Result<Vec<_>, _>>()?;
        let mut builder = ClusterClient::builder(infos)
            .use_protocol(ProtocolVersion::RESP2)
            .connection_timeout(self.limit)
            .response_timeout(self.limit)
            .retries(CLUSTER_RETRIES)
            .tcp_settings(self.tcp())
            .write_backpressure_boundary(WRITE_BOUNDARY);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        builder.build().map_err(|error| ReachError::Unusable(error.to_string()))
    }

    /// Says what an error of a server means.
    pub(super) fn error(&self, server: &Server, source: RedisError) -> ReachError {
        let server = server.to_string();
        let refused = source.kind() == ErrorKind::AuthenticationFailed
            || matches!(source.code(), Some("WRONGPASS" | "NOAUTH"));
        match source {
            source if refused => ReachError::Refused { server, source },
            source if source.is_timeout() => ReachError::Timeout { server, limit: self.limit },
            source => ReachError::Unreachable { server, source },
        }
    }

    fn tcp(&self) -> TcpSettings {
        // A machine that is gone is noticed by what it does not acknowledge. One that only waits, as Redis
        // does in a long command, acknowledges.
        TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))
            .set_user_timeout(self.limit * 2)
    }
}
