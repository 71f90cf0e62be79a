//! A real nats-server for tests: its own port, its own folder, killed when dropped.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::ConnectErrorKind;
use model::{
    Incarnation, RealmTopic, Subscription,
    subscription::{Lifecycle, Registration},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{Broker, NatsConfig, Queue};

mod cluster;
mod proxy;

pub use cluster::NatsCluster;
pub use proxy::LossyProxy;

/// A nats-server with JetStream on a free port of loopback.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    folder: tempfile::TempDir,
}

/// Where the binary is: `HEADSTART_NATS_SERVER`, else where `cargo xtask tools` puts it, else on PATH.
#[must_use]
pub fn nats_server_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HEADSTART_NATS_SERVER") {
        return PathBuf::from(path);
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/nats-server");
    if tools.exists() { tools } else { PathBuf::from("nats-server") }
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If there is no nats-server, or it does not come up.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with further lines of configuration.
    ///
    /// # Panics
    /// If there is no nats-server, or it does not come up.
    #[allow(clippy::expect_used)] // a test's helper: a panic is its way to fail
    pub async fn start_with(extra: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { child: None, port: free_port(), folder };
        server.restart_with("8MB", extra).await;
        server
    }

    /// Starts it again with another limit of a message, such as `1MB`, and further lines of configuration.
    ///
    /// # Panics
    /// If it does not come up within 20 seconds.
    #[allow(clippy::expect_used)]
    pub async fn restart_with(&mut self, max_payload: &str, extra: &str) {
        let folder = self.folder.path();
        let config = format!(
            "jetstream {{ store_dir: \"{}\", max_file_store: 4GB }}\nmax_payload: {max_payload}\n{extra}\n",
            folder.display()
        );
        std::fs::write(folder.join("nats.conf"), config).expect("writing the configuration");
        self.restart().await;
    }

    /// Address of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it keeps what is stored.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("jetstream")
    }

    /// Kills it and keeps a copy of what it stores, as a backup.
    ///
    /// # Panics
    /// If that can't be copied.
    #[allow(clippy::expect_used)]
    pub fn backup(&mut self) -> tempfile::TempDir {
        self.kill();
        let backup = tempfile::tempdir().expect("a temporary folder");
        copy_folder(&self.storage(), backup.path()).expect("a copy of what is stored");
        backup
    }

    /// Puts a backup in the place of what it stores, and starts it.
    ///
    /// # Panics
    /// If that can't be copied, or it does not come up.
    #[allow(clippy::expect_used)]
    pub async fn restore(&mut self, backup: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.storage()).expect("an empty folder");
        copy_folder(backup, &self.storage()).expect("the backup");
        self.restart().await;
    }

    /// How a component connects.
    #[must_use]
    pub fn config(&self, component: &'static str) -> NatsConfig {
        NatsConfig::new(self.url(), component)
    }

    /// A connection, with the layout made.
    ///
    /// # Panics
    /// If the server does not answer.
    #[allow(clippy::expect_used)]
    pub async fn broker(&self) -> Broker {
        let broker = Broker::connect(&self.config("test")).await.expect("connecting to the test's NATS");
        broker.create_layout().await.expect("making the layout");
        broker
    }

    /// Kills the server like a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Starts it (again) on the same port and folder.
    ///
    /// # Panics
    /// If it does not come up within 20 seconds.
    #[allow(clippy::expect_used, clippy::panic)]
    pub async fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let child = Command::new(nats_server_binary())
                .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-c"])
                .arg(self.folder.path().join("nats.conf"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nats-server not found: run `cargo xtask tools`, or set HEADSTART_NATS_SERVER");
            self.child = Some(child);
            while Instant::now() < deadline {
                if self.answers().await {
                    return;
                }
                // Somebody else took the port: take another one, unless clients know it already.
                if self.child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(Some(_)))) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.kill();
            if self.folder.path().join("jetstream").exists() {
                continue;
            }
            self.port = free_port();
        }
        panic!("nats-server did not come up");
    }

    async fn answers(&self) -> bool {
        let options = async_nats::ConnectOptions::new().connection_timeout(Duration::from_millis(300));
        match options.connect(self.url()).await {
            Ok(client) => async_nats::jetstream::new(client).query_account().await.is_ok(),
            // One that wants credentials or certificates that only the test has is up, too.
            Err(error) => {
                matches!(error.kind(), ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Tls)
                    || crate::tls::tls_error(&error).is_some()
            }
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A port on 127.0.0.1 that nobody listens on now. Below the range from which the system takes the ports of outgoing
/// connections (`net.ipv4.ip_local_port_range`), so that none of these takes it before the test does.
///
/// # Panics
/// When none is found.
#[must_use]
#[allow(clippy::expect_used)]
pub fn free_port() -> u16 {
    const FIRST: u64 = 10_240;
    const AFTER: u64 = 32_768;
    let tries =
        std::iter::repeat_with(|| FIRST + RandomState::new().build_hasher().finish() % (AFTER - FIRST));
    let mut ports = tries.take(1000).filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Something that says that it is a nats-server of this version, and is none.
///
/// # Panics
/// If there is no free port.
#[allow(clippy::expect_used)]
pub async fn server_of_version(version: &'static str) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let hello = format!(
                "INFO {{\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"{version}\",\"go\":\"go\",\
                 \"host\":\"127.0.0.1\",\"port\":{},\"headers\":true,\"max_payload\":1048576,\"proto\":1}}\r\n",
                address.port()
            );
            client.write_all(hello.as_bytes()).await.ok();
            let mut heard = vec![0; 4096];
            while client.read(&mut heard).await.is_ok_and(|count| count > 0) {
                client.write_all(b"PONG\r\n").await.ok();
            }
        }
    });
    address
}

