//! `headstart watch`: how a prefill goes, until it is done or has failed. It knows the HTTP API only.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    display::{Counts, Display, say},
    failed, may_pass,
};
use crate::settings;

/// How often it is asked, and the longest pause after a failure.
const EVERY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A request that takes longer is given up, and sent again.
const REQUEST_WITHIN: Duration = Duration::from_secs(20);

/// What the API tells of a prefill.
#[derive(Debug, Deserialize)]
struct View {
    state: String,
    round: u32,
    attempt: u32,
    reason: Option<String>,
    message: Option<String>,
    progress: Option<Progress>,
}

#[derive(Debug, Deserialize)]
struct Progress {
    done: u64,
    total: Option<u64>,
    skipped: u64,
    #[serde(default)]
    not_selected: u64,
    #[serde(default)]
    set_aside: u64,
    text: String,
}

impl Progress {
    fn counts(&self) -> Counts {
        let Self { done, skipped, not_selected, set_aside, .. } = *self;
        Counts { done, skipped, not_selected, set_aside }
    }
}

/// What a look means.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Goes(String),
    Done(String),
    Failed(String),
}

impl View {
    fn seen(&self) -> Seen {
        let why = match (&self.reason, &self.message) {
            (Some(reason), Some(message)) => format!(" ({reason}: {message})"),
            (Some(reason), None) => format!(" ({reason})"),
            (None, _) => String::new(),
        };
        let text = self.progress.as_ref().map_or("", |progress| progress.text.as_str());
        match self.state.as_str() {
            "done" if self.round == 0 => Seen::Done("no prefill was asked for".to_owned()),
            "done" if text.is_empty() => Seen::Done("done".to_owned()),
            "done" => Seen::Done(text.to_owned()),
            "failed" => Seen::Failed(format!("attempt {} has failed{why}", self.attempt)),
            state if text.is_empty() => Seen::Goes(format!("{state}{why}")),
            _ => Seen::Goes(format!("{text}{why}")),
        }
    }
}

/// How an answer that brings nothing is to be taken.
#[derive(Debug)]
enum Trouble {
    /// It may be better soon.
    Passing(String),
    Final(anyhow::Error),
}

/// What the status of an answer means; `None`: read its body.
fn trouble(status: StatusCode, name: &str) -> Option<Trouble> {
    match status {
        StatusCode::OK => None,
        StatusCode::UNAUTHORIZED => Some(Trouble::Final(anyhow::anyhow!(
            "the API refuses the credentials, or does not know the subscription {name} (--password, \
             SUBSCRIPTION_PASSWORD; --admin-password, ADMIN_PASSWORD)"
        ))),
        StatusCode::NOT_FOUND => Some(Trouble::Final(anyhow::anyhow!(
            "there is no subscription {name}, or no API at this address (--api, API_URL)"
        ))),
        status if may_pass(status) => Some(Trouble::Passing(format!("the API answers {status}"))),
        status => Some(Trouble::Final(anyhow::anyhow!("the API answers {status} (--api, API_URL)"))),
    }
}

/// How it ended, and its exit code: what a script does next differs.
enum Ended {
    /// 0.
    Done(String),
    /// 1: the prefill has failed.
    Failed(String),
    /// 2: it can't be watched, as after a wrong flag.
    Refused(anyhow::Error),
    /// 3.
    Late,
    /// 130, as after SIGINT everywhere.
    Stopped,
}

pub async fn watch(settings: settings::Watch, shutdown: CancellationToken) -> ExitCode {
    let display = Display::new(&settings.name);
    let late = async {
        match settings.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = look_until_over(&settings, &display) => ended.unwrap_or_else(Ended::Refused),
        () = late => Ended::Late,
        () = shutdown.cancelled() => Ended::Stopped,
    };
    display.finish();
    let name = &settings.name;
    match ended {
        Ended::Done(line) => {
            say(&format!("{name}: {line}\n"));
            ExitCode::SUCCESS
        }
        Ended::Failed(line) => failed(&anyhow::anyhow!("the prefill of {name}: {line}"), 1),
        Ended::Refused(error) => failed(&error, 2),
        Ended::Late => {
            failed(&anyhow::anyhow!("{name}: it is not done yet, and no longer waited for (--timeout)"), 3)
        }
        Ended::Stopped => failed(&anyhow::anyhow!("stopped"), 130),
    }
}

