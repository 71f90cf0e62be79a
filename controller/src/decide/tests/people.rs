//! What people do and ask for: by kubectl, by annotation, through the API.

use super::*;

#[test]
fn suspended_by_somebody_else() {
    let paused = || running().admitted().with_job(|j| j.suspended = true);
    table(vec![
        ("paused while it ran", paused(), "running Suspended"),
        ("paused for a day", paused().state(Running, Some(Reason::Suspended)).after(86_400), ""),
        (
            "paused before its pod ran",
            pending().admitted().with_job(|j| j.suspended = true),
            "pending Suspended",
        ),
        (
            "resumed",
            running().state(Running, Some(Reason::Suspended)).admitted().pod(PodPhase::Running),
            "running",
        ),
        (
            "resumed by hand before its turn",
            pending().no_boundary().no_place().job().with_job(|j| j.suspended = false).pod(PodPhase::Running),
            "running",
        ),
        (
            "paused, and its pod does not end",
            paused().pod(PodPhase::Running).terminating().after(9999),
            "running Suspended",
        ),
    ]);
}

#[test]
fn paused_through_the_api_or_by_annotation() {
    let pausing = |world: World| world.with_entry(|entry| entry.prefill.paused = true);
    let back_in_the_queue = || running().state(Running, Some(Reason::Paused)).job();
    table(vec![
        ("while it waits", pausing(queued().job()), "pending Paused"),
        ("… and said so", pausing(pending().state(Pending, Some(Reason::Paused)).job()).after(86_400), ""),
        ("before it has a Job", pausing(pending()), "create job 1"),
        ("while it runs", pausing(running().admitted().pod(PodPhase::Running)), "suspend"),
        (
            "… its Job is suspended",
            pausing(running().job().pod(PodPhase::Running).terminating()),
            "running Paused",
        ),
        (
            "it was suspended by somebody else: taken over",
            pausing(running().admitted().with_job(|j| j.suspended = true)),
            "suspend",
        ),
        (
            "its Job is resumed by kubectl: whoever paused it decides",
            pausing(running().job().with_job(|j| j.suspended = false)),
            "suspend",
        ),
        ("sealed before its pod ended", pausing(running().sealed().job()), "done"),
        ("resumed while it waited", pending().state(Pending, Some(Reason::Paused)).job(), "admit"),
        ("resumed after it ran: it takes its turn", back_in_the_queue().no_place(), "running Queued"),
        ("… and its place", back_in_the_queue(), "admit"),
    ]);
}

#[test]
fn asked_for_by_annotation() {
    let asked = |world: World, text: &str| {
        let text = text.to_owned();
        world.with_job(move |job| job.request = Some(text))
    };
    let kept = |world: World| world.admitted().fate(dead());
    let held = || {
        let world = World::new()
            .state(Failed, Some(Reason::TooManyRemovals))
            .fence(1, model::fence::FenceState::Held);
        world.admitted().fate(Fate::Complete)
    };
    let refused = "the prefill is pending or running: there is nothing to retry";
    table(vec![
        ("retry", asked(kept(failed()), "retry"), "obey retry"),
        ("retry, when it is done", asked(done().sealed().admitted(), " retry "), "obey retry"),
        ("retry, while it runs", asked(running().admitted(), "retry"), &format!("refuse retry: {refused}")),
        ("cancel", asked(running().admitted().pod(PodPhase::Running), "cancel"), "obey cancel"),
        ("cancel, before its turn", asked(pending().job(), "cancel"), "obey cancel"),
        (
            "cancel, when it is sealed: too late",
            asked(running().sealed().admitted().pod(PodPhase::Running), "cancel"),
            "done",
        ),
        ("… and then", asked(done().sealed().admitted(), "cancel"), "refuse cancel: the prefill is done"),
        ("pause", asked(running().admitted(), "pause"), "obey pause"),
        ("pause, after it failed", asked(kept(failed()), "pause"), "refuse pause: the prefill has failed"),
        ("resume, not paused", asked(pending().job(), "resume"), "refuse resume: the prefill is not paused"),
        ("resume", asked(pending().with_entry(|e| e.prefill.paused = true).job(), "resume"), "obey resume"),
        ("approve", asked(held(), "approve"), "obey approve"),
        ("cancel, what is held", asked(held(), "cancel"), "obey cancel"),
        ("retry, what is held", asked(held(), "retry"), "obey retry"),
        (
            "approve, what is not held",
            asked(kept(failed()), "approve"),
            "refuse approve: the prefill is not held: there is nothing to approve",
        ),
        (
            "something else",
            asked(pending().job(), "dance"),
            "refuse dance: there is no such request: retry, cancel, pause, resume and approve are known",
        ),
        (
            "on the Job of an earlier attempt",
            asked(failed().attempt(2).admitted().fate(dead()), "retry").after(10),
            "",
        ),
    ]);
}

#[test]
fn labels_are_put_right() {
    let labelled = |value: &str| {
        let value = value.to_owned();
        let mut world = running().admitted().pod(PodPhase::Running).with_job(|job| {
            job.labels.insert("headstart/attempt".to_owned(), value);
            job.labels.insert("of-an-admin".to_owned(), "stays".to_owned());
        });
        world.observed.index.insert("headstart/attempt".to_owned(), "1".to_owned());
        world
    };
    table(vec![("as they should be", labelled("1"), ""), ("changed by hand", labelled("7"), "relabel")]);
}