/// The subscription `mail` with a prefill, ready, with its queue; the dispatcher has not reached its marker yet.
///
/// # Panics
/// When NATS refuses.
pub async fn ready_subscription(broker: &Broker, topics: &[&str]) -> (Subscription, Queue) {
    ready_subscription_with(broker, topics, |_| {}).await
}

/// The same, registered otherwise.
///
/// # Panics
/// When NATS refuses.
#[allow(clippy::expect_used)]
pub async fn ready_subscription_with(
    broker: &Broker,
    topics: &[&str],
    change: impl FnOnce(&mut Registration),
) -> (Subscription, Queue) {
    let topic =
        |topic: &&str| RealmTopic { realm: model::topic::UDM_REALM.to_owned(), topic: (*topic).to_owned() };
    let mut registration = Registration {
        request_prefill: true,
        ..Registration::new("mail".parse().expect("a name"), topics.iter().map(topic).collect())
    };
    change(&mut registration);
    let now = "2026-01-01T00:00:00".parse().expect("a time");
    let mut subscription = Subscription::reserve(registration, Incarnation(uuid::Uuid::new_v4()), 1, now);
    subscription.lifecycle = Lifecycle::Ready;
    broker.registry().create(&subscription).await.expect("an entry");
    let queue = broker.queue(&subscription.name, subscription.incarnation);
    queue.create(&subscription).await.expect("a queue");
    (subscription, queue)
}

/// Publishes a message as something that is not ours would.
///
/// # Panics
/// When NATS refuses.
#[allow(clippy::expect_used)]
pub async fn publish_raw(broker: &Broker, subject: &str, payload: impl Into<bytes::Bytes>) {
    let js = &broker.wire.js;
    let ack = js.publish(subject.to_owned(), payload.into()).await.expect("publishing");
    ack.await.expect("its acknowledgement");
}

/// Puts a dead letter back into its queue as former versions did: it has no place in the event log.
///
/// # Panics
/// When NATS refuses.
#[allow(clippy::expect_used)]
pub async fn letter_of_former_version(queue: &Queue, round: u32, payload: bytes::Bytes) {
    let headers = crate::wire::headers([
        (crate::names::INCARNATION, queue.incarnation.to_string()),
        (crate::names::ROUND, round.to_string()),
        (crate::names::INCOMING_SEQ, "0".to_owned()),
    ]);
    let message =
        crate::wire::Outgoing { subject: queue.subject(crate::names::Part::Main), headers, payload };
    queue.wire().publish(message).await.expect("publishing");
}

/// Deletes the stream of a queue, as a fault would.
///
/// # Panics
/// When NATS refuses.
#[allow(clippy::expect_used)]
pub async fn lose_queue(queue: &Queue) {
    assert!(queue.delete().await.expect("deleting a stream"), "there is no stream");
}

/// From now on NATS refuses to remove messages of a queue.
///
/// # Panics
/// When NATS refuses that.
#[allow(clippy::expect_used)]
pub async fn refuse_removals(queue: &Queue) {
    let js = &queue.wire().js;
    let mut config =
        js.get_stream(queue.stream.clone()).await.expect("a stream").get_info().await.expect("it").config;
    config.deny_delete = true;
    js.update_stream(config).await.expect("an update");
}

/// Hears the requests for a subject of NATS, from now on.
///
/// # Panics
/// When NATS is away.
#[allow(clippy::expect_used)]
pub async fn hear(broker: &Broker, subject: &str) -> async_nats::Subscriber {
    let client = &broker.wire.client;
    let heard = client.subscribe(subject.to_owned()).await.expect("a subscription");
    client.flush().await.expect("NATS has it");
    heard
}

/// How many messages a connection has sent to NATS so far: each request is one.
#[must_use]
pub fn messages_sent(broker: &Broker) -> u64 {
    broker.wire.client.statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed)
}

/// Waits until a condition holds; the error says what was awaited and what was seen last.
///
/// # Panics
/// When the deadline passes.
#[allow(clippy::panic)]
pub async fn eventually<T: std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
    good: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        let seen = look().await;
        if good(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for {what}; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
