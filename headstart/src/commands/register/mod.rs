//! `headstart register`: registers consumers whose registrations lie in files, as an installer has them.
//!
//! One consumer that fails does not keep the others from being registered; the exit code tells at the end.

mod consumers;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use broker::Secret;
use prefill_job::source::Source;
use reqwest::{Client, Method, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::consumers::Consumer;
use super::may_pass;
use crate::settings::{IfDifferent, Register, SourceAddress};

/// Between two looks at what is not there yet.
const AGAIN: Duration = Duration::from_secs(2);

/// Longest wait for one answer. A registration takes some milliseconds, behind a busy disk seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What an answer to a registration means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Registered,
    AsBefore,
    Different,
    /// Worth another try: the API is on its way, or busy.
    Later,
    Refused,
}

/// What the API says of a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    detail: String,
    code: String,
}

impl Refusal {
    fn of(body: &str) -> Self {
        serde_json::from_str(body)
            .unwrap_or_else(|_| Self { detail: body.trim().to_owned(), ..Self::default() })
    }

    /// Does it say what a PATCH can change?
    fn can_be_changed(&self) -> bool {
        // An API of before says nothing; whether it was enough is seen afterwards.
        matches!(self.code.as_str(), "" | "topics_differ" | "password_differs")
    }
}

fn verdict(status: StatusCode, refusal: &Refusal) -> Verdict {
    match status {
        StatusCode::CREATED => Verdict::Registered,
        StatusCode::OK => Verdict::AsBefore,
        // Others have to end first.
        StatusCode::CONFLICT
            if matches!(refusal.code.as_str(), "prefill_under_way" | "not_ready" | "changed_by_others") =>
        {
            Verdict::Later
        }
        StatusCode::CONFLICT => Verdict::Different,
        status if may_pass(status) => Verdict::Later,
        _ => Verdict::Refused,
    }
}

/// Registers all consumers.
///
/// # Errors
/// The folder can't be read, what was to be waited for did not come, or a consumer could not be registered.
pub async fn run(settings: Register, shutdown: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        result = register(&settings) => result,
        () = shutdown.cancelled() => bail!("stopped; run it again: what is registered by now stays as it is"),
    }
}

async fn register(settings: &Register) -> anyhow::Result<()> {
    let found = consumers::read(&settings.consumers)?;
    let deadline = Instant::now() + settings.wait_seconds;
    if let Some(object) = &settings.wait_for_udm_object {
        await_object(settings, object, deadline).await?;
    }
    let api = Api::new(settings)?;
    let mut failed = Vec::new();
    for consumer in found {
        let done = match &consumer {
            Ok(consumer) => api.register(consumer, settings.if_different, deadline).await,
            Err((file, error)) => Err(anyhow::anyhow!("{file}: {error}")),
        };
        if let Err(error) = done {
            tracing::error!("{error:#}");
            failed.push(consumer.map_or_else(|(file, _)| file, |consumer| consumer.name));
        }
    }
    ensure!(failed.is_empty(), "not registered: {}", failed.join(", "));
    Ok(())
}

/// Waits until UDM has an object: an extension's types are not there before, and a prefill would not find them.
async fn await_object(settings: &Register, object: &str, deadline: Instant) -> anyhow::Result<()> {
    let (object_type, dn) = object_of(object)?;
    let address =
        settings.source.clone().context("--source (SOURCE) is needed to wait for an object of UDM")?;
    let Source::Udm(udm) = (SourceAddress { source: address }).open(&settings.udm)? else {
        bail!("--source (SOURCE) must be the address of a UDM REST API to wait for an object of it");
    };
    tracing::info!(object_type, "waiting for an object of UDM");
    loop {
        let last = match tokio::time::timeout_at(deadline, udm.exists(object_type, dn)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "it is not there".to_owned(),
            Ok(Err(error)) if !error.is_transient() => return Err(error.into()),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
            Err(_) => "UDM did not answer".to_owned(),
        };
        if Instant::now() + AGAIN > deadline {
            bail!(
                "the object {object} of UDM did not come within {:?} (--wait-seconds, WAIT_SECONDS): {last}",
                settings.wait_seconds
            );
        }
        sleep(AGAIN).await;
    }
}

/// `settings/data/cn=a,dc=b`: a type has one slash, a DN begins after the second.
fn object_of(text: &str) -> anyhow::Result<(&str, &str)> {
    let mut slashes = text.match_indices('/').map(|(at, _)| at);
    let second = slashes.nth(1).filter(|at| text.get(at + 1..).is_some_and(|dn| dn.contains('=')));
    let at = second.with_context(|| {
        format!(
            "{text:?} (--wait-for-udm-object, WAIT_FOR_UDM_OBJECT) is no <type>/<DN>, such as \
             settings/data/cn=stack-data-ums.done,cn=data,cn=univention,dc=example,dc=org"
        )
    })?;
    Ok((&text[..at], &text[at + 1..]))
}

