//! A consumer and a producer that know only the wire contract.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::eventually;

/// How long one may wait for something that takes a pod to start, or a component to come back.
const SOON: Duration = Duration::from_secs(180);

/// A client for plain HTTP, or for an API under that address whose certificate is of this authority (PEM) and of this
/// name.
pub(crate) fn client(tls: Option<(&str, SocketAddr, &str)>) -> Result<Client> {
    Ok(builder(tls)?.build()?)
}

fn builder(tls: Option<(&str, SocketAddr, &str)>) -> Result<reqwest::ClientBuilder> {
    // reqwest wants one, also for plain HTTP. A second installation is refused, and fine.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder =
        Client::builder().timeout(Duration::from_secs(40)).connect_timeout(Duration::from_secs(5)).no_proxy();
    if let Some((name, address, authority)) = tls {
        let authority = reqwest::Certificate::from_pem(authority.as_bytes())?;
        builder = builder.resolve(name, address).tls_certs_only([authority]);
    }
    Ok(builder)
}

/// One consumer and its subscription.
pub struct Consumer {
    client: Client,
    base: String,
    name: String,
    password: String,
}

impl Consumer {
    const PASSWORD: &str = "consumer-secret";

    /// One that is registered already.
    pub(crate) fn registered(client: &Client, base: &str, name: &str, password: &str) -> Self {
        let (base, name, password) = (base.to_owned(), name.to_owned(), password.to_owned());
        Self { client: client.clone(), base, name, password }
    }

    /// Registers; sends the request again until it is answered, as an installer does.
    ///
    /// # Errors
    /// The answer is neither 201 nor 200.
    pub(crate) async fn register(
        client: &Client,
        base: &str,
        admin: &str,
        name: &str,
        topics: &[&str],
        prefill: bool,
        track: bool,
    ) -> Result<Self> {
        let consumer = Self::registered(client, base, name, Self::PASSWORD);
        let topics: Vec<Value> = topics.iter().map(|t| json!({"realm": "udm", "topic": t})).collect();
        let body = json!({"name": name, "realms_topics": topics, "request_prefill": prefill,
                          "password": Self::PASSWORD, "track": track});
        eventually("the registration", SOON, async || {
            let request = consumer.client.post(format!("{base}/v1/subscriptions"));
            let answer = request.basic_auth("admin", Some(admin)).json(&body).send().await?;
            let status = answer.status();
            ensure!(
                matches!(status, StatusCode::CREATED | StatusCode::OK),
                "{status}: {}",
                answer.text().await?
            );
            Ok(())
        })
        .await?;
        Ok(consumer)
    }

    /// The same consumer, with a new connection (plain HTTP) for each request.
    ///
    /// # Errors
    /// The client can't be made.
    pub fn without_keep_alive(&self) -> Result<Self> {
        let client = builder(None)?.pool_max_idle_per_host(0).build()?;
        Ok(Self::registered(&client, &self.base, &self.name, &self.password))
    }

    /// Reads and acknowledges as existing clients do, which any failure ends; until a message with the id `last`. Answers
    /// the ids.
    ///
    /// # Errors
    /// An answer is not what it should be, or none.
    pub async fn read_until(self, last: &str) -> Result<Vec<String>> {
        let (mut ids, began) = (Vec::<String>::new(), std::time::Instant::now());
        while ids.last().is_none_or(|id| id != last) {
            let failed =
                || format!("{} after {} messages, {:?} later", self.name, ids.len(), began.elapsed());
            let Some(message) = self.next(2.0).await.with_context(failed)? else { continue };
            let id = message["body"]["new"]["id"].as_str().context("no id")?.to_owned();
            let sequence = message["sequence_number"].as_u64().context("no sequence_number")?;
            // This alone they try again.
            eventually("the acknowledgement", SOON, async || self.acknowledge(sequence).await.map(drop))
                .await?;
            ids.push(id);
        }
        Ok(ids)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/v1/subscriptions/{}{path}", self.base, self.name);
        self.client.request(method, url).basic_auth(&self.name, Some(&self.password))
    }

