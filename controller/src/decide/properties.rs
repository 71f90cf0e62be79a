//! What holds for every state that can be observed: entry × fence × Job × Pods, all of them.

use model::{PrefillState, Reason, fence::FenceState, subscription::Lifecycle};

use super::{
    Action, Need,
    needs::tests::all_needs,
    world::{MINE, OTHER, World},
};
use crate::observed::{Fate, FenceSeen, InputSeen, Observed, PodPhase};

fn for_all(mut check: impl FnMut(&World, &[Action])) {
    let (fences, jobs) = (fences(), jobs());
    let mut count = 0;
    for entry in entries() {
        for fence in &fences {
            for with_job in &jobs {
                for age in [0, 1_000, 200_000] {
                    let mut world = with_job(entry.clone().fence_seen(fence.clone())).after(age);
                    let actions = world.decide();
                    check(&world, &actions);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 200_000, "{count}");
}

fn entries() -> Vec<World> {
    let mut entries = vec![World::new().no_entry()];
    for lifecycle in [Lifecycle::Registering, Lifecycle::Deleting] {
        for state in [PrefillState::Pending, PrefillState::Running] {
            entries.push(World::new().state(state, None).with_entry(|entry| entry.lifecycle = lifecycle));
        }
    }
    for (state, reason) in [
        (PrefillState::Pending, None),
        (PrefillState::Pending, Some(Reason::Queued)),
        (PrefillState::Running, None),
        (PrefillState::Running, Some(Reason::StuckTerminating)),
        (PrefillState::Failed, Some(Reason::ImagePull)),
        (PrefillState::Done, None),
    ] {
        for attempt in [1, 2] {
            let world = World::new().state(state, reason).attempt(attempt);
            let paused = world.clone().with_entry(|entry| entry.prefill.paused = true);
            entries.extend([world.clone(), world.clone().no_boundary(), world.no_place(), paused]);
        }
    }
    entries
}

fn fences() -> Vec<FenceSeen> {
    use FenceState::{Cancelled, Held, Open, Sealed};
    let mut fences = vec![FenceSeen::NotRead, FenceSeen::Missing];
    for (attempt, state) in
        [(0, Open), (1, Open), (1, Sealed), (1, Cancelled), (1, Held), (2, Sealed), (3, Open)]
    {
        fences.push(World::new().fence(attempt, state).observed.fence);
    }
    fences
}

type Change = Box<dyn Fn(World) -> World>;

fn jobs() -> Vec<Change> {
    let mut jobs: Vec<Change> = vec![Box::new(|world| world)];
    for (incarnation, attempt) in [(MINE, 1), (MINE, 2), (OTHER, 1)] {
        for (suspended, admitted) in [(true, false), (true, true), (false, true), (false, false)] {
            // One of another incarnation is unwanted, whatever it does.
            let pods_that_matter = if incarnation == OTHER { 1 } else { usize::MAX };
            for (name, pods) in pods().into_iter().take(pods_that_matter) {
                for fate in
                    [Fate::Open, Fate::Complete, Fate::Failed { reason: name.into(), message: name.into() }]
                {
                    let fate = fate.clone();
                    jobs.push(Box::new(move |world| {
                        pods(world.job_of(incarnation, attempt)).with_job(|job| {
                            (job.suspended, job.admitted) = (suspended, admitted);
                            job.fate = fate.clone();
                        })
                    }));
                }
            }
        }
        for input in [InputSeen::NotRead, InputSeen::Missing, InputSeen::Foreign] {
            jobs.push(Box::new(move |world| {
                world.job_of(incarnation, attempt).with_job(|job| job.input = input)
            }));
        }
        jobs.push(Box::new(move |world| {
            world.job_of(incarnation, attempt).with_job(|job| job.being_deleted = true)
        }));
        for request in ["retry", "cancel", "pause", "resume", "dance"] {
            jobs.push(Box::new(move |world| {
                world.job_of(incarnation, attempt).with_job(|job| job.request = Some(request.to_owned()))
            }));
        }
        jobs.push(Box::new(move |world| {
            let mut world = world.job_of(incarnation, attempt);
            world.observed.index.insert("headstart/attempt".to_owned(), "1".to_owned());
            world
        }));
        jobs.push(Box::new(move |world| world.job_of(incarnation, attempt).asked_at_another_time()));
        // A name with the same hash: it is found by the same label.
        jobs.push(Box::new(move |world| {
            world.job_of(incarnation, attempt).with_job(|job| {
                job.job.identity.subscription = "another".parse().unwrap();
            })
        }));
        jobs.push(Box::new(move |world| {
            let refused = Some((Reason::QuotaExceeded, "exceeded quota: q".to_owned()));
            world.job_of(incarnation, attempt).with_job(|job| {
                (job.suspended, job.admitted, job.evidence) = (false, true, refused.clone());
            })
        }));
    }
    jobs
}

type Pods = fn(World) -> World;

fn pods() -> Vec<(&'static str, Pods)> {
    vec![
        ("none", |world| world),
        ("pending", |world| world.pod(PodPhase::Pending(None))),
        ("no image", |world| world.pod(PodPhase::Pending(Some((Reason::ImagePull, "no image".into()))))),
        ("running", |world| world.pod(PodPhase::Running)),
        ("stuck", |world| world.pod(PodPhase::Running).terminating()),
        ("failed", |world| world.failed_try(1, Some(Reason::SourceUnavailable), "away")),
        ("exited", |world| world.failed_try(0, None, "")),
    ]
}

/// The fence is read where it can decide something only: where it is not, one that nobody has touched would not.
#[test]
fn a_fence_that_is_not_asked_for_would_change_nothing() {
    let mut not_asked_for = 0;
    for_all(|world, _| {
        if !all_needs(world).contains(&Need::Fence) {
            not_asked_for += 1;
            let unread = world.clone().fence_seen(FenceSeen::NotRead).decide();
            assert_eq!(unread, world.clone().fence(0, FenceState::Open).decide(), "{world:?}");
        }
    });
    assert!(not_asked_for > 10_000, "{not_asked_for}");
}

/// All that is done to the world until nothing changes any more, while no time passes.
#[test]
fn acting_and_observing_again_reaches_a_fixed_point() {
    for_all(|world, _| {
        let mut world = world.clone();
        for _ in 0..12 {
            let mut changed = false;
            for action in world.decide() {
                changed |= world.apply(&action);
            }
            if !changed {
                return;
            }
        }
        panic!("no rest: {:?} wants {:?}", world.observed, world.clone().decide());
    });
}

#[test]
fn an_attempt_never_falls_and_a_round_never_changes() {
    for_all(|world, actions| {
        let Some(before) = world.observed.entry.clone() else { return };
        let mut world = world.clone();
        for action in actions {
            world.apply(action);
        }
        let after = world.entry();
        assert!(after.prefill.attempt >= before.prefill.attempt);
        if actions.iter().any(|action| matches!(action, Action::Obey { .. })) {
            // After one that is done, another round is what is asked for.
            return;
        }
        assert_eq!(
            (after.prefill.round, after.prefill.boundary, after.incarnation, after.lifecycle),
            (before.prefill.round, before.prefill.boundary, before.incarnation, before.lifecycle)
        );
    });
}

/// Promise 7: nothing is stuck silently.
#[test]
fn what_is_not_final_has_a_deadline_or_a_reason() {
    for_all(|world, actions| {
        let observed = &world.observed;
        let Some(entry) = &observed.entry else { return };
        let open = matches!(entry.prefill.state, PrefillState::Pending | PrefillState::Running);
        if !open || entry.lifecycle != Lifecycle::Ready || not_enough_known(observed) {
            return;
        }
        let runs = observed.current_job().is_some_and(|job| job.runs());
        let said = entry.prefill.reason.is_some();
        assert!(!actions.is_empty() || runs || said, "{observed:?}");
    });
}

/// `observe` reads the fence and the ConfigMap whenever they matter, and reads again what it finds too old.
fn not_enough_known(observed: &Observed) -> bool {
    let attempt = observed.entry.as_ref().map_or(0, |entry| entry.prefill.attempt);
    match &observed.fence {
        FenceSeen::NotRead => true,
        FenceSeen::Found(fence) => fence.attempt > attempt || waits_unread(observed),
        FenceSeen::Missing => false,
    }
}

fn waits_unread(observed: &Observed) -> bool {
    observed.current_job().is_some_and(|job| job.input == InputSeen::NotRead)
}

#[test]
fn a_sealed_prefill_becomes_done_whatever_else_is_seen() {
    for_all(|world, actions| {
        let observed = &world.observed;
        let (Some(entry), FenceSeen::Found(fence)) = (&observed.entry, &observed.fence) else { return };
        if entry.lifecycle != Lifecycle::Ready || !fence.seals(entry.incarnation, entry.prefill.attempt) {
            return;
        }
        for action in actions {
            if let Action::Record { state, .. } = action {
                assert_eq!(*state, PrefillState::Done);
            }
            assert!(!matches!(action, Action::Admit(_) | Action::CreateJob(_) | Action::NextAttempt { .. }));
        }
        if actions.iter().any(|action| matches!(action, Action::Obey { .. })) {
            assert_eq!(entry.prefill.state, PrefillState::Done, "only then may another round be asked for");
            return;
        }
        let mut world = world.clone();
        for action in actions {
            world.apply(action);
        }
        assert_eq!(world.entry().prefill.state, PrefillState::Done);
    });
}

#[test]
fn without_a_seal_nothing_becomes_done() {
    for_all(|world, actions| {
        let Observed { entry, fence, .. } = &world.observed;
        let sealed = match (entry, fence) {
            (Some(entry), FenceSeen::Found(fence)) => fence.seals(entry.incarnation, entry.prefill.attempt),
            _ => false,
        };
        for action in actions {
            if let Action::Record { state: PrefillState::Done, .. } = action {
                assert!(sealed, "{:?}", world.observed);
            }
        }
    });
}

#[test]
fn nothing_of_another_incarnation_is_touched_but_its_jobs() {
    for_all(|world, actions| {
        for action in actions {
            let incarnation = match action {
                Action::Record { identity, .. }
                | Action::NextAttempt { identity, .. }
                | Action::StartAgain(identity) => identity.incarnation,
                Action::CreateJob(task) | Action::CreateInput { task, .. } => task.incarnation,
                Action::Admit(job)
                | Action::Suspend(job)
                | Action::Relabel { job, .. }
                | Action::Obey { job, .. }
                | Action::Refuse { job, .. }
                | Action::Adopt(job)
                | Action::Show { job, .. } => job.identity.incarnation,
                // The Jobs of former incarnations are deleted.
                Action::Delete { .. } | Action::LookAgain(_) => continue,
            };
            assert_eq!(Some(incarnation), world.observed.entry.as_ref().map(|entry| entry.incarnation));
        }
    });
}

#[test]
fn a_job_starts_only_at_its_turn_with_its_boundary_and_its_input() {
    for_all(|world, actions| {
        for action in actions {
            if let Action::Admit(admitted) = action {
                let job = world.observed.current_job().unwrap();
                assert_eq!(*admitted, job.job);
                assert_eq!(job.input, InputSeen::Ours);
                assert_eq!(world.observed.place, crate::observed::Place::Free);
                assert!(world.entry().prefill.boundary.is_some());
                assert!(!world.entry().prefill.paused);
                assert!(!job.admitted, "what somebody else suspended stays suspended");
            }
        }
    });
}

#[test]
fn a_deletion_that_is_decided_is_justified() {
    for_all(|world, actions| {
        for action in actions {
            if let Action::Delete { job, .. } = action {
                assert!(
                    super::deletion_is_justified(world.observed.entry.as_ref(), job),
                    "{:?}",
                    world.observed
                );
            }
        }
    });
}

/// A moment at which something is to be done has to be told, since nothing else would bring it about: no watch says that
/// time has passed.
#[test]
fn what_only_time_changes_is_looked_at_then() {
    let deeds = |world: &mut World| {
        let mut actions = world.decide();
        actions.retain(|action| !matches!(action, Action::LookAgain(_)));
        actions
    };
    let (fences, jobs) = (fences(), jobs());
    let mut checked = 0;
    for entry in entries() {
        for fence in &fences {
            for with_job in &jobs {
                let mut world = with_job(entry.clone().fence_seen(fence.clone())).after(0);
                while world.decide().iter().any(|action| world.apply(action)) {}
                let now = world.decide();
                let quiet = deeds(&mut world);
                let rules = &world.rules;
                let mut times = vec![
                    rules.settle,
                    rules.grace,
                    rules.linger,
                    rules.stuck_after,
                    rules.start_deadline,
                    rules.retention_done,
                    rules.retention_failed,
                ];
                times.extend(&rules.start_again);
                let began = world.now;
                for time in times {
                    world.now = began + time;
                    let later = deeds(&mut world);
                    if later != quiet {
                        let told = now
                            .iter()
                            .any(|action| matches!(action, Action::LookAgain(at) if *at <= world.now));
                        assert!(told, "after {time:?} {later:?}: {:?}", world.observed);
                        checked += 1;
                        break;
                    }
                }
            }
        }
    }
    assert!(checked > 5_000, "{checked}");
}
