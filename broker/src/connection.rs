//! One connection to NATS, and the layout that everything is stored in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Auth, AuthError, ConnectError, ConnectErrorKind, ConnectOptions, Event,
    jetstream::context::DeleteStreamErrorKind,
};
use model::{Incarnation, SubscriptionName};
use serde::Deserialize;
use tokio::sync::watch;

use crate::{
    Credentials, DeadLetters, Error, EventLog, EventPublisher, LastReads, NatsTls, Position, ProgressBoard,
    Queue, Registry, Secret, SecretError, StreamLimits, Tasks,
    wire::{TIMEOUT, Wire, code},
};

/// First server whose atomic batches do what we need: 2.12.0 refuses each that replaces a checkpoint, 2.12.1 those that
/// also record what a consumer is told of.
pub const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 3);

/// How to reach NATS.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// Address, `nats://host:4222`; several with commas between them.
    pub url: String,
    /// User, if the server asks for one.
    pub user: Option<String>,
    /// Its password; a file is read at each connection.
    pub password: Option<Secret>,
    /// How the connection is protected.
    pub tls: NatsTls,
    /// Who connects: name of the connection and prefix of its inboxes, `_INBOX_<component>`.
    pub component: &'static str,
    /// Copies of each stream in a cluster of NATS, 1 to 5.
    pub replicas: usize,
}

impl NatsConfig {
    /// A server that asks for no user.
    #[must_use]
    pub fn new(url: impl Into<String>, component: &'static str) -> Self {
        let url = url.into();
        Self { url, user: None, password: None, tls: NatsTls::default(), component, replicas: 1 }
    }

    /// Why a connection failed.
    fn error(&self, source: async_nats::ConnectError) -> Error {
        let url = without_credentials(&self.url);
        if source.kind() != ConnectErrorKind::AuthorizationViolation
            && let Some(problem) = self.tls.problem(&source)
        {
            return Error::Tls { url, problem, source: Box::new(source) };
        }
        Error::Connect { url, source: Box::new(source) }
    }
}

/// A connection to NATS. Cheap to clone; reconnects by itself, for ever.
#[derive(Clone, Debug)]
pub struct Broker {
    pub(crate) wire: Wire,
    pub(crate) replicas: usize,
    pub(crate) limits: StreamLimits,
}

impl Broker {
    /// May events be delivered from the event log, before they are copied? Only with one replica: see
    /// `reader/direct.rs`.
    #[must_use]
    pub fn reads_from_log(&self) -> bool {
        self.replicas == 1
    }

