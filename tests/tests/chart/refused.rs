//! What each component must not do on NATS, really tried: the server refuses it, and nothing changes.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{Client, ConnectOptions, Event};
use broker::{
    Broker, NatsConfig, Secret,
    testing::{NatsServer, eventually, ready_subscription_with},
};
use model::{Subscription, subscription::Registration};
use tokio::sync::mpsc;

use crate::rights::server;

const SOON: Duration = Duration::from_secs(20);
/// Streams that are no queues.
const SHARED: [&str; 7] = [
    "incoming",
    "tasks",
    "dead-letters",
    "KV_SUBSCRIPTIONS",
    "KV_CREDENTIALS",
    "KV_PREFILL",
    "KV_DISPATCHER",
];

/// A component's user, with whatever client it likes.
struct Intruder {
    role: &'static str,
    client: Client,
    errors: mpsc::UnboundedReceiver<String>,
}

impl Intruder {
    async fn new(server: &NatsServer, role: &'static str) -> Self {
        let (sender, errors) = mpsc::unbounded_channel();
        let client = ConnectOptions::with_user_and_password(role.to_owned(), role.to_uppercase())
            .custom_inbox_prefix(format!("_INBOX_{role}"))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    sender.send(error.to_string()).ok();
                }
                std::future::ready(())
            })
            .connect(server.url())
            .await
            .unwrap();
        Self { role, client, errors }
    }

    /// Publishes, as every request does, and is refused in so many words.
    async fn publish(&mut self, subject: &str) {
        let (inbox, payload) = (self.client.new_inbox(), "{}".into());
        self.client.publish_with_reply(subject.to_owned(), inbox, payload).await.unwrap();
        self.refused("Publish", subject).await;
    }

    async fn subscribe(&mut self, subject: &str) {
        let _subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.refused("Subscription", subject).await;
    }

    async fn refused(&mut self, what: &str, subject: &str) {
        let error = tokio::time::timeout(SOON, self.errors.recv()).await;
        let error = error.unwrap_or_else(|_| panic!("{} may do {what} of {subject}", self.role)).unwrap();
        assert!(
            error.to_lowercase().contains("permissions violation")
                && error.to_lowercase().contains(&what.to_lowercase())
                && error.contains(subject),
            "{}: {error}",
            self.role
        );
    }
}

/// What nobody may do, the API's user included.
fn for_nobody() -> Vec<String> {
    let mut subjects: Vec<String> = [
        // Whole streams, credentials among them, from and to files; other accounts; the server itself.
        "$JS.API.STREAM.SNAPSHOT.KV_CREDENTIALS",
        "$JS.API.STREAM.RESTORE.KV_CREDENTIALS",
        "$JS.API.ACCOUNT.PURGE.x",
        "$JS.API.SERVER.REMOVE",
        "$JS.API.STREAM.PEER.REMOVE.incoming",
        "$JS.API.META.LEADER.STEPDOWN",
        "$JS.API.STREAM.LEADER.STEPDOWN.incoming",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        // Subjects that no component writes, or only another one.
        "incoming.other",
        "$KV.OTHER.x",
        "_INBOX.x",
    ]
    .map(str::to_owned)
    .to_vec();
    subjects.extend(ROLES.iter().map(|role| format!("_INBOX_{role}.x")));
    subjects
}

const ROLES: [&str; 5] = ["api", "dispatcher", "controller", "prefill", "worker"];

