//! Actions on a real NATS and a mocked API server: each holds its condition.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::{
    Broker,
    testing::{NatsServer, eventually},
};
use model::{Incarnation, RealmTopic, subscription::Registration};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{Answer, Asked, TEMPLATE, api_server, status};

struct Scene {
    actor: Actor,
    broker: Broker,
    entry: Subscription,
    asked: Arc<Mutex<Vec<Asked>>>,
    _stop: tokio_util::sync::DropGuard,
    _nats: NatsServer,
}

impl Scene {
    /// A ready subscription with a pending prefill.
    async fn new(answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static) -> Self {
        let nats = NatsServer::start().await;
        let broker = nats.broker().await;
        let registration = Registration {
            request_prefill: true,
            ..Registration::new(
                "mail".parse().unwrap(),
                vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            )
        };
        let mut entry = Subscription::reserve(registration, Incarnation(uuid::Uuid::new_v4()), 1, now());
        entry.lifecycle = Lifecycle::Ready;
        entry.prefill.boundary = Some(4);
        broker.registry().create(&entry).await.unwrap();
        let asked = Arc::new(Mutex::new(vec![]));
        let seen = asked.clone();
        let client = api_server(move |request| {
            let answer = answer(&request);
            seen.lock().unwrap().push(request);
            answer
        });
        let template = JobTemplate::parse(TEMPLATE).unwrap();
        let stop = CancellationToken::new();
        let actor = Actor {
            broker: broker.clone(),
            view: broker.registry().view(stop.clone()),
            cluster: Cluster::new(client.clone(), "test", &template),
            announcer: Announcer::start(client, "test", "pod".into(), stop.clone()),
            template,
            metrics: Metrics::default(),
            before_write: None,
        };
        Self { actor, broker, entry, asked, _stop: stop.drop_guard(), _nats: nats }
    }

    fn task(&self) -> PrefillTask {
        PrefillTask::of(&self.entry)
    }

    fn job(&self) -> JobRef {
        JobRef { identity: Identity::from(&self.task()), uid: "u".into(), version: "5".into(), asked: None }
    }

    async fn modify(&self, change: impl FnMut(&Subscription) -> Option<Subscription>) {
        let modified = self.broker.registry().modify(&self.entry.name, self.entry.incarnation, change).await;
        assert!(matches!(modified, Ok(Modified::Changed(_))), "{modified:?}");
    }

    async fn current(&self) -> Subscription {
        self.broker.registry().subscription(&self.entry.name).await.unwrap().unwrap().value
    }

    fn record(&self, state: PrefillState, reason: Option<Reason>) -> Action {
        let identity = Identity::from(&self.task());
        Action::Record { identity, state, reason, message: None, objects: None, job: None }
    }

    /// What the API server was asked, but for Events.
    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let others = asked.iter().filter(|request| !request.path.contains("/events"));
        others.map(|r| format!("{} {}", r.method, r.path.split('?').next().unwrap())).collect()
    }
}

fn silent(_: &Asked) -> Answer {
    status(500, "InternalError")
}

#[tokio::test]
async fn a_state_is_recorded_once_and_never_taken_back() {
    use PrefillState::{Done, Failed, Running};
    let scene = Scene::new(silent).await;
    for (state, reason, expected) in [
        (Running, None, Outcome::Done),
        (Running, None, Outcome::LookAgain),
        (Failed, Some(Reason::JobDeleted), Outcome::Done),
        (Running, None, Outcome::LookAgain),
        (Done, None, Outcome::Done),
        (Failed, Some(Reason::JobDeleted), Outcome::LookAgain),
    ] {
        assert_eq!(scene.actor.act(&scene.record(state, reason)).await.unwrap(), expected, "{state:?}");
    }
    assert_eq!(scene.current().await.prefill.state, Done);
}

#[tokio::test]
async fn what_was_decided_about_another_attempt_is_not_recorded() {
    let scene = Scene::new(silent).await;
    let late = scene.record(PrefillState::Failed, Some(Reason::ImagePull));
    scene.actor.act(&late).await.unwrap();
    scene.modify(|s| s.with_prefill_again(now())).await;
    assert_eq!(scene.actor.act(&late).await.unwrap(), Outcome::LookAgain);
    assert_eq!(scene.current().await.prefill.state, PrefillState::Pending);
}

#[tokio::test]
async fn the_next_attempt_keeps_round_and_boundary() {
    let scene = Scene::new(silent).await;
    let next = Action::NextAttempt {
        identity: Identity::from(&scene.task()),
        job: scene.job(),
        reason: Reason::StuckTerminating,
        message: "stuck".into(),
    };
    assert_eq!(scene.actor.act(&next).await.unwrap(), Outcome::Done);
    let prefill = scene.current().await.prefill;
    assert_eq!((prefill.attempt, prefill.round, prefill.boundary), (2, 1, Some(4)));
    assert_eq!(prefill.state, PrefillState::Pending);
    // Decided twice, or by two controllers: once is enough.
    assert_eq!(scene.actor.act(&next).await.unwrap(), Outcome::LookAgain);
    assert_eq!(scene.current().await.prefill.attempt, 2);
}

