//! The documentation of failures: what is seen, and what is done about it.

use std::time::Duration;

use model::{PrefillState::*, Reason, fence::FenceState::*, prefill::Progress, subscription::Lifecycle};

use super::{
    Action,
    world::{MINE, OTHER, World},
};
use crate::observed::{Fate, FenceSeen, InputSeen, Late, PodPhase};

mod people;

fn words(action: &Action) -> String {
    match action {
        Action::Record { state, reason: Some(reason), .. } => format!("{} {reason}", state.as_str()),
        Action::Record { state, reason: None, .. } => state.as_str().to_owned(),
        Action::NextAttempt { reason, .. } => format!("next attempt {reason}"),
        Action::StartAgain(identity) => format!("start again after {}", identity.attempt),
        Action::CreateJob(task) => format!("create job {}", task.attempt),
        Action::CreateInput { .. } => "create input".to_owned(),
        Action::Admit(_) => "admit".to_owned(),
        Action::Suspend(_) => "suspend".to_owned(),
        Action::Relabel { .. } => "relabel".to_owned(),
        Action::Obey { request, .. } => format!("obey {}", request.as_str()),
        Action::Refuse { asked, why, .. } => format!("refuse {asked}: {why}"),
        Action::Delete { job, why } => format!("delete {} {}", job.uid, why.as_str()),
        other => format!("{other:?}"),
    }
}

/// Each line: what is seen, in a sentence and as a world; and what is done, "" for nothing.
fn table(cases: Vec<(&str, World, &str)>) {
    for (name, world, expected) in cases {
        let deeds: Vec<String> = world.deeds().iter().map(words).collect();
        assert_eq!(deeds.join(", "), expected, "{name}");
    }
}

fn pending() -> World {
    World::new()
}

fn queued() -> World {
    World::new().state(Pending, Some(Reason::Queued))
}

fn running() -> World {
    World::new().state(Running, None)
}

fn failed() -> World {
    World::new().state(Failed, Some(Reason::BackoffLimitExceeded))
}

fn done() -> World {
    World::new().state(Done, None)
}

fn image_pull() -> PodPhase {
    PodPhase::Pending(Some((Reason::ImagePull, "ImagePullBackOff: no such image".into())))
}

fn dead() -> Fate {
    Fate::Failed { reason: "BackoffLimitExceeded".into(), message: String::new() }
}

#[test]
fn the_way_without_trouble() {
    table(vec![
        ("registered, the marker is not reached: no word for a moment", pending().no_boundary().job(), ""),
        (
            "registered, the marker is not reached for a while",
            pending().no_boundary().job().after(2),
            "pending WaitingForBoundary",
        ),
        ("the marker is reached, there is a place", pending().job(), "admit"),
        ("no place: no word for a moment", pending().no_place().job(), ""),
        ("no place for a while", pending().no_place().job().after(2), "pending Queued"),
        (
            "the marker is reached, but there is no place: the word is wrong at once",
            pending().state(Pending, Some(Reason::WaitingForBoundary)).no_place().job(),
            "pending Queued",
        ),
        ("queued, and said so", queued().no_place().job().after(3600), ""),
        ("queued, and a place gets free", queued().job().after(3600), "admit"),
        ("admitted, no pod for a moment", pending().admitted(), ""),
        ("admitted, no pod for a while", pending().admitted().after(2), "pending Starting"),
        ("admitted after it was queued", queued().admitted(), "pending Starting"),
        ("the pod runs", pending().admitted().pod(PodPhase::Running), "running"),
        ("the pod runs, and said so", running().admitted().pod(PodPhase::Running).after(9999), ""),
        ("sealed, the pod still runs", running().sealed().admitted().pod(PodPhase::Running), "done"),
        ("sealed and complete", running().sealed().admitted().fate(Fate::Complete), "done"),
        (
            "sealed, and an object is missing",
            running().sealed_without_one().admitted().fate(Fate::Complete),
            "done ObjectsSetAside",
        ),
        ("done, the Job is kept", done().sealed().admitted().fate(Fate::Complete).after(3599), ""),
        (
            "done, kept long enough",
            done().sealed().admitted().fate(Fate::Complete).after(3600),
            "delete uid-1 kept",
        ),
        ("no prefill was asked for", done().attempt(0), ""),
    ]);
}