/// What the others may not do, `queue` being the stream of somebody's queue.
fn for_role(role: &str, queue: &str) -> Vec<String> {
    let mut subjects = Vec::new();
    let mut add = |some: &[&str]| subjects.extend(some.iter().map(|s| (*s).to_owned()));
    if role != "api" {
        add(&[
            "incoming.event",
            "headstart.removed.mail.x",
            "$JS.API.STREAM.CREATE.mine",
            "$JS.API.STREAM.CREATE.incoming",
            "$JS.API.STREAM.UPDATE.incoming",
            "$JS.API.STREAM.UPDATE.KV_CREDENTIALS",
            // NATS does not look at the subject that an answer shall go to, and a direct get answers what is stored as it
            // is: whoever may write one bucket could put words of their own into all others by it, such as a password.
            "$JS.API.DIRECT.GET.KV_CREDENTIALS",
            "$JS.API.DIRECT.GET.KV_CREDENTIALS.$KV.CREDENTIALS.mail",
            "$JS.API.DIRECT.GET.KV_PREFILL",
            "$JS.API.DIRECT.GET.KV_PREFILL.$KV.PREFILL.mail",
            "$JS.API.DIRECT.GET.KV_SUBSCRIPTIONS",
            "$JS.API.DIRECT.GET.KV_SUBSCRIPTIONS.$KV.SUBSCRIPTIONS.mail",
            "$JS.API.DIRECT.GET.KV_DISPATCHER",
            "$JS.API.DIRECT.GET.incoming",
            "$JS.API.CONSUMER.CREATE.KV_CREDENTIALS",
            "$JS.API.CONSUMER.CREATE.KV_CREDENTIALS.mine.$KV.CREDENTIALS.mail",
            "$JS.API.CONSUMER.DURABLE.CREATE.KV_CREDENTIALS.mine",
        ]);
    }
    match role {
        "api" => add(&[
            "mail.prefill",
            "mail.known.prefill.1-1",
            "dead-letters.mail.x",
            "$KV.DISPATCHER.position",
            "tasks.other.mail",
        ]),
        "dispatcher" => add(&[
            "mail.known.prefill.1-1",
            "mail.fence",
            "mail.prefill",
            "incoming.marker",
            "tasks.prefill.mail",
            "$KV.CREDENTIALS.mail",
            "$KV.PREFILL.mail",
            "$JS.API.STREAM.MSG.GET.KV_CREDENTIALS",
        ]),
        "controller" => add(&[
            "mail.known.live.1-0",
            "mail.known.prefill.1-1",
            "mail.main",
            "mail.prefill",
            "mail.copied",
            "dead-letters.mail.x",
            "$KV.DISPATCHER.position",
            "$JS.API.STREAM.PURGE.incoming",
            "$JS.API.STREAM.PURGE.tasks",
            "$JS.API.CONSUMER.CREATE.incoming",
        ]),
        "prefill" | "worker" => add(&[
            "mail.known.live.1-0",
            "mail.main",
            "mail.copied",
            "incoming.marker",
            "tasks.prefill.mail",
            "$KV.CREDENTIALS.mail",
            "$KV.DISPATCHER.position",
            "$JS.API.STREAM.MSG.GET.KV_CREDENTIALS",
            "$JS.API.STREAM.MSG.GET.incoming",
            "$JS.API.STREAM.MSG.GET.dead-letters",
            "$JS.API.CONSUMER.CREATE.incoming",
        ]),
        other => panic!("{other}"),
    }
    if role == "prefill" {
        add(&[
            "$KV.SUBSCRIPTIONS.mail",
            "$JS.API.STREAM.MSG.GET.KV_SUBSCRIPTIONS",
            "$JS.API.CONSUMER.CREATE.KV_SUBSCRIPTIONS",
            "$JS.API.STREAM.MSG.GET.tasks",
            "$JS.API.CONSUMER.CREATE.tasks",
        ]);
        add(&[&format!("$JS.API.STREAM.MSG.DELETE.{queue}")]);
    }
    // The dispatcher gives queues up, the controller removes them; a prefill does neither.
    if ["prefill", "worker"].contains(&role) {
        add(&[&format!("$JS.API.STREAM.DELETE.{queue}")]);
    }
    if role != "api" {
        for stream in SHARED {
            add(&[&format!("$JS.API.STREAM.DELETE.{stream}")]);
            // The dispatcher purges what it has copied of `incoming`, the controller the letters of who is gone.
            let needs =
                [("dispatcher", "incoming"), ("controller", "dead-letters"), ("worker", "dead-letters")];
            if !needs.contains(&(role, stream)) {
                add(&[&format!("$JS.API.STREAM.PURGE.{stream}")]);
            }
            // The controller removes the task of a removed subscription.
            if (role, stream) != ("controller", "tasks") {
                add(&[&format!("$JS.API.STREAM.MSG.DELETE.{stream}")]);
            }
        }
    }
    subjects
}