#[tokio::test]
async fn a_job_of_a_view_that_lags_behind_is_not_deleted() {
    let scene = Scene::new(|_| Answer::Json(200, json!({"kind": "Status", "apiVersion": "v1"}))).await;
    let delete = Action::Delete { job: scene.job(), why: Deletion::Unwanted };
    assert_eq!(scene.actor.act(&delete).await.unwrap(), Outcome::LookAgain);
    assert_eq!(scene.asked(), [""; 0], "it is the Job of the current attempt, as the leader knows");
    scene.broker.remove_subscription(&scene.entry.name, scene.entry.incarnation).await.unwrap();
    assert_eq!(scene.actor.act(&delete).await.unwrap(), Outcome::LookAgain, "until it is seen no more");
    let path = format!("DELETE /apis/batch/v1/namespaces/test/jobs/{}", scene.job().identity.job_name());
    assert_eq!(scene.asked(), [path]);
}

#[tokio::test]
async fn a_job_is_made_with_its_config_map_also_when_it_exists() {
    let template = JobTemplate::parse(TEMPLATE).unwrap();
    let found = Arc::new(Mutex::new(Value::Null));
    let existing = found.clone();
    let scene =
        Scene::new(move |request: &Asked| match (request.method.as_str(), request.path.contains("/jobs")) {
            ("POST", true) => status(409, "AlreadyExists"),
            ("GET", true) => Answer::Json(200, existing.lock().unwrap().clone()),
            _ => Answer::Json(201, request.body.clone()),
        })
        .await;
    let mut job = manifests::job(&template, &scene.task());
    job.metadata.uid = Some("of-the-api".into());
    *found.lock().unwrap() = json!(job);
    scene.actor.act(&Action::CreateJob(scene.task())).await.unwrap();
    let name = scene.job().identity.job_name();
    assert_eq!(
        scene.asked(),
        [
            "POST /apis/batch/v1/namespaces/test/jobs".to_owned(),
            format!("GET /apis/batch/v1/namespaces/test/jobs/{name}"),
            "POST /api/v1/namespaces/test/configmaps".to_owned(),
        ]
    );
    let owner = scene.asked.lock().unwrap()[2].body["metadata"]["ownerReferences"][0]["uid"].clone();
    assert_eq!(owner, "of-the-api");

    // Somebody's Job of the same name is not taken for ours.
    job.metadata.annotations = None;
    *found.lock().unwrap() = json!(job);
    let error = scene.actor.act(&Action::CreateJob(scene.task())).await.unwrap_err();
    assert!(matches!(&error, Error::NameTaken { name: taken } if *taken == name), "{error:?}");
}

#[tokio::test]
async fn no_job_is_made_for_what_is_not_asked_for_any_more() {
    let scene = Scene::new(silent).await;
    let late = Action::CreateJob(scene.task());
    scene
        .modify(|s| s.with_prefill_state(PrefillState::Failed, None, None, now())?.with_prefill_again(now()))
        .await;
    assert_eq!(scene.actor.act(&late).await.unwrap(), Outcome::LookAgain);
    assert_eq!(scene.asked(), [""; 0]);
}

#[tokio::test]
async fn a_job_is_admitted_only_as_it_was_looked_at() {
    let scene = Scene::new(|_| status(409, "Conflict")).await;
    assert_eq!(scene.actor.act(&Action::Admit(scene.job())).await.unwrap(), Outcome::LookAgain);
    let asked = scene.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.body["metadata"]["resourceVersion"], "5");
    assert_eq!(asked.body["metadata"]["uid"], "u");
    assert_eq!(asked.body["spec"], json!({"suspend": false}));
    assert!(asked.body["metadata"]["annotations"][annotations::ADMITTED_AT].is_string());
}

#[tokio::test]
async fn a_job_that_cant_be_made_says_why_and_is_tried_again() {
    for (message, expected) in [
        ("jobs.batch is forbidden: exceeded quota: q", Reason::QuotaExceeded),
        ("admission webhook denied the request", Reason::PodRefused),
    ] {
        let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                             "reason": "Forbidden", "message": message});
        let scene = Scene::new(move |_| Answer::Json(403, refusal.clone())).await;
        let error = scene.actor.act(&Action::CreateJob(scene.task())).await.unwrap_err();
        assert!(!error.is_transient(), "{error:?}");
        let prefill = scene.current().await.prefill;
        assert_eq!((prefill.state, prefill.reason), (PrefillState::Pending, Some(expected)));
        assert_eq!(prefill.message.as_deref(), Some(message));
    }
    // What may pass in a moment is no reason.
    let scene = Scene::new(|_| status(429, "TooManyRequests")).await;
    assert!(scene.actor.act(&Action::CreateJob(scene.task())).await.is_err());
    assert_eq!(scene.current().await.prefill.reason, None);
}