#[test]
fn the_fence_is_looked_at_first() {
    table(vec![
        ("sealed, then the Job failed", running().sealed().admitted().fate(dead()), "done"),
        ("sealed, then the Job was deleted", running().sealed(), "done"),
        (
            "sealed, then suspended by hand",
            running().sealed().admitted().with_job(|j| j.suspended = true),
            "done",
        ),
        ("sealed after it was given up", failed().sealed(), "done"),
        ("sealed by a Job that was resumed by hand", pending().sealed().admitted(), "done"),
        (
            "an earlier attempt sealed: nothing of this one is known by that",
            running().attempt(2).sealed().job_of(MINE, 2).fate(Fate::Complete),
            "failed EndedWithoutSeal",
        ),
        ("a later attempt has the fence: our view lags behind", running().fence(2, Sealed), ""),
        ("complete without a seal", running().admitted().fate(Fate::Complete), "failed EndedWithoutSeal"),
        (
            "complete, the fence was not read",
            running().fence_seen(FenceSeen::NotRead).admitted().fate(Fate::Complete),
            "",
        ),
        ("no Job, the fence was not read", running().fence_seen(FenceSeen::NotRead), ""),
        ("cancelled, and the canceller died", running().fence(1, Cancelled).admitted(), "failed Cancelled"),
        ("held, its pod has not ended", running().fence(1, Held).admitted(), "failed TooManyRemovals"),
        ("held, and known to be", failed().state(Failed, Some(Reason::TooManyRemovals)).fence(1, Held), ""),
        ("held, recorded as something else", failed().fence(1, Held), "failed TooManyRemovals"),
        ("held, and asked for again", pending().attempt(2).fence(1, Held), "create job 2"),
        ("approved", failed().state(Failed, Some(Reason::TooManyRemovals)).fence(1, Sealed), "done"),
        ("cancelled while it was queued", queued().fence(1, Cancelled).job(), "failed Cancelled"),
        ("failed by request, which cancelled the fence", failed().fence(1, Cancelled), ""),
        ("an earlier attempt was cancelled", pending().attempt(2).fence(1, Cancelled), "create job 2"),
        ("the stream is gone", running().fence_seen(FenceSeen::Missing).admitted(), "failed Broken"),
        ("done, and the stream is gone: the API shows that", done().fence_seen(FenceSeen::Missing), ""),
    ]);
}

#[test]
fn what_is_missing() {
    table(vec![
        ("pending without a Job: its maker died", pending(), "create job 1"),
        ("asked again, and the API died", pending().attempt(2), "create job 2"),
        ("asked again before the marker", pending().no_boundary(), "create job 1"),
        (
            "the Job is there, its ConfigMap is not",
            pending().job().with_job(|j| j.input = InputSeen::Missing),
            "create input",
        ),
        (
            "its ConfigMap was deleted after it was admitted, and its next pod waits for it",
            running()
                .admitted()
                .pod(PodPhase::Pending(None))
                .with_job(|j| j.input = InputSeen::Missing)
                .after(9),
            "create input",
        ),
        (
            "the ConfigMap belongs to a former Job of this name",
            pending().job().with_job(|j| j.input = InputSeen::Foreign).after(2),
            "pending PodConfig",
        ),
        (
            "the ConfigMap was not looked at",
            pending().job().with_job(|j| j.input = InputSeen::NotRead).after(9),
            "",
        ),
        ("the Job was deleted while it ran", running(), "failed JobDeleted"),
        (
            "the Job is being deleted while it runs",
            running().admitted().with_job(|j| j.being_deleted = true),
            "failed JobDeleted",
        ),
        (
            "the Job is being deleted while it waits",
            pending().job().with_job(|j| j.being_deleted = true),
            "pending JobDeleted",
        ),
        (
            "registration under way: the API makes what is missing",
            pending().with_entry(|e| e.lifecycle = Lifecycle::Registering),
            "",
        ),
        (
            "registration under way: its Job is left alone",
            pending().with_entry(|e| e.lifecycle = Lifecycle::Registering).job().after(9999),
            "",
        ),
    ]);
}