    /// Servers of NATS that hold each stream, at least 1.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.replicas.max(1)
    }

    /// Connects. Password and certificates in files are read again at each later connection.
    ///
    /// # Errors
    /// [`Error::Connect`] after about 5 seconds without success, [`Error::Tls`] where trying again won't help,
    /// [`Error::Version`] for an old server.
    pub async fn connect(config: &NatsConfig) -> Result<Self, Error> {
        let other_form = Arc::new(AtomicBool::new(false));
        let mut connected = Self::connect_once(config, &other_form).await;
        // The callback has chosen the password's other form for the next try, if there is one.
        if connected.as_ref().is_err_and(is_refused_login) && other_form.load(Ordering::Relaxed) {
            connected = Self::connect_once(config, &other_form).await;
        }
        let (client, connections) = connected.map_err(|error| config.error(error))?;
        let (major, minor, patch) = OLDEST_SERVER;
        if !client.is_server_compatible(major, minor, patch) {
            let needed = format!("{major}.{minor}.{patch}");
            return Err(Error::Version { found: client.server_info().version, needed });
        }
        Ok(Self {
            wire: Wire::new(client, connections),
            replicas: config.replicas,
            limits: StreamLimits::default(),
        })
    }

    async fn connect_once(
        config: &NatsConfig,
        other_form: &Arc<AtomicBool>,
    ) -> Result<(async_nats::Client, watch::Receiver<u64>), ConnectError> {
        let NatsConfig { url, user, password, tls, component, .. } = config;
        let (tls, demanded) = (tls.clone(), tls.demanded(url));
        let options = match user {
            None => ConnectOptions::new(),
            Some(user) => {
                let (user, password, other_form) = (user.clone(), password.clone(), other_form.clone());
                ConnectOptions::with_auth_callback(move |_| {
                    std::future::ready(login(&user, password.as_ref(), &other_form))
                })
            }
        };
        let (broken, connections) = watch::channel(0);
        let took = other_form.clone();
        let options = tls
            .apply(options, url)
            .name(format!("headstart-{component}"))
            .custom_inbox_prefix(format!("_INBOX_{component}"))
            .connection_timeout(TIMEOUT)
            .request_timeout(Some(TIMEOUT))
            // Two missed pings: a server that hangs is left after 10 to 15 seconds.
            .ping_interval(TIMEOUT)
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(50).saturating_mul(u32::try_from(attempt).unwrap_or(20).min(20))
            })
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected) {
                    broken.send_modify(|count| *count += 1);
                }
                if matches!(event, Event::Connected) {
                    // The form of the password that was taken is the first one of the next connection.
                    took.fetch_not(Ordering::Relaxed);
                }
                let failed = demanded && matches!(event, Event::ClientError(_));
                log_event(&event, failed.then(|| tls.hint()).as_deref());
                std::future::ready(())
            });
        // The client logs addresses, and takes no credentials from them.
        let servers: Vec<String> = without_credentials(url).split(',').map(|s| s.trim().to_owned()).collect();
        Ok((options.connect(servers).await?, connections))
    }

    /// Is the connection up at this moment?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.wire.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Largest event or object in bytes: the server's `max_payload` less room for headers.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        self.wire.largest_message()
    }

    /// The subscriptions.
    #[must_use]
    pub fn registry(&self) -> Registry {
        Registry::new(self.wire.clone())
    }

    /// The consumers' password hashes.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials::new(self.wire.clone())
    }

    /// What queues could not carry.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.wire.clone())
    }

    /// The queue of one incarnation of a subscription.
    #[must_use]
    pub fn queue(&self, name: &SubscriptionName, incarnation: Incarnation) -> Queue {
        Queue::new(self.clone(), name.clone(), incarnation)
    }

    /// Where events and markers go in.
    #[must_use]
    pub fn events(&self) -> EventPublisher {
        EventPublisher::new(self.wire.clone())
    }

    /// Where the dispatcher reads them.
    #[must_use]
    pub fn event_log(&self) -> EventLog {
        EventLog::new(self.wire.clone())
    }

    /// How far the dispatcher is.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.wire.clone())
    }

    /// Prefills without Kubernetes.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.wire.clone())
    }

    /// Progress of prefills, for people.
    #[must_use]
    pub fn progress(&self) -> ProgressBoard {
        ProgressBoard::new(self.wire.clone())
    }

    /// When consumers last asked for messages, for people.
    #[must_use]
    pub fn last_reads(&self) -> LastReads {
        LastReads::new(self.wire.clone())
    }

    /// Sends what is buffered and closes the connection.
    pub async fn close(&self) {
        if let Err(error) = self.wire.client.drain().await {
            tracing::debug!(%error, "the connection to NATS was closed already");
        }
    }

    pub(crate) async fn stream_state(&self, stream: &str) -> Result<Option<StreamState>, Error> {
        #[derive(Deserialize)]
        struct Info {
            state: StreamState,
        }
        let action = format!("looking at the stream {stream}");
        match self.wire.api::<Info>(&action, &format!("STREAM.INFO.{stream}"), &()).await {
            Ok(info) => Ok(Some(info.state)),
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a stream; false if it was not there.
    pub(crate) async fn delete_stream(&self, stream: &str) -> Result<bool, Error> {
        let action = format!("deleting the stream {stream}");
        match self.wire.js.delete_stream(stream).await {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                DeleteStreamErrorKind::JetStream(e) if e.error_code().0 == code::STREAM_NOT_FOUND => {
                    Ok(false)
                }
                DeleteStreamErrorKind::JetStream(e) => {
                    Err(Error::Refused { action, code: e.error_code().0, description: e.to_string() })
                }
                _ => Err(Error::unavailable(action, error)),
            },
        }
    }
}

/// What `STREAM.INFO` tells of a stream's contents.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct StreamState {
    pub first_seq: u64,
    pub last_seq: u64,
}

/// What is presented to NATS, as the password is now.
fn is_refused_login(error: &ConnectError) -> bool {
    error.kind() == ConnectErrorKind::AuthorizationViolation
}

/// User and password. Where the password's file ends with a line end, each connection takes the other form of it, by
/// turns: most servers want it without, and one that reads the same Secret from its environment wants it with.
fn login(user: &str, password: Option<&Secret>, other_form: &AtomicBool) -> Result<Auth, AuthError> {
    let password = password.map(|secret| match secret.with_line_end()? {
        Some(whole) if other_form.fetch_not(Ordering::Relaxed) => Ok(whole),
        _ => secret.read(),
    });
    let password = password.transpose().map_err(|e: SecretError| AuthError::new(model::error_chain(&e)))?;
    let mut auth = Auth::new();
    auth.username = Some(user.to_owned());
    auth.password = Some(password.unwrap_or_default());
    Ok(auth)
}

fn log_event(event: &Event, hint: Option<&str>) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is lost; it is being tried again"),
        // A missing right shows only here and as a time-out of the call.
        Event::ServerError(error) => tracing::error!(%error, "NATS refuses something"),
        Event::ClientError(error) => tracing::warn!(%error, hint, "trouble with the connection to NATS"),
        other => tracing::debug!(event = %other, "event of the connection to NATS"),
    }
}

/// The address without `user:password@`.
fn without_credentials(url: &str) -> String {
    let one = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        (None, Some(at)) => url[at + 1..].to_owned(),
        _ => url.to_owned(),
    };
    url.split(',').map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_passwords() {
        for (url, shown) in [
            ("nats://u:p@h:4222", "nats://h:4222"),
            ("nats://h:4222", "nats://h:4222"),
            ("u:p@h", "h"),
            ("nats://u:p@a,nats://b", "nats://a,nats://b"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