struct Api {
    http: Client,
    url: String,
    username: String,
    password: Secret,
}

impl Api {
    fn new(settings: &Register) -> anyhow::Result<Self> {
        let url = settings.api_url.trim_end_matches('/').to_owned();
        ensure!(
            url.starts_with("http://") || url.starts_with("https://"),
            "{url:?} (--api, API_URL) does not begin with http:// or https://"
        );
        Ok(Self {
            http: super::client(settings.api_ca_file.as_deref(), ANSWER_WITHIN)?,
            url,
            username: settings.admin.admin_username.clone(),
            password: settings.admin.password()?,
        })
    }

    async fn register(
        &self,
        consumer: &Consumer,
        if_different: IfDifferent,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        let name = &consumer.name;
        let post =
            || self.send(Method::POST, "/v1/subscriptions".to_owned(), consumer.registration(), deadline);
        let (verdict, refusal) = post().await?;
        match verdict {
            Verdict::Registered => tracing::info!(subscription = name, "registered"),
            Verdict::AsBefore => tracing::info!(subscription = name, "is registered already"),
            Verdict::Different if if_different == IfDifferent::Update && refusal.can_be_changed() => {
                let path = format!("/v1/subscriptions/{name}");
                let (verdict, refusal) = self.send(Method::PATCH, path, consumer.change(), deadline).await?;
                ensure!(verdict == Verdict::AsBefore, "{name} could not be changed: {}", refusal.detail);
                // Is it as it is asked for now? A PATCH changes topics and password only.
                let (verdict, refusal) = post().await?;
                ensure!(
                    verdict == Verdict::AsBefore,
                    "{name} was changed, but is not yet as it is asked for: {}",
                    refusal.detail
                );
                tracing::info!(subscription = name, "was registered otherwise, and has been changed");
            }
            Verdict::Different if if_different == IfDifferent::Update => {
                bail!("{name} can't be changed to what is asked for: {}", refusal.detail)
            }
            Verdict::Different => bail!(
                "{name} is registered with other parameters ({}); change it with PATCH /v1/subscriptions/{name}, \
                 or with --if-different update (IF_DIFFERENT)",
                refusal.detail
            ),
            Verdict::Later | Verdict::Refused => bail!("{name} was refused: {}", refusal.detail),
        }
        Ok(())
    }

    /// Sends a request until there is an answer that will not change by waiting.
    async fn send(
        &self,
        method: Method,
        path: String,
        body: String,
        deadline: Instant,
    ) -> anyhow::Result<(Verdict, Refusal)> {
        let mut told = false;
        loop {
            let request = self
                .http
                .request(method.clone(), format!("{}{path}", self.url))
                .basic_auth(&self.username, Some(self.password.read()?))
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
            let last = match request.send().await {
                Ok(response) => {
                    let status = response.status();
                    let mut refusal = Refusal::of(&response.text().await.unwrap_or_default());
                    let verdict = verdict(status, &refusal);
                    refusal.detail = format!("{status} {}", refusal.detail);
                    if verdict != Verdict::Later {
                        return Ok((verdict, refusal));
                    }
                    anyhow::anyhow!("it answers {}", refusal.detail)
                }
                Err(error) => error.into(),
            };
            if Instant::now() + AGAIN > deadline {
                return Err(
                    last.context(format!("the API at {} (--api, API_URL) does not take it", self.url))
                );
            }
            if !told {
                tracing::info!("waiting for the API: {last:#}");
                told = true;
            }
            sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_type_and_a_dn() {
        let (object_type, dn) = object_of("settings/data/cn=a/b,cn=data,dc=example").unwrap();
        assert_eq!((object_type, dn), ("settings/data", "cn=a/b,cn=data,dc=example"));
        for wrong in ["", "settings/data", "settings/data/", "cn=a,dc=b", "users/user/name"] {
            let error = object_of(wrong).unwrap_err().to_string();
            assert!(error.contains("WAIT_FOR_UDM_OBJECT"), "{error}");
        }
    }

    #[test]
    fn answers_that_may_change_are_waited_for() {
        for (status, body, expected) in [
            (201, "null", Verdict::Registered),
            (200, "null", Verdict::AsBefore),
            (409, r#"{"detail": "…", "code": "topics_differ"}"#, Verdict::Different),
            (409, r#"{"detail": "…"}"#, Verdict::Different),
            (409, r#"{"detail": "…", "code": "prefill_under_way"}"#, Verdict::Later),
            (409, r#"{"detail": "…", "code": "queue_lost"}"#, Verdict::Different),
            (401, "", Verdict::Refused),
            (422, "<html>", Verdict::Refused),
            (429, "", Verdict::Later),
            (500, "", Verdict::Later),
            (503, "", Verdict::Later),
        ] {
            let refusal = Refusal::of(body);
            assert_eq!(verdict(StatusCode::from_u16(status).unwrap(), &refusal), expected, "{status} {body}");
        }
    }
}