#[test]
fn a_quota_is_waited_for() {
    let refused = || (Reason::QuotaExceeded, "FailedCreate: exceeded quota: none".to_owned());
    let waiting = || pending().admitted().with_job(|job| job.evidence = Some(refused()));
    let said = || pending().state(Pending, Some(Reason::QuotaExceeded)).admitted();
    // The Event about the Job is not looked at while there is a pod.
    let room = |seconds| {
        let came = waiting().after(86_400).with_job(|job| job.evidence = None).pod(PodPhase::Pending(None));
        came.state(Pending, Some(Reason::Starting)).after(seconds)
    };
    let with_pod = || said().pod(PodPhase::Pending(None));
    table(vec![
        ("the word at once", waiting(), "pending QuotaExceeded"),
        ("… and no deadline", waiting().after(86_400), "pending QuotaExceeded"),
        ("the Event is gone: what it said holds", said().after(86_400), ""),
        ("there is room", with_pod(), "pending Starting"),
        ("… the deadline counts from here", room(299), ""),
        ("… and passes", room(300), "failed StartDeadline"),
        (
            "something else refuses it meanwhile",
            said().with_job(|job| job.evidence = Some((Reason::PodRefused, "no".into()))).after(300),
            "failed PodRefused",
        ),
    ]);
}

#[test]
fn a_pod_that_does_not_come_up() {
    let evidence =
        |reason| move |job: &mut crate::observed::JobSeen| job.evidence = Some((reason, "why".into()));
    table(vec![
        (
            "the image can't be pulled: the word at once",
            pending().admitted().pod(image_pull()),
            "pending ImagePull",
        ),
        ("… until the deadline", pending().admitted().pod(image_pull()).after(299), "pending ImagePull"),
        (
            "… and given up at the deadline",
            pending().admitted().pod(image_pull()).after(300),
            "failed ImagePull",
        ),
        ("no node has room: a node may come", no_node().after(86_400), "pending Unschedulable"),
        (
            "… and when it has come, the deadline begins",
            no_node().after(86_400).with_job(|job| job.pods.clear()).pod(image_pull()).after(299),
            "pending ImagePull",
        ),
        (
            "no pod, an event says why",
            pending().admitted().with_job(evidence(Reason::PodRefused)),
            "pending PodRefused",
        ),
        (
            "… until the deadline",
            pending().admitted().with_job(evidence(Reason::PodRefused)).after(300),
            "failed PodRefused",
        ),
        (
            "a volume is missing, an event says it",
            pending()
                .admitted()
                .pod(PodPhase::Pending(None))
                .with_job(evidence(Reason::PodConfig))
                .after(300),
            "failed PodConfig",
        ),
        (
            "nothing says why",
            pending().admitted().pod(PodPhase::Pending(None)).after(300),
            "failed StartDeadline",
        ),
        ("given up: its Job really ends", failed().admitted().pod(image_pull()), "delete uid-1 ended"),
        ("failed by request: its Job really ends, also when it waits", failed().job(), "delete uid-1 ended"),
    ]);
}

fn no_node() -> World {
    pending().admitted().pod(PodPhase::Pending(Some((Reason::Unschedulable, "0/1".into()))))
}

#[test]
fn what_could_not_start_begins_again_less_often_each_time() {
    let failed_starts = |times: u32| {
        (1..=times).fold(pending(), |world, attempt| {
            world.with_entry(|entry| {
                let now = || "2026-01-01T00:00:00".parse().unwrap();
                let again =
                    if attempt == 1 { entry.clone() } else { entry.with_prefill_again(now()).unwrap() };
                *entry = again.with_prefill_state(Failed, Some(Reason::ImagePull), None, now()).unwrap();
            })
        })
    };
    table(vec![
        ("the first time after 5 min", failed_starts(1).after(299), ""),
        ("… begins", failed_starts(1).after(300), "start again after 1"),
        ("the second time after 15 min", failed_starts(2).after(899), ""),
        ("… begins", failed_starts(2).after(900), "start again after 2"),
        ("the fifth time after 12 h", failed_starts(5).after(43_199), ""),
        ("… begins", failed_starts(5).after(43_200), "start again after 5"),
        ("and then somebody has to ask", failed_starts(6).after(999_999), ""),
        ("what has run and failed waits for somebody", failed().after(999_999), ""),
        (
            "its image can't be pulled: the sentence says what follows",
            failed_starts(1)
                .state(Pending, None)
                .attempt(2)
                .job_of(MINE, 2)
                .with_job(|job| {
                    (job.suspended, job.admitted) = (false, true);
                })
                .pod(image_pull())
                .after(300),
            "failed ImagePull",
        ),
    ]);
}