/// What nobody may listen to: others' answers, queues, what is asked of JetStream.
fn unheard(role: &str) -> Vec<String> {
    let mut subjects: Vec<String> = [
        ">",
        "*",
        "*.>",
        "*.main",
        "*.prefill",
        "mail.>",
        "incoming.>",
        "tasks.>",
        "$KV.>",
        "$KV.CREDENTIALS.mail",
        "$JS.API.>",
        "$JS.EVENT.>",
        "$SYS.>",
        "_INBOX.>",
        "_INBOX*.>",
    ]
    .map(str::to_owned)
    .to_vec();
    subjects.extend(ROLES.iter().filter(|other| **other != role).map(|other| format!("_INBOX_{other}.>")));
    subjects
}

async fn connect(server: &NatsServer, component: &'static str) -> Broker {
    let password = Some(Secret::new(component.to_uppercase()));
    let config = NatsConfig { user: Some(component.to_owned()), password, ..server.config(component) };
    Broker::connect(&config).await.unwrap()
}

async fn registered(api: &Broker) -> Subscription {
    api.create_layout().await.unwrap();
    let tracked = |registration: &mut Registration| registration.track = true;
    let (mail, _queue) = ready_subscription_with(api, &["users/user"], tracked).await;
    api.credentials().put(&mail.name, mail.incarnation, "$argon2id$x").await.unwrap();
    api.events().marker(&mail).await.unwrap();
    mail
}

/// Every stream with its first and last number and its number of messages.
async fn streams(client: &Client) -> BTreeMap<String, (u64, u64, u64)> {
    let answer = client.request("$JS.API.STREAM.LIST", "{}".into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    let number = |state: &serde_json::Value, field: &str| state[field].as_u64().unwrap();
    let streams = answer["streams"].as_array().unwrap().iter().map(|stream| {
        let (name, state) = (stream["config"]["name"].as_str().unwrap().to_owned(), &stream["state"]);
        (name, (number(state, "first_seq"), number(state, "last_seq"), number(state, "messages")))
    });
    streams.collect()
}

async fn refused_to(launcher: &str, roles: &[&'static str]) {
    let server = server(launcher).await;
    let api = connect(&server, "api").await;
    registered(&api).await;
    let watcher = Intruder::new(&server, "api").await;
    let before = streams(&watcher.client).await;
    assert_eq!(before.len(), SHARED.len() + 1, "{before:?}");
    let queue = before.keys().find(|name| name.starts_with("stream:mail:")).unwrap().clone();
    for role in roles {
        let mut intruder = Intruder::new(&server, role).await;
        // What it may is not refused, so that the refusals below mean something.
        let may = intruder.client.request("$JS.API.STREAM.INFO.incoming", "".into()).await.unwrap();
        assert!(may.length > 0 && intruder.errors.is_empty(), "{role}");
        let own = format!("_INBOX_{role}.x");
        for subject in for_nobody().into_iter().chain(for_role(role, &queue)).filter(|s| *s != own) {
            intruder.publish(&subject).await;
        }
        for subject in unheard(role) {
            intruder.subscribe(&subject).await;
        }
        assert!(intruder.errors.is_empty(), "{role}");
    }
    let look = async || streams(&watcher.client).await;
    eventually("all is as before", SOON, look, |now| *now == before).await;
}

#[tokio::test]
async fn with_kubernetes_what_is_not_ones_work_is_refused() {
    refused_to("kubernetes", &["api", "dispatcher", "controller", "prefill"]).await;
}

#[tokio::test]
async fn with_the_task_queue_what_is_not_ones_work_is_refused() {
    refused_to("queue", &["api", "dispatcher", "controller", "worker"]).await;
}

/// Whoever has no password, or somebody else's, gets nowhere.
#[tokio::test]
async fn passwords_are_not_interchangeable() {
    let server = server("kubernetes").await;
    for (user, password) in
        [("api", "PREFILL"), ("prefill", "API"), ("api", ""), ("worker", "WORKER"), ("x", "x")]
    {
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
        let error = options.connect(server.url()).await.unwrap_err();
        assert_eq!(error.kind(), async_nats::ConnectErrorKind::AuthorizationViolation, "{user}");
    }
}