fn url(settings: &settings::Watch) -> anyhow::Result<Url> {
    let mut url = Url::parse(&settings.api)
        .with_context(|| format!("the address {:?} (--api, API_URL) is no URL", settings.api))?;
    let path = ["v1", "subscriptions", &settings.name, "prefill"];
    match url.path_segments_mut() {
        Ok(mut segments) => _ = segments.pop_if_empty().extend(path),
        Err(()) => anyhow::bail!("the address {:?} (--api, API_URL) is no http(s) URL", settings.api),
    }
    Ok(url)
}

async fn look_until_over(settings: &settings::Watch, display: &Display) -> anyhow::Result<Ended> {
    let url = url(settings)?;
    let client = super::client(settings.api_ca_file.as_deref(), REQUEST_WITHIN)?;
    let mut pause = EVERY;
    loop {
        match look(&client, &url, settings).await {
            Ok(view) => {
                pause = EVERY;
                match view.seen() {
                    Seen::Goes(line) => {
                        let progress = view.progress.as_ref();
                        let counts = progress.map(Progress::counts).unwrap_or_default();
                        display.set(counts, progress.and_then(|p| p.total), line);
                    }
                    Seen::Done(line) => return Ok(Ended::Done(line)),
                    Seen::Failed(line) => return Ok(Ended::Failed(line)),
                }
            }
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing(text)) => {
                display.line("trouble", format!("waiting for the API: {text}"));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn look(client: &reqwest::Client, url: &Url, settings: &settings::Watch) -> Result<View, Trouble> {
    let passing = |error: reqwest::Error| Trouble::Passing(model::error_chain(&error.without_url()));
    let (user, password) = settings.credentials().map_err(Trouble::Final)?;
    let password = password.read().map_err(|error| Trouble::Final(error.into()))?;
    let answer = client.get(url.clone()).basic_auth(user, Some(password)).send().await;
    let answer = answer.map_err(|error| match error.is_builder() {
        true => Trouble::Final(anyhow::Error::from(error).context("the address (--api, API_URL)")),
        false => passing(error),
    })?;
    if let Some(trouble) = trouble(answer.status(), &settings.name) {
        return Err(trouble);
    }
    let body = answer.bytes().await.map_err(passing)?;
    serde_json::from_slice(&body).map_err(|error| {
        let error = anyhow::Error::from(error);
        Trouble::Final(error.context("what answers is not this API: look at the address (--api, API_URL)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_look_means() {
        let seen = |text: &str| serde_json::from_str::<View>(text).unwrap().seen();
        let progress = r#"{"done": 3, "total": 9, "skipped": 0, "text": "users/user: 3 of 9"}"#;
        for (state, rest, expected) in [
            ("pending", r#""reason": "Queued""#, Seen::Goes("pending (Queued)".into())),
            ("running", r#""reason": null"#, Seen::Goes("running".into())),
            ("running", &format!(r#""progress": {progress}"#), Seen::Goes("users/user: 3 of 9".into())),
            (
                "running",
                &format!(r#""progress": {progress}, "reason": "SourceUnavailable", "message": "503""#),
                Seen::Goes("users/user: 3 of 9 (SourceUnavailable: 503)".into()),
            ),
            ("done", r#""progress": null"#, Seen::Done("done".into())),
            ("done", &format!(r#""progress": {progress}"#), Seen::Done("users/user: 3 of 9".into())),
            (
                "failed",
                r#""reason": "ImagePull", "message": "no such image""#,
                Seen::Failed("attempt 2 has failed (ImagePull: no such image)".into()),
            ),
        ] {
            let text = format!(r#"{{"state": "{state}", "round": 1, "attempt": 2, "since": "x", {rest}}}"#);
            assert_eq!(seen(&text), expected, "{text}");
        }
        let none = r#"{"state": "done", "round": 0, "attempt": 0}"#;
        assert_eq!(seen(none), Seen::Done("no prefill was asked for".into()));
    }

    #[test]
    fn what_a_status_means() {
        for (status, passing) in
            [(500, true), (503, true), (502, true), (408, true), (401, false), (404, false), (302, false)]
        {
            let trouble = trouble(StatusCode::from_u16(status).unwrap(), "mail").unwrap();
            assert_eq!(matches!(trouble, Trouble::Passing(_)), passing, "{status}");
        }
        assert!(trouble(StatusCode::OK, "mail").is_none());
    }
}