#[test]
fn a_job_that_nats_does_not_know_any_more_is_not_taken_for_this_attempts() {
    let former = || pending().job().asked_at_another_time();
    table(vec![
        ("it waits", former(), "next attempt NameTaken"),
        ("it is complete", former().fate(Fate::Complete), "next attempt NameTaken"),
        (
            "it runs",
            former().with_job(|job| job.suspended = false).pod(PodPhase::Running),
            "next attempt NameTaken",
        ),
        ("it goes", former().attempt(2).job_of(MINE, 2).after(10), "admit, delete uid-1 unwanted"),
        (
            "of a later attempt",
            pending().job().job_of(MINE, 2).fate(dead()).after(10),
            "admit, delete uid-2 unwanted",
        ),
        (
            "a former version noted nothing",
            pending().with_entry(|e| e.prefill.asked = None).job().asked_at_another_time(),
            "admit",
        ),
    ]);
}

#[test]
fn an_old_kubernetes_does_not_end_jobs_for_good() {
    let refused = |world: World| {
        let world = world.failed_try(4, Some(Reason::CredentialsRefused), "401");
        world.with_job(|job| job.ends_for_good = false)
    };
    table(vec![
        (
            "what would come again is not tried again",
            refused(running().admitted()),
            "failed CredentialsRefused",
        ),
        ("… and its Job ends", refused(failed().admitted()), "delete uid-1 ended"),
        (
            "what may pass is",
            running()
                .admitted()
                .failed_try(1, Some(Reason::SourceUnavailable), "away")
                .with_job(|job| job.ends_for_good = false),
            "running SourceUnavailable",
        ),
        ("one that was sealed is done", refused(running().sealed().admitted()), "done"),
    ]);
}

#[test]
fn one_that_may_not_start_is_out_of_the_queue_for_a_while() {
    let refused = |world: World, seconds| {
        let mut world = world.state(Pending, Some(Reason::PodRefused)).job();
        let until = world.now + crate::observed::Moment::from_secs(seconds);
        world.observed.place = crate::observed::Place::Refused { until };
        world
    };
    table(vec![("its reason stays", refused(pending(), 30), "")]);
    let wakes = refused(pending(), 30).decide();
    let at = World::new().now + crate::observed::Moment::from_secs(30);
    assert!(wakes.contains(&Action::LookAgain(at)), "{wakes:?}");
}

#[test]
fn tries_and_retries() {
    let source_away =
        |world: World| world.failed_try(1, Some(Reason::SourceUnavailable), "connection refused");
    table(vec![
        ("a try failed, Kubernetes waits", source_away(running().admitted()), "running SourceUnavailable"),
        ("it failed before we saw it run", source_away(pending().admitted()), "running SourceUnavailable"),
        // 300 s + 10 s · 2^(6 − 1)
        (
            "six failed: the back-off does not count as a failure to start",
            (0..6).fold(running().admitted(), |w, _| source_away(w)).after(619),
            "running SourceUnavailable",
        ),
        (
            "… but not for ever",
            (0..6).fold(running().admitted(), |w, _| source_away(w)).after(620),
            "failed SourceUnavailable",
        ),
        (
            "the next try runs",
            source_away(running().state(Running, Some(Reason::SourceUnavailable)).admitted())
                .pod(PodPhase::Running),
            "running",
        ),
        (
            "too many tries",
            source_away(running().admitted()).job_failed("BackoffLimitExceeded"),
            "failed BackoffLimitExceeded",
        ),
        (
            "a permanent error: no other try follows, so nothing is said before Kubernetes has decided",
            running().admitted().failed_try(4, Some(Reason::CredentialsRefused), "401"),
            "",
        ),
        ("took too long", running().admitted().job_failed("DeadlineExceeded"), "failed DeadlineExceeded"),
        (
            "credentials refused",
            running()
                .admitted()
                .failed_try(4, Some(Reason::CredentialsRefused), "401")
                .job_failed("PodFailurePolicy"),
            "failed CredentialsRefused",
        ),
        (
            "out of memory, each time",
            running()
                .admitted()
                .failed_try(137, Some(Reason::OutOfMemory), "")
                .job_failed("BackoffLimitExceeded"),
            "failed OutOfMemory",
        ),
        ("failed, the Job is kept for its logs", failed().admitted().fate(dead()).after(86_399), ""),
        ("failed, kept long enough", failed().admitted().fate(dead()).after(86_400), "delete uid-1 kept"),
        (
            "asked again: the Job of the attempt before stays for its logs",
            pending().attempt(2).admitted().fate(dead()).job_of(MINE, 2).after(86_399),
            "admit",
        ),
        (
            "… as long as any that failed",
            pending().attempt(2).admitted().fate(dead()).job_of(MINE, 2).after(86_400),
            "admit, delete uid-1 kept",
        ),
        (
            "… and only the last one",
            pending()
                .attempt(3)
                .admitted()
                .fate(dead())
                .job_of(MINE, 2)
                .fate(dead())
                .job_of(MINE, 3)
                .after(10),
            "admit, delete uid-1 unwanted",
        ),
        (
            "… but for one that still runs",
            pending().attempt(2).admitted().pod(PodPhase::Running).job_of(MINE, 2).after(10),
            "admit, delete uid-1 unwanted",
        ),
        (
            "… or was done, when another round is asked for",
            pending().attempt(2).admitted().fate(Fate::Complete).job_of(MINE, 2).after(10),
            "admit, delete uid-1 unwanted",
        ),
    ]);
}