/// The API server has the Job in version 9, with that request.
async fn with_request(asked: &'static str) -> Scene {
    Scene::new(move |request: &Asked| match request.method.as_str() {
        "PATCH" if request.body["metadata"]["resourceVersion"] != "9" => status(409, "Conflict"),
        "PATCH" => Answer::Json(200, json!({"metadata": {}})),
        _ => Answer::Json(
            200,
            json!({"metadata": {"uid": "u", "resourceVersion": "9",
                                "annotations": {annotations::REQUEST: asked}}}),
        ),
    })
    .await
}

#[tokio::test]
async fn a_request_is_dealt_with_although_its_job_has_changed_meanwhile() {
    let scene = with_request("pause").await;
    let pause = Action::Obey { job: scene.job(), request: crate::decide::Request::Pause };
    scene.actor.act(&pause).await.unwrap();
    assert!(scene.current().await.prefill.paused);
    let name = scene.job().identity.job_name();
    let job = format!("/apis/batch/v1/namespaces/test/jobs/{name}");
    assert_eq!(scene.asked(), [format!("PATCH {job}"), format!("GET {job}"), format!("PATCH {job}")]);
}

#[tokio::test]
async fn a_request_that_has_taken_the_place_of_another_is_not_taken_away() {
    let scene = with_request("resume").await;
    let pause = Action::Obey { job: scene.job(), request: crate::decide::Request::Pause };
    scene.actor.act(&pause).await.unwrap();
    assert_eq!(scene.asked().len(), 2, "no second PATCH: {:?}", scene.asked());
}

#[tokio::test]
async fn a_cancelled_attempt_can_not_seal_any_more() {
    let scene = with_request("cancel").await;
    let queue = scene.broker.queue(&scene.entry.name, scene.entry.incarnation);
    queue.create(&scene.entry).await.unwrap();
    let broker::Claimed::Holder(mut holder) = queue.claim_fence(1, 1, "pod").await.unwrap() else {
        panic!("the fence is free")
    };
    let cancel = Action::Obey { job: scene.job(), request: crate::decide::Request::Cancel };
    scene.actor.act(&cancel).await.unwrap();
    assert!(holder.seal(model::fence::Counts::default()).await.is_err());
    let prefill = scene.current().await.prefill;
    assert_eq!((prefill.state, prefill.reason), (PrefillState::Failed, Some(Reason::Cancelled)));
}

/// A policy, a webhook, or a right that is missing on `patch`.
#[tokio::test]
async fn what_kubernetes_refuses_to_start_or_to_suspend_is_shown_in_its_words() {
    use PrefillState::{Pending, Running};
    let webhook = format!("admission webhook \"kyverno\" denied the request: {}", "ä".repeat(4000));
    for (code, message) in [
        (403, "jobs.batch is forbidden: ValidatingAdmissionPolicy 'jobs' denied request: no"),
        (422, "spec.template: Invalid value: field is immutable"),
        (500, "Internal error occurred: failed calling webhook \"kyverno\": connection refused"),
        (400, webhook.as_str()),
    ] {
        let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                             "reason": "Forbidden", "message": message});
        for state in [Pending, Running] {
            let refusal = refusal.clone();
            let scene = Scene::new(move |_| Answer::Json(code, refusal.clone())).await;
            if state == Running {
                scene.modify(|s| s.with_prefill_state(Running, None, None, now())).await;
            }
            for action in [Action::Admit(scene.job()), Action::Suspend(scene.job())] {
                scene.actor.act(&action).await.unwrap_err();
                let prefill = scene.current().await.prefill;
                assert_eq!((prefill.state, prefill.reason), (state, Some(Reason::PodRefused)), "{message}");
                let told = prefill.message.unwrap();
                assert!(message.starts_with(told.trim_end_matches('…')) && told.len() <= 600, "{told}");
            }
        }
    }
    // What may pass in a moment is no reason.
    for (code, word) in [(401, "Unauthorized"), (429, "TooManyRequests"), (500, "InternalError")] {
        let scene = Scene::new(move |_| status(code, word)).await;
        scene.actor.act(&Action::Admit(scene.job())).await.unwrap_err();
        assert_eq!(scene.current().await.prefill.reason, None, "{word}");
    }
}

