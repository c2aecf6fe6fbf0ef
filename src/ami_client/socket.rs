//! The socket to Asterisk: TCP or TLS, with its socket options. Owns how a connection is made. Must never know what is sent
//! over it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::{AmiSettings, Transport};

/// Size of the kernel's receive buffer, in bytes. With a large buffer from the start, a burst is received at the speed of
/// the socket, and a daemon that pauses for a moment does not lose the connection: Asterisk ends an AMI session that does
/// not read.
const RECEIVE_BYTES: usize = 2 << 20;
/// How long a connection is silent before the kernel asks whether the peer is there. Pings are sent far more often: this
/// is for a process that does not run.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// How long after that the kernel asks again.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);
/// How often it asks in vain.
const KEEPALIVE_TRIES: u32 = 3;

/// TCP or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, in the time that the settings allow.
pub(super) async fn connect(settings: &AmiSettings) -> io::Result<Box<dyn Stream>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
    tokio::time::timeout(settings.connect_timeout, open(settings)).await.map_err(late)?
}

async fn open(settings: &AmiSettings) -> io::Result<Box<dyn Stream>> {
    let address = &settings.address;
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
    tune(&tcp, settings)?;
    match address.transport {
        Transport::Plain => Ok(Box::new(tcp)),
        Transport::Tls => {
            let name = settings.server_name.as_ref().unwrap_or(&address.host).clone();
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(tls(settings)?));
            Ok(Box::new(connector.connect(name, tcp).await?))
        }
    }
}

/// What is written goes out at once; and what the peer does not acknowledge in the time that a ping has is lost, even if
/// pings wait behind it.
fn tune(tcp: &TcpStream, settings: &AmiSettings) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    if grants(RECEIVE_BYTES) {
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    }
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_AGAIN);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(settings.ping_interval.saturating_add(settings.ping_timeout)))?;
    #[cfg(not(target_os = "linux"))]
    let _ = settings;
    Ok(())
}

/// Whether `net.core.rmem_max` allows so much. Asked with a socket of its own: one that asked for more than it got would
/// be left with little, and without the kernel's own way to make room.
fn grants(bytes: usize) -> bool {
    let ask = || {
        let probe = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        probe.set_recv_buffer_size(bytes)?;
        probe.recv_buffer_size()
    };
    ask().is_ok_and(|granted| granted >= bytes)
}

fn tls(settings: &AmiSettings) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        Some(path) => {
            let unreadable = |error| io::Error::other(format!("ami.ca_file {}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?).map_err(io::Error::other)?;
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err(io::Error::other("this machine has no CA certificates: set ami.ca_file"));
            }
        }
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