#[test]
fn a_node_is_lost() {
    let lost = || running().admitted().pod(PodPhase::Running).terminating();
    table(vec![
        ("the pod is asked to end", lost(), ""),
        ("… and does not", lost().after(2), "running StuckTerminating"),
        ("… for too long", lost().after(120), "next attempt StuckTerminating"),
        (
            "it was evicted: another pod follows",
            lost().with_job(|j| j.pods[0].disrupted = Some("EvictionByEvictionAPI".into())).after(2),
            "running Disrupted",
        ),
        ("another pod took over", lost().pod(PodPhase::Running).after(120), ""),
        (
            "the next attempt: a new Job, the old one goes",
            pending().attempt(2).admitted().pod(PodPhase::Running).terminating().after(10),
            "create job 2, delete uid-1 unwanted",
        ),
        ("done, but the pod does not exit", done().sealed().admitted().pod(PodPhase::Running).after(59), ""),
        (
            "done, and the pod does not exit for long",
            done().sealed().admitted().pod(PodPhase::Running).after(60),
            "delete uid-1 ended",
        ),
    ]);
}

#[test]
fn jobs_that_nobody_wants() {
    table(vec![
        ("the subscription is gone: a moment of grace", pending().no_entry().admitted().after(9), ""),
        ("the subscription is gone", pending().no_entry().admitted().after(10), "delete uid-1 unwanted"),
        (
            "the subscription is being removed",
            running().with_entry(|e| e.lifecycle = Lifecycle::Deleting).admitted(),
            "delete uid-1 unwanted",
        ),
        ("of another incarnation", done().job_of(OTHER, 1).after(10), "delete uid-1 unwanted"),
        ("of an earlier attempt", done().attempt(2).sealed().admitted().after(10), "delete uid-1 unwanted"),
        ("newer than our view", pending().job().job_of(MINE, 2).after(9), "admit"),
        (
            "being deleted already",
            pending().no_entry().admitted().with_job(|j| j.being_deleted = true).after(99),
            "",
        ),
    ]);
}

#[test]
fn a_deadline_that_will_pass_is_named_while_it_can_be_raised() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let late = || {
        let late = Late { needs: hours(7), left: hours(5) };
        running().admitted().pod(PodPhase::Running).with_job(|job| job.late = Some(late))
    };
    table(vec![
        ("a speed changes", late().after(299), ""),
        ("too slow for minutes", late().after(300), "running DeadlineTooShort"),
        ("named already", late().state(Running, Some(Reason::DeadlineTooShort)).after(300), ""),
        (
            "fast enough again",
            running().state(Running, Some(Reason::DeadlineTooShort)).admitted().pod(PodPhase::Running),
            "running",
        ),
        ("sealed meanwhile", late().sealed().after(300), "done"),
    ]);
}