/// Two answers of one word within minutes: each is to be read in `kubectl describe`, and one that is the same is counted.
#[tokio::test]
async fn events_of_one_word_keep_their_own_texts() {
    let scene = Scene::new(|request| match request.method.as_str() {
        "PATCH" | "POST" => Answer::Json(200, request.body.clone()),
        _ => status(404, "NotFound"),
    })
    .await;
    let long = "ü".repeat(2000);
    for note in ["pause: done", "resume: done", "pause: done", long.as_str()] {
        scene.actor.note(&scene.job(), "Answer", "RequestDone", note.to_owned());
    }
    let events = || -> Vec<Asked> {
        let asked = scene.asked.lock().unwrap();
        asked.iter().filter(|request| request.path.contains("/events")).cloned().collect()
    };
    let began = std::time::Instant::now();
    while events().len() < 4 {
        assert!(began.elapsed().as_secs() < 20, "{:?}", events());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let told: Vec<_> =
        events().iter().map(|event| (event.method.clone(), event.body["note"].to_string())).collect();
    let short = |text: &str| text.chars().take(8).collect::<String>();
    let told: Vec<_> = told.iter().map(|(method, note)| format!("{method} {}", short(note))).collect();
    assert_eq!(told, ["POST \"pause: ", "POST \"resume:", "PATCH \"pause: ", "POST \"üüüüüüü"]);
    assert!(events()[3].body["note"].as_str().unwrap().len() <= 1024);
    assert_eq!(events()[2].body["series"]["count"], 2);
}

#[tokio::test]
async fn a_job_of_another_attempt_of_this_number_is_left_as_it_is() {
    let template = JobTemplate::parse(TEMPLATE).unwrap();
    let found = Arc::new(Mutex::new(Value::Null));
    let existing = found.clone();
    let scene = Scene::new(move |request: &Asked| match request.method.as_str() {
        "POST" => status(409, "AlreadyExists"),
        _ => Answer::Json(200, existing.lock().unwrap().clone()),
    })
    .await;
    let mut former = scene.entry.clone();
    former.prefill.asked = "2020-01-01T00:00:00".parse().ok();
    let mut job = manifests::job_of(&template, &former);
    job.metadata.uid = Some("of-a-lost-future".into());
    *found.lock().unwrap() = json!(job);
    assert_eq!(scene.actor.act(&Action::CreateJob(scene.task())).await.unwrap(), Outcome::LookAgain);
    assert!(!scene.asked().iter().any(|asked| asked.contains("configmaps")), "{:?}", scene.asked());
}

#[tokio::test]
async fn what_could_not_start_begins_again_once() {
    let scene = Scene::new(silent).await;
    let again = Action::StartAgain(Identity::from(&scene.task()));
    assert_eq!(scene.actor.act(&again).await.unwrap(), Outcome::LookAgain, "it has not failed");
    scene.modify(|s| s.with_prefill_state(PrefillState::Failed, Some(Reason::ImagePull), None, now())).await;
    assert_eq!(scene.actor.act(&again).await.unwrap(), Outcome::Done);
    assert_eq!(scene.actor.act(&again).await.unwrap(), Outcome::LookAgain);
    let prefill = scene.current().await.prefill;
    assert_eq!((prefill.attempt, prefill.state, prefill.boundary), (2, PrefillState::Pending, Some(4)));
    // Cancelled stays cancelled.
    scene.modify(|s| s.with_prefill_state(PrefillState::Failed, Some(Reason::Cancelled), None, now())).await;
    let again = Action::StartAgain(Identity::from(&PrefillTask::of(&scene.current().await)));
    assert_eq!(scene.actor.act(&again).await.unwrap(), Outcome::LookAgain);
    let late = Action::Record {
        identity: Identity::from(&PrefillTask::of(&scene.current().await)),
        state: PrefillState::Running,
        reason: None,
        message: None,
        objects: None,
        job: None,
    };
    assert_eq!(scene.actor.act(&late).await.unwrap(), Outcome::LookAgain);
    assert_eq!(scene.current().await.prefill.reason, Some(Reason::Cancelled));
}

#[tokio::test]
async fn what_a_done_prefill_lacks_is_a_warning_among_the_events_and_stays_in_the_entry() {
    let scene = Scene::new(silent).await;
    let lacks = scene.record(PrefillState::Done, Some(Reason::TopicsMissing));
    assert_eq!(scene.actor.act(&lacks).await.unwrap(), Outcome::Done);
    let prefill = scene.current().await.prefill;
    assert_eq!((prefill.state, prefill.reason), (PrefillState::Done, Some(Reason::TopicsMissing)));
    let events = async || {
        let asked = scene.asked.lock().unwrap();
        let events = asked.iter().filter(|request| request.path.contains("/events"));
        events.map(|event| (event.body["type"].clone(), event.body["reason"].clone())).collect::<Vec<_>>()
    };
    let told = eventually("an Event", Duration::from_secs(20), events, |events| !events.is_empty()).await;
    assert_eq!(told[0], (json!("Warning"), json!("TopicsMissing")));
}
