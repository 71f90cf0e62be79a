//! No password shows: not in a log of any level, an answer, a termination message, or what NATS stores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use broker::{
    Broker, Copier, NatsConfig, Secret,
    testing::{NatsServer, eventually, free_port, nats_server_binary, ready_subscription},
};
use model::prefill::PrefillTask;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Faults, Population, StandIn};
use support::{SOON, headstart};
use tempfile::TempDir;

/// Everything on, also what libraries are silenced about by default.
const LEVELS: [&str; 2] = ["trace", "trace,headstart=trace"];

/// Passwords that nothing else looks like, with the user who has it.
const ADMIN: (&str, &str) = ("admin", "Adm1n-Qx7vT2");
const EVENTS: (&str, &str) = ("udm", "Ev3nts-Qx7vT2");
const PREFILL: (&str, &str) = ("prefill", "Pref1ll-Qx7vT2");
const NATS: (&str, &str) = ("headstart", "N4ts-Qx7vT2");
const UDM: (&str, &str) = ("cn=admin", "Udm0-Qx7vT2");
const MAIL: (&str, &str) = ("mail", "M4il-Qx7vT2");
const MAIL_LATER: (&str, &str) = ("mail", "M4il-later-Qx7vT2");
const WRONG: (&str, &str) = ("mail", "Wr0ng-Qx7vT2");
const ALL: [(&str, &str); 8] = [ADMIN, EVENTS, PREFILL, NATS, UDM, MAIL, MAIL_LATER, WRONG];

