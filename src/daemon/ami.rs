//! The task that owns the AMI socket. Connects, lets `ami::link` speak, carries bytes both ways, connects again.
//! Owns socket, TLS and backoff. Must never decide what an event means: messages go to the node loop as they are.
//!
//! Reading never waits for writing: both are arms of one select, and what is to be written waits in a buffer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::codec::FramedRead;
use tracing::{debug, info, warn};

use super::clock::{Clock, Repeats};
use super::codec::{AmiCodec, CodecError};
use crate::ami::backoff::Backoff;
use crate::ami::frame::{Limits, Message};
use crate::ami::link::{Link, LinkSettings};
use crate::ami::outcome::{Answer, CloseReason, LinkEffect, NotSent, Tag};
use crate::ami::{action::Action, event::is_wanted};
use crate::config::{AmiSettings, Transport};
use crate::ids::NodeName;

/// Bytes that may wait for the socket. Asterisk reads at once; a socket that takes no more than this is dead.
const UNSENT_MOST: usize = 1 << 20;
/// Bytes read in one step.
const READ_BYTES: usize = 64 << 10;

/// What the node loop asks for.
#[derive(Debug)]
pub(super) enum ToAmi {
    /// Send an action.
    Send(Tag, Option<String>, Action),
    /// Say goodbye and end.
    Logoff,
}

/// What the node loop is told.
#[derive(Debug)]
pub(super) enum FromAmi {
    /// Something happened in Asterisk.
    Event(Message),
    /// How an action ended.
    Answer(Tag, Answer),
    /// The connection is over. `gone`: nobody listens there any more.
    Closed { gone: bool },
}

/// How a connection ended.
enum End {
    Closed(CloseReason),
    /// Asked for by the node loop, or the node loop is gone.
    Stop,
}

/// The task.
#[derive(Debug)]
pub(super) struct Ami {
    pub(super) node: NodeName,
    pub(super) settings: AmiSettings,
    pub(super) link: LinkSettings,
    pub(super) clock: Clock,
    /// For log lines: which of the two connections this is.
    pub(super) user: &'static str,
}