#[test]
fn what_is_late_is_found_by_progress_and_deadline() {
    let progress = |done: u64, rate: f64| Progress {
        done,
        total: Some(1000),
        rate,
        ..Progress::new(model::Incarnation(uuid::Uuid::nil()), 1, model::prefill::Phase::Reading)
    };
    let seconds = Duration::from_secs;
    for (progress, ends_at, expected) in [
        (progress(0, 1.0), 2000, None),
        (progress(0, 1.0), 1999, Some(Late { needs: seconds(1000), left: seconds(999) })),
        (progress(600, 1.0), 1399, Some(Late { needs: seconds(400), left: seconds(399) })),
        (progress(600, 1.0), 500, Some(Late { needs: seconds(400), left: seconds(0) })),
        // It stands still: nobody knows how long it takes.
        (progress(600, 0.0), 1001, None),
        (progress(1000, 1.0), 1001, None),
    ] {
        assert_eq!(Late::of(&progress, ends_at, 1000), expected, "{progress:?} {ends_at}");
    }
}

#[test]
fn what_the_annotations_show() {
    let shows = |mut world: World| {
        world.decide().iter().filter(|a| matches!(a, Action::Show { .. } | Action::Adopt(_))).count()
    };
    let progress = |done: u64| {
        move |mut world: World| {
            world.observed.progress = Some(Progress {
                done,
                total: Some(9),
                rate: 1.0,
                ..Progress::new(model::Incarnation(uuid::Uuid::nil()), 1, model::prefill::Phase::Reading)
            });
            world
        }
    };
    let running = || running().admitted().pod(PodPhase::Running).shown();
    assert_eq!(shows(running()), 0);
    assert_eq!(shows(running().state(Failed, Some(Reason::JobDeleted))), 1, "the state changed");
    assert_eq!(shows(progress(1)(running())), 1, "the first progress");
    let mut world = progress(1)(running());
    let action = world.decide().pop().unwrap();
    assert!(world.apply(&action), "{action:?}");
    let world = progress(2)(world);
    assert_eq!(shows(world.clone().after(4)), 0, "not more often than every five seconds");
    assert_eq!(shows(world.after(5)), 1);
    let mut world = progress(1)(running().state(Failed, Some(Reason::BadData)));
    world.observed.progress.as_mut().unwrap().error = Some("503".to_owned());
    let shown = world.decide().into_iter().find_map(|action| match action {
        Action::Show { progress, .. } => progress,
        _ => None,
    });
    let shown = shown.unwrap();
    assert!(shown.contains("1 of 9") && !shown.contains("503"), "nothing is tried again any more: {shown}");
    assert_eq!(shows(running().with_job(|job| job.admitted = false)), 1, "resumed by somebody else");
}

#[test]
fn a_deletion_is_asked_for_again_before_it_happens() {
    use super::deletion_is_justified;
    let world = World::new().job();
    let job = world.observed.jobs[0].job.clone();
    let entry = |world: &World| world.observed.entry.clone();
    assert!(deletion_is_justified(None, &job));
    for (world, expected) in [
        (pending(), false),
        (running(), false),
        (failed(), true),
        (done(), true),
        (pending().attempt(2), true),
        (pending().with_entry(|e| e.incarnation = OTHER), true),
        (pending().with_entry(|e| e.lifecycle = Lifecycle::Deleting), true),
        (pending().with_entry(|e| e.lifecycle = Lifecycle::Registering), false),
    ] {
        assert_eq!(deletion_is_justified(entry(&world).as_ref(), &job), expected, "{:?}", world.entry());
    }
}

#[test]
fn a_record_never_goes_back() {
    let identity = World::new().job().observed.jobs[0].job.identity.clone();
    let all = [Pending, Running, Failed, Done];
    for (current, allowed) in [
        (pending(), vec![Pending, Running, Failed, Done]),
        (running(), vec![Running, Failed, Done]),
        (failed(), vec![Failed, Done]),
        (done(), vec![]),
        (running().attempt(2), vec![]),
        (running().with_entry(|e| e.incarnation = OTHER), vec![]),
        (running().with_entry(|e| e.lifecycle = Lifecycle::Deleting), vec![]),
        (pending().with_entry(|e| e.lifecycle = Lifecycle::Registering), vec![]),
    ] {
        let found: Vec<_> =
            all.into_iter().filter(|to| super::may_record(current.entry(), &identity, *to)).collect();
        assert_eq!(found, allowed, "{:?}", current.entry());
    }
}