/// Fails if a password is in what somebody else may see: as it is, or as it goes through HTTP.
fn assert_clean(place: &str, seen: &[u8]) {
    for (user, password) in ALL {
        for form in
            [password.to_owned(), STANDARD.encode(password), STANDARD.encode(format!("{user}:{password}"))]
        {
            let found = seen.windows(form.len()).position(|window| window == form.as_bytes());
            if let Some(at) = found {
                let around = &seen[at.saturating_sub(300)..(at + 100).min(seen.len())];
                panic!("{place} shows the password of {user}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}

/// A process and what it writes.
struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        let (out, err) = (file("stdout"), file("stderr"));
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        Self { child, folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    async fn logs(&mut self, part: &str) {
        let deadline = Instant::now() + SOON;
        while !self.log().contains(part) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no {part:?} ({ended:?}) in:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it to end, waits for that, and looks at all it has written.
    async fn finish(&mut self, place: &str) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        let code = self.ended().await;
        for name in ["stdout", "stderr"] {
            assert_clean(&format!("{place}: {name}"), &std::fs::read(self.folder.path().join(name)).unwrap());
        }
        code
    }

    async fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A NATS with a password, and a UDM with another one than ours.
async fn behind() -> (NatsServer, StandIn) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (user, password) = NATS;
    let users = format!("authorization {{ user: {user:?}, password: {password:?} }}");
    let nats = NatsServer::start_with(&users).await;
    let population = Population { users: 3, ..Population::default() };
    (nats, StandIn::start(Directory::generated(population), Faults::default()).await.unwrap())
}

fn with_secrets(mut command: Command, level: &str, nats: &NatsServer) -> Command {
    command
        .env("LOG_LEVEL", level)
        .env("NATS_URL", nats.url())
        .env("NATS_USER", NATS.0)
        .env("NATS_PASSWORD", NATS.1)
        .env("ADMIN_PASSWORD", ADMIN.1)
        .env("EVENTS_PASSWORD_UDM", EVENTS.1)
        .env("PREFILL_PASSWORD", PREFILL.1)
        .env("UDM_PASSWORD", UDM.1)
        // The tour waits for what comes of refused credentials, and for the end.
        .env("UDM_REFUSED_SECONDS", "1")
        .env("SHUTDOWN_DELAY", "0")
        .env("HEADSTART_NATS_SERVER", nats_server_binary());
    command
}

/// A client that looks at each answer.
struct Visitor {
    client: Client,
    base: String,
}

impl Visitor {
    async fn ask(&self, request: RequestBuilder) -> (StatusCode, String) {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), format!("{:?}", answer.headers()));
        let text = answer.text().await.unwrap();
        assert_clean(&format!("an answer with {status}"), format!("{headers}\n{text}").as_bytes());
        (status, text)
    }

    fn to(&self, method: Method, path: &str, (user, password): (&str, &str)) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).basic_auth(user, Some(password))
    }

    async fn sent(&self, method: Method, path: &str, login: (&str, &str), body: &Value) -> StatusCode {
        self.ask(self.to(method, path, login).json(body)).await.0
    }

    async fn raw(&self, method: Method, path: &str, login: (&str, &str), body: String) -> StatusCode {
        let request = self.to(method, path, login).header("content-type", "application/json").body(body);
        self.ask(request).await.0
    }

    /// Registers, changes, and gets everything wrong that one can.
    async fn tour(&self) {
        let subscriptions = "/v1/subscriptions";
        let mail = "/v1/subscriptions/mail";
        let topics = json!([{"realm": "udm", "topic": "users/user"}]);
        let registration = |password: &str| json!({"name": "mail", "realms_topics": topics, "request_prefill": true, "password": password});
        for (password, status) in [(MAIL.1, 201), (MAIL.1, 200), (WRONG.1, 409)] {
            assert_eq!(self.sent(Method::POST, subscriptions, ADMIN, &registration(password)).await, status);
        }
        for (path, login, status) in [
            (mail, MAIL, 200),
            (mail, WRONG, 401),
            (mail, ("admin", WRONG.1), 401),
            (subscriptions, ADMIN, 200),
            (subscriptions, MAIL, 401),
            (subscriptions, ("admin", WRONG.1), 401),
            ("/v1/subscriptions/mail/messages/next?timeout=0.1", MAIL, 200),
            ("/v1/subscriptions/mail/messages/next?timeout=x", MAIL, 422),
            ("/v1/subscriptions/other", ("other", WRONG.1), 401),
            ("/metrics", ADMIN, 200),
            ("/openapi.json", ADMIN, 200),
        ] {
            assert_eq!(self.ask(self.to(Method::GET, path, login)).await.0, status, "{path}");
        }
        for garbage in ["Basic", "Basic !!", &format!("Bearer {}", MAIL.1), &format!("Basic {}", MAIL.1)] {
            let request = self.client.get(format!("{}{mail}", self.base)).header("authorization", garbage);
            assert_eq!(self.ask(request).await.0, 401);
        }
        // Bodies that are no JSON, of the wrong kind, or hold a password where none belongs.
        let whole = registration(MAIL.1).to_string();
        for cut in [whole.len() - 1, whole.len() / 2] {
            assert_eq!(self.raw(Method::POST, subscriptions, ADMIN, whole[..cut].to_owned()).await, 422);
        }
        for body in [
            json!({"name": "x y", "password": MAIL.1}),
            json!({"name": MAIL.1, "realms_topics": MAIL.1, "request_prefill": MAIL.1, "password": [MAIL.1]}),
            json!([MAIL.1]),
            json!(MAIL.1),
            registration(&format!("{}\0", MAIL.1)),
            registration(&MAIL.1.repeat(200)),
        ] {
            assert_eq!(self.sent(Method::POST, subscriptions, ADMIN, &body).await, 422, "{body}");
        }
        for body in [json!({"password": {"new": MAIL_LATER.1}}), json!({"passwort": MAIL_LATER.1})] {
            assert_eq!(self.sent(Method::PATCH, mail, MAIL, &body).await, 422);
        }
        let change = json!({"password": MAIL_LATER.1});
        assert_eq!(self.sent(Method::PATCH, mail, WRONG, &change).await, 401);
        assert_eq!(self.sent(Method::PATCH, mail, MAIL, &change).await, 200);
        assert_eq!(self.ask(self.to(Method::GET, mail, MAIL_LATER)).await.0, 200);
        let event = json!({"publisher_name": "udm-listener", "ts": "x", "realm": "udm", "topic": "users/user",
                           "body": {"old": {}, "new": {"objectType": "users/user", "x": EVENTS.1}}});
        for login in [EVENTS, WRONG] {
            let status = self.sent(Method::POST, "/v1/messages", login, &event).await;
            assert_eq!(status, if login == EVENTS { 422 } else { 401 });
        }
        let status = json!({"status": PREFILL.1});
        assert_eq!(self.sent(Method::PATCH, "/v1/subscriptions/mail/prefill", PREFILL, &status).await, 422);
        // The prefill fails because UDM refuses us, and says so.
        let failed = async || {
            let (_, text) = self.ask(self.to(Method::GET, mail, ADMIN)).await;
            serde_json::from_str::<Value>(&text).unwrap()["prefill"].clone()
        };
        let failed = eventually("the prefill fails", SOON, failed, |p| p["state"] == "failed").await;
        assert!(failed["message"].as_str().unwrap().contains("cn=admin"), "{failed}");
    }
}

/// Every file under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn standalone_shows_no_password() {
    for level in LEVELS {
        let (nats, udm) = behind().await;
        let data = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = headstart(&["standalone", "--listen", &format!("127.0.0.1:{port}")]);
        command.arg("--data-dir").arg(data.path()).args(["--source", &udm.base_url()]);
        let mut process = Process::start(with_secrets(command, level, &nats));
        process.logs("headstart is running").await;
        let client = Client::builder().no_proxy().timeout(SOON).build().unwrap();
        let visitor = Visitor { client, base: format!("http://127.0.0.1:{port}") };
        let ready = async || visitor.ask(visitor.to(Method::GET, "/readyz", WRONG)).await.0;
        eventually("ready", SOON, ready, |status| *status == StatusCode::OK).await;
        visitor.tour().await;
        assert_eq!(process.finish(level).await, Some(0));
        for path in files(data.path()) {
            assert_clean(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
        let stored = files(&nats.storage());
        assert!(stored.len() > 5, "{stored:?}");
        for path in stored {
            assert_clean(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
        // The log is that of the tour, and silences nobody where that was asked for.
        assert!(process.log().contains("cn=admin"), "{}", process.log());
        assert!(level == "trace" || process.log().contains("async_nats::connection"), "{}", process.log());
    }
}

#[test]
#[should_panic(expected = "shows the password of udm")]
fn a_password_that_shows_is_found() {
    assert_clean(
        "this",
        format!("Basic {}!", STANDARD.encode(format!("{}:{}", EVENTS.0, EVENTS.1))).as_bytes(),
    );
}

/// A subscription whose prefill may begin.
async fn registered(nats: &NatsServer) -> PrefillTask {
    let (user, password) = (Some(NATS.0.to_owned()), Some(Secret::new(NATS.1)));
    let broker = Broker::connect(&NatsConfig { user, password, ..nats.config("test") }).await.unwrap();
    broker.create_layout().await.unwrap();
    let (s, queue) = ready_subscription(&broker, &["users/user"]).await;
    Copier::open(queue).await.unwrap().unwrap().mark(1, &s.marker()).await.unwrap();
    PrefillTask::of(&s)
}

#[tokio::test]
async fn a_prefill_shows_no_password() {
    let (mut nats, udm) = behind().await;
    let task = registered(&nats).await;
    let folder = tempfile::tempdir().unwrap();
    let (task_file, termination) = (folder.path().join("task.json"), folder.path().join("termination"));
    std::fs::write(&task_file, serde_json::to_vec(&task).unwrap()).unwrap();
    let prefill = |level: &str, nats: &NatsServer| {
        let mut command = headstart(&["prefill", "--source", &udm.base_url()]);
        command.env("PREFILL_TASK", &task_file).env("TERMINATION_LOG", &termination);
        command.env("UDM_REFUSED_SECONDS", "1");
        Process::start(with_secrets(command, level, nats))
    };
    let told = |reason: &str| {
        let message = std::fs::read(&termination).unwrap();
        assert_clean("the termination message", &message);
        let text = String::from_utf8(message).unwrap();
        assert!(text.contains(reason), "{reason} is not in {text}");
        std::fs::remove_file(&termination).unwrap();
    };
    for level in LEVELS {
        let mut refused_by_udm = prefill(level, &nats);
        let code = refused_by_udm.ended().await;
        assert_eq!(code, Some(model::ExitCode::CredentialsRefused as i32), "{}", refused_by_udm.log());
        refused_by_udm.finish(level).await;
        told("cn=admin");
    }
    // Addresses are no place for passwords, and don't show them either.
    let with_password =
        |url: &str, (user, password): (&str, &str)| url.replace("://", &format!("://{user}:{password}@"));
    for (setting, value) in
        [("SOURCE", with_password(&udm.base_url(), UDM)), ("NATS_URL", with_password(&nats.url(), NATS))]
    {
        let mut command = headstart(&["prefill"]);
        command.env("PREFILL_TASK", &task_file).env("TERMINATION_LOG", &termination);
        let mut command = with_secrets(command, LEVELS[1], &nats);
        command.env("SOURCE", udm.base_url()).env(setting, value);
        let mut refused = Process::start(command);
        assert_eq!(refused.ended().await, Some(model::ExitCode::BadRequest as i32), "{}", refused.log());
        refused.finish(setting).await;
        told("bad_request");
    }
    // NATS has another password now: it is tried until somebody ends it.
    nats.restart_with("8MB", "authorization { user: headstart, password: other }").await;
    for level in LEVELS {
        let mut refused_by_nats = prefill(level, &nats);
        refused_by_nats.logs("can't connect to NATS").await;
        refused_by_nats.finish(level).await;
        told("NATS");
    }
}

/// Passwords go to whom they are for: a proxy of the environment would see them.
#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_of_the_environment_sees_a_password() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let population = Population { users: 1, ..Population::default() };
    let udm = StandIn::start(Directory::generated(population), Faults::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.jsonl");
    let consumer = json!({"name": "mail", "password": "pw", "realms_topics": [], "request_prefill": false});
    std::fs::write(folder.path().join("mail.json"), consumer.to_string()).unwrap();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let consumers = ["register", "--api", &nowhere, "--wait-seconds", "1", "--consumers"];
    let mut register = headstart(&consumers);
    register.arg(folder.path());
    let mut export =
        headstart(&["export", "--source", &udm.base_url(), "--topic", "groups/group", "--output"]);
    export.arg(&dump);
    let validate = headstart(&["validate", "--source", &udm.base_url()]);
    let watch = headstart(&["watch", "mail", "--api", &nowhere, "--timeout", "1"]);
    for (mut command, well) in [(validate, true), (export, true), (register, false), (watch, false)] {
        command.env("UDM_PASSWORD", "univention").env("ADMIN_PASSWORD", ADMIN.1);
        for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env(variable, &address);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), well, "{command:?}: {text}");
        let asked = proxy.accept().map(|(_, from)| from);
        assert!(asked.is_err(), "{command:?} asked the proxy");
    }
}