impl Ami {
    /// Keeps a connection until told to stop.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<ToAmi>, told: mpsc::Sender<FromAmi>) {
        let mut backoff = Backoff::new();
        let mut repeats = Repeats::default();
        loop {
            let mut up = false;
            let (gone, reason) = match self.connect().await {
                Ok(stream) => match self.converse(stream, &mut orders, &told, &mut up).await {
                    End::Stop => return,
                    End::Closed(reason) => (reason == CloseReason::ShuttingDown, reason.to_string()),
                },
                Err(error) => (error.kind() == io::ErrorKind::ConnectionRefused, self.no_connection(&error)),
            };
            if up {
                backoff.reset();
                repeats.clear();
            }
            if let Some(held) = repeats.allow(&reason, self.clock.now()) {
                warn!(node = %self.node, user = self.user, address = %self.settings.address, reason, held, "AMI is away");
            }
            if told.send(FromAmi::Closed { gone }).await.is_err() {
                return;
            }
            self.link.connection = self.link.connection.wrapping_add(1);
            // The first look after a connection that was in use comes at once: it tells a restart from a death.
            let wait = if up { Duration::from_millis(20) } else { backoff.next_wait(super::random_bits()) };
            if self.pause(wait, &mut orders, &told).await {
                return;
            }
        }
    }

    fn no_connection(&self, error: &io::Error) -> String {
        let hint = if error.kind() == io::ErrorKind::ConnectionRefused {
            "is Asterisk running, and is manager.conf enabled?"
        } else {
            "check ami.address, ca_file and server_name"
        };
        format!("no connection to Asterisk: {error}; {hint}")
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        tokio::time::timeout(self.settings.connect_timeout, self.open()).await.map_err(late)?
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let address = &self.settings.address;
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
        tcp.set_nodelay(true)?;
        match address.transport {
            Transport::Plain => Ok(Box::new(tcp)),
            Transport::Tls => {
                let name = self.settings.server_name.as_ref().unwrap_or(&address.host).clone();
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let connector = TlsConnector::from(Arc::new(tls(&self.settings)?));
                Ok(Box::new(connector.connect(name, tcp).await?))
            }
        }
    }

    /// Waits, and meanwhile says of every action that it was not sent. True: stop.
    async fn pause(&self, wait: Duration, orders: &mut mpsc::Receiver<ToAmi>, told: &mpsc::Sender<FromAmi>) -> bool {
        let until = self.clock.now().after(wait);
        loop {
            tokio::select! {
                () = self.clock.sleep_until(Some(until)) => return false,
                order = orders.recv() => match order {
                    Some(ToAmi::Send(tag, _, _)) => {
                        if told.send(FromAmi::Answer(tag, Answer::NotSent(NotSent::Closed))).await.is_err() {
                            return true;
                        }
                    }
                    Some(ToAmi::Logoff) | None => return true,
                },
            }
        }
    }

    fn carry_out(&self, effect: LinkEffect, unsent: &mut BytesMut, up: &mut bool) -> Carried {
        let (node, user) = (&self.node, self.user);
        match effect {
            LinkEffect::Write(bytes) => unsent.extend_from_slice(&bytes),
            LinkEffect::LoggedIn { version } => {
                info!(%node, user, address = %self.settings.address, version, "AMI logged in");
            }
            LinkEffect::Booted => {
                *up = true;
                debug!(%node, user, "Asterisk is fully booted");
            }
            LinkEffect::Stalled => {
                warn!(%node, user, "logged in, but Asterisk does not say that it is booted: it is still loading, or the \
                    user lacks read = system");
            }
            LinkEffect::Event(message) => return Carried::Tell(FromAmi::Event(message)),
            LinkEffect::Answer { tag, answer } => return Carried::Tell(FromAmi::Answer(tag, answer)),
            LinkEffect::Close(reason) => return Carried::Over(reason),
        }
        Carried::Done
    }

    /// One connection, from greeting to end.
    async fn converse(
        &self,
        stream: Box<dyn Stream>,
        orders: &mut mpsc::Receiver<ToAmi>,
        told: &mpsc::Sender<FromAmi>,
        up: &mut bool,
    ) -> End {
        let mut link = Link::new(self.link.clone(), self.clock.now());
        let (reader, mut writer) = tokio::io::split(stream);
        let codec = AmiCodec::new(Limits::DEFAULT).only(is_wanted);
        let mut reader = FramedRead::with_capacity(reader, codec, READ_BYTES);
        let mut unsent = BytesMut::new();
        let mut stopping = false;
        loop {
            while let Some(effect) = link.next_effect() {
                match self.carry_out(effect, &mut unsent, up) {
                    Carried::Done => {}
                    Carried::Tell(message) => {
                        if told.send(message).await.is_err() {
                            return End::Stop;
                        }
                    }
                    Carried::Over(_) if stopping => return End::Stop,
                    Carried::Over(reason) => return End::Closed(reason),
                }
            }
            if unsent.len() > UNSENT_MOST {
                link.closed(self.clock.now());
                continue;
            }
            let deadline = link.next_deadline();
            tokio::select! {
                item = reader.next() => match item {
                    Some(Ok(item)) => link.received(item, self.clock.now()),
                    Some(Err(CodecError::Frame(error))) => link.unreadable(error),
                    Some(Err(CodecError::Io(error))) => {
                        debug!(node = %self.node, %error, "AMI read failed");
                        link.closed(self.clock.now());
                    }
                    None => link.closed(self.clock.now()),
                },
                written = writer.write(&unsent), if !unsent.is_empty() => match written {
                    Ok(count) if count > 0 => {
                        unsent.advance(count);
                        if unsent.is_empty() && let Err(error) = writer.flush().await {
                            debug!(node = %self.node, %error, "AMI flush failed");
                            link.closed(self.clock.now());
                        }
                    }
                    Ok(_) | Err(_) => link.closed(self.clock.now()),
                },
                order = orders.recv(), if !stopping => match order {
                    Some(ToAmi::Send(tag, None, action)) => link.send(tag, action, self.clock.now()),
                    Some(ToAmi::Send(tag, Some(id), action)) => link.send_with_id(tag, &id, action, self.clock.now()),
                    Some(ToAmi::Logoff) | None => {
                        stopping = true;
                        link.logoff(self.clock.now());
                    }
                },
                () = self.clock.sleep_until(deadline) => link.timer(self.clock.now()),
            }
        }
    }
}

/// What is left to do of an effect.
enum Carried {
    Done,
    Tell(FromAmi),
    Over(CloseReason),
}

/// TCP or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

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
