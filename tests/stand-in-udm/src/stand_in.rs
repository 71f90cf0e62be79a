//! The server as a value: it runs while the value lives.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::Credentials;
use crate::backend::{Connection, Counting};
use crate::counters::Counters;
use crate::directory::Directory;
use crate::faults::{Faults, Switches};
use crate::links::Links;
use crate::server::{App, Settings, router};

/// A running server. It ends when this is dropped: no new connections, and what hangs is cut.
pub struct StandIn {
    app: Arc<App>,
    address: SocketAddr,
    prefix: String,
    end: CancellationToken,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl StandIn {
    /// Starts on a free port of the loopback interface, user `cn=admin`, password `univention`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(directory: Directory, faults: Faults) -> io::Result<Self> {
        Self::start_with(Settings::default(), directory, faults).await
    }

    /// Starts with other settings.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn start_with(settings: Settings, directory: Directory, faults: Faults) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let end = CancellationToken::new();
        let prefix = settings.prefix.trim_end_matches('/').to_owned();
        let app = Arc::new(App::new(settings, directory, Switches::new(faults), end.clone()));
        let service = router(Arc::clone(&app)).into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(Counting::new(listener), service);
        let ended = end.clone().cancelled_owned();
        let server = tokio::spawn(async move { server.with_graceful_shutdown(ended).await });
        Ok(Self { app, address, prefix, end, server: Some(server) })
    }

    /// `http://127.0.0.1:<port>/univention/udm/`
    #[must_use]
    pub fn base_url(&self) -> String {
        Links::new(&self.origin_and_prefix()).root()
    }

    /// `http://127.0.0.1:<port>`
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory, to be changed at will.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.app.directory
    }

    /// The switches.
    #[must_use]
    pub fn faults(&self) -> &Switches {
        &self.app.switches
    }

    /// What was asked for.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.app.counters
    }

    /// Accepts these credentials only, from now on.
    pub fn set_credentials(&self, credentials: Credentials) {
        *self.app.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// What a prefill has to bring for an object, byte by byte: the answer to its GET without `_links`.
    #[must_use]
    pub fn without_links(&self, dn: &str) -> Option<String> {
        let object = self.app.directory.get(dn)?;
        Some(object.without_links(&Links::new(&self.origin_and_prefix())))
    }

    /// Ends the server and waits until its port is free.
    ///
    /// # Errors
    /// What the server ended with.
    pub async fn stop(mut self) -> io::Result<()> {
        self.end.cancel();
        match self.server.take() {
            Some(server) => server.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }

    /// Serves until the process is told to end.
    ///
    /// # Errors
    /// What the server ended with.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        shutdown.await;
        self.stop().await
    }

    fn origin_and_prefix(&self) -> String {
        format!("{}{}", self.origin(), self.prefix)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