    /// The subscription as the API shows it.
    ///
    /// # Errors
    /// The API does not answer with 200.
    pub async fn subscription(&self) -> Result<Value> {
        let answer = self.request(Method::GET, "").send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// The prefill as the API shows it.
    ///
    /// # Errors
    /// The API does not answer with 200.
    pub async fn prefill(&self) -> Result<Value> {
        let answer = self.request(Method::GET, "/prefill").send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Asks for the prefill again (`""`), or that it is paused or resumed (`"/pause"`, `"/resume"`).
    ///
    /// # Errors
    /// The API does not say that it is so from now on.
    pub async fn ask_for_prefill(&self, what: &str) -> Result<()> {
        accepted(self.request(Method::POST, &format!("/prefill{what}"))).await
    }

    /// Asks for a resync.
    ///
    /// # Errors
    /// The API does not accept it.
    pub async fn ask_for_resync(&self) -> Result<()> {
        accepted(self.request(Method::POST, "/prefill").json(&json!({"mode": "resync"}))).await
    }

    /// Waits until the prefill is in a state.
    ///
    /// # Errors
    /// It never is; the error holds the subscription as it is.
    pub async fn await_prefill(&self, state: &str) -> Result<Value> {
        eventually(&format!("the prefill of {} to be {state}", self.name), SOON, async || {
            let seen = self.subscription().await?;
            ensure!(seen["prefill_queue_status"] == state, "{seen}");
            Ok(seen)
        })
        .await
    }

    /// One message, or `None` when nothing came in time.
    ///
    /// # Errors
    /// The API does not answer with 200.
    pub async fn next(&self, timeout_s: f64) -> Result<Option<Value>> {
        let request = self.request(Method::GET, "/messages/next").query(&[("timeout", timeout_s)]);
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == StatusCode::OK, "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Acknowledges; false: there is no such message.
    ///
    /// # Errors
    /// The API answers neither 200 nor 404.
    pub async fn acknowledge(&self, sequence: u64) -> Result<bool> {
        let request = self.request(Method::PATCH, &format!("/messages/{sequence}/status"));
        match request.json(&json!({"status": "ok"})).send().await?.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            other => bail!("{other}"),
        }
    }

    /// Reads and acknowledges `count` messages. What fails is tried again, as a consumer does that is restarted. A
    /// message that comes again is counted once: only the very next one may be one that came before.
    ///
    /// # Errors
    /// They don't come in time.
    pub async fn read(&self, count: usize) -> Result<Vec<Value>> {
        let mut got: Vec<Value> = Vec::with_capacity(count);
        let deadline = std::time::Instant::now() + SOON;
        while got.len() < count {
            ensure!(std::time::Instant::now() < deadline, "{} of {count} messages came: {got:?}", got.len());
            let message = match self.next(5.0).await {
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let sequence = message["sequence_number"].as_u64().context("no sequence_number")?;
            if got.last().is_none_or(|last| last["sequence_number"] != sequence) {
                got.push(message);
            }
            // An unknown outcome: the message may come again.
            let _outcome = self.acknowledge(sequence).await;
        }
        Ok(got)
    }

    /// Removes the subscription.
    ///
    /// # Errors
    /// The API does not answer with 200.
    pub async fn remove(self) -> Result<()> {
        self.request(Method::DELETE, "").send().await?.error_for_status()?;
        Ok(())
    }
}

async fn accepted(request: RequestBuilder) -> Result<()> {
    let answer = request.send().await?;
    let status = answer.status();
    ensure!(status == StatusCode::ACCEPTED, "{status}: {}", answer.text().await?);
    Ok(())
}

/// Sends events as the directory's listener does.
pub struct Producer {
    client: Client,
    base: String,
    password: String,
}

impl Producer {
    /// Sends to an API.
    pub(crate) fn new(client: &Client, base: &str, password: &str) -> Self {
        Self { client: client.clone(), base: base.to_owned(), password: password.to_owned() }
    }

    /// Sends an event until it is accepted. After an unknown outcome it may arrive twice, as with any producer.
    ///
    /// # Errors
    /// It is never accepted.
    pub async fn send(&self, topic: &str, id: &str) -> Result<()> {
        eventually("an event to be accepted", SOON, async || self.send_once(topic, id).await).await
    }

    /// Sends an event.
    ///
    /// # Errors
    /// It is not accepted.
    pub async fn send_once(&self, topic: &str, id: &str) -> Result<()> {
        let body = json!({
            "publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": topic,
            "body": {"old": {}, "new": {"objectType": topic, "id": id, "dn": format!("uid={id},dc=x")}},
        });
        accepted(
            self.client
                .post(format!("{}/v1/messages", self.base))
                .basic_auth("udm", Some(&self.password))
                .json(&body),
        )
        .await
    }
}
