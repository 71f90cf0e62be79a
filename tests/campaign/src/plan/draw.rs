//! From dice to what is done and what goes wrong.

use rand::{RngExt, rngs::ChaCha12Rng, seq::IndexedRandom};

use super::{
    Action, Change, ConsumerPlan, Damage, Fault, Hit, Kind, Large, Part, Profile, Reading, SHADES, TOPICS,
    Target, profile::Rates,
};
use crate::history::Selection;

/// Users are many, the others few.
pub(super) fn topic(dice: &mut ChaCha12Rng) -> usize {
    *[0, 1, 1, 1, 2, 3].choose(dice).unwrap_or(&1)
}

pub(super) fn changes(dice: &mut ChaCha12Rng, objects: &[usize], length_ms: u64, every: u64) -> Vec<Change> {
    let mut alive: Vec<usize> = (0..objects.len()).collect();
    let mut next = objects.len();
    let mut changes = Vec::new();
    let mut at_ms = 0;
    while at_ms < length_ms {
        // Bursts: many at once, then a while nothing.
        let burst = if dice.random_ratio(1, 20) { dice.random_range(5..40) } else { 1 };
        for _ in 0..burst {
            let place = dice.random_range(0..alive.len());
            let (object, kind) = match dice.random_range(0..100) {
                0..15 => {
                    alive.push(next);
                    next += 1;
                    (next - 1, Kind::Create)
                }
                15..28 if alive.len() > objects.len() / 2 => (alive.swap_remove(place), Kind::Delete),
                28..38 => (alive[place], Kind::Move),
                _ => (alive[place], Kind::Update),
            };
            changes.push(Change { at_ms, object, kind });
        }
        at_ms += dice.random_range(every / 2..=every * 3 / 2).max(1) * burst.min(10);
    }
    changes
}

pub(super) fn consumer(dice: &mut ChaCha12Rng, index: usize, rates: &Rates, length_ms: u64) -> ConsumerPlan {
    let reading = [Reading::Single, Reading::Batch, Reading::Stream].get(index % 3).copied();
    let reading = reading.unwrap_or(Reading::Single);
    let with_prefill = index % 4 != 3;
    let mut actions = Vec::new();
    let mut at = dice.random_range(0..2000);
    let mut asks_at = at;
    while at < length_ms {
        actions.push((at, registration(dice, with_prefill)));
        if dice.random_ratio(1, 3) {
            // What fills the queue stays there for a while.
            actions.push((at, Action::Pause { ms: dice.random_range(500..4000) }));
        }
        let ends = at + dice.random_range(rates.register / 2..rates.register * 3 / 2);
        asks_at = asks_at.max(at) + dice.random_range(rates.ask / 4..rates.ask);
        while asks_at < ends.min(length_ms) {
            actions.push((asks_at, request(dice)));
            asks_at += dice.random_range(rates.ask / 3..rates.ask * 5 / 3);
        }
        let mut pauses = at;
        loop {
            pauses += dice.random_range(4000..16_000);
            if pauses >= ends.min(length_ms) {
                break;
            }
            actions.push((pauses, Action::Pause { ms: dice.random_range(300..5000) }));
        }
        at = ends;
    }
    actions.sort_by_key(|(at, _)| *at);
    ConsumerPlan { name: format!("consumer-{index}"), reading, actions, seed: dice.random() }
}

/// What only some do, and not often.
pub(super) fn more(dice: &mut ChaCha12Rng, consumer: &mut ConsumerPlan, rates: &Rates, length_ms: u64) {
    let begins = consumer.actions.first().map_or(0, |(at, _)| *at);
    for (every, password) in [(rates.ask * 2, false), (40_000, true)] {
        let mut at = begins + dice.random_range(every / 4..every);
        while at < length_ms {
            let action = match password {
                true => Action::Password,
                // While it waits, is read, or is done.
                false => Action::PausePrefill {
                    after_ms: dice.random_range(0..1500),
                    for_ms: dice.random_range(0..3000),
                },
            };
            consumer.actions.push((at, action));
            at += dice.random_range(every / 2..every * 3 / 2);
        }
    }
    consumer.actions.sort_by_key(|(at, _)| *at);
}

/// They cost as much as thousands of others.
pub(super) fn larges(dice: &mut ChaCha12Rng, length_ms: u64) -> Vec<Large> {
    let mut larges = Vec::new();
    let mut at_ms = dice.random_range(5_000..20_000);
    while at_ms < length_ms {
        larges.push(Large { at_ms, topic: topic(dice) });
        at_ms += dice.random_range(20_000..60_000);
    }
    larges
}

/// What is asked of a subscription that is read.
fn request(dice: &mut ChaCha12Rng) -> Action {
    match dice.random_range(0..100) {
        0..15 => Action::Cancel { after_ms: dice.random_range(0..1500) },
        15..30 => Action::Topics { topics: topics(dice) },
        _ => Action::Ask {
            resync: dice.random_ratio(1, 2),
            brake: dice.random_ratio(1, 3),
            dry_run: dice.random_ratio(1, 8),
        },
    }
}

fn registration(dice: &mut ChaCha12Rng, prefill: bool) -> Action {
    let topics = topics(dice);
    let gap_ms = if dice.random_ratio(2, 3) { 0 } else { dice.random_range(0..1500) };
    let selection = dice.random_ratio(1, 4).then(|| Selection {
        shade: dice.random_ratio(2, 3).then(|| SHADES.choose(dice).map(|s| (*s).to_owned())).flatten(),
        place: dice.random_ratio(1, 3).then_some(0),
    });
    let selection = selection.filter(|s| s.shade.is_some() || s.place.is_some());
    let track = prefill && dice.random_ratio(1, 2);
    Action::Register { topics, prefill, gap_ms, late: dice.random_ratio(1, 2), selection, track }
}

fn topics(dice: &mut ChaCha12Rng) -> Vec<String> {
    let mut topics: Vec<String> = TOPICS.iter().map(|t| (*t).to_owned()).collect();
    for place in (1..topics.len()).rev() {
        topics.swap(place, dice.random_range(0..=place));
    }
    topics.truncate(dice.random_range(2..=TOPICS.len()));
    topics
}

pub(super) fn faults(
    dice: &mut ChaCha12Rng,
    profile: Profile,
    rates: &Rates,
    length_ms: u64,
) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let mut at = 1500;
    loop {
        at += dice.random_range(rates.fault / 3..rates.fault * 5 / 3);
        if at >= length_ms {
            return faults;
        }
        if dice.random_ratio(profile.twins(), 100) {
            let consumer = dice.random_range(0..rates.consumers);
            let stop_after_ms = if dice.random_ratio(2, 3) { 0 } else { dice.random_range(1..900) };
            // Long enough that another one takes over, finishes and is read, sometimes.
            let after_seal_ms = dice.random_ratio(2, 3).then(|| dice.random_range(0..500));
            let for_ms = dice.random_range(3500..12_000) + if after_seal_ms.is_some() { 8000 } else { 0 };
            faults.push((at, Fault::Twin { consumer, stop_after_ms, for_ms, after_seal_ms }));
            continue;
        }
        if dice.random_ratio(profile.relays(), 100) {
            let stopped = dice.random_range(0..2);
            // Sometimes until what it knew is purged.
            let long = dice.random_ratio(1, 3);
            let for_ms = if long { dice.random_range(11_000..16_000) } else { dice.random_range(500..3000) };
            faults.push((at, Fault::Relay { stopped, for_ms, away_ms: dice.random_range(500..2500) }));
            continue;
        }
        if dice.random_ratio(profile.at_tasks(), 100) {
            faults.push((at, Fault::AtTask { for_ms: dice.random_range(1500..5000) }));
            continue;
        }
        if dice.random_ratio(profile.at_posts(), 100) {
            faults.push((at, Fault::AtPost { for_ms: dice.random_range(8_000..13_000) }));
            continue;
        }
        if dice.random_ratio(profile.at_batches(), 100) {
            faults.push((at, at_batch(dice, profile)));
            continue;
        }
        let Ok((target, _)) = profile.targets().choose_weighted(dice, |(_, weight)| *weight) else {
            continue;
        };
        let target = *target;
        if dice.random_ratio(profile.wires(), 100) && !matches!(target, Target::Nats | Target::Controller) {
            faults.push((at, wire(dice, target)));
            continue;
        }
        match dice.random_range(0..100) {
            0..3 => {
                let (nats, away_ms) = (dice.random_ratio(1, 3), dice.random_range(0..1500));
                faults.push((at, Fault::All { nats, away_ms }));
                continue;
            }
            3..8 => {
                let (status, for_ms) =
                    (*[500, 502, 503].choose(dice).unwrap_or(&503), dice.random_range(100..2000));
                faults.push((at, Fault::Udm { status, for_ms }));
                continue;
            }
            8..18 if target != Target::Nats => {
                faults.push((at, Fault::Term { target, away_ms: dice.random_range(0..2000) }));
                continue;
            }
            _ => {}
        }
        let fault = if dice.random_ratio(45, 100) {
            // The server's store is kept, and everything stands still without it.
            let away_ms = dice.random_range(0..if target == Target::Nats { 1500 } else { 4000 });
            Fault::Kill { target, away_ms }
        } else {
            let for_ms = match target {
                Target::Nats => dice.random_range(200..9000),
                // Longer than any time-out, or a blink.
                _ if dice.random_ratio(1, 5) => dice.random_range(12_000..20_000),
                _ if dice.random_ratio(1, 2) => dice.random_range(200..1500),
                _ => dice.random_range(1500..8000),
            };
            Fault::Stop { target, for_ms }
        };
        faults.push((at, fault));
        // Troubles come together.
        if dice.random_ratio(1, 6) {
            at = at.saturating_sub(rates.fault / 3);
        }
    }
}

/// Where there are more than two dispatchers, the others are hit as often.
pub(super) fn among(dice: &mut ChaCha12Rng, dispatchers: u8, fault: &mut Fault) {
    let hit = match fault {
        Fault::Kill { target, .. }
        | Fault::Stop { target, .. }
        | Fault::Term { target, .. }
        | Fault::Wire { target, .. }
        | Fault::AtBatch { target, .. } => match target {
            Target::Dispatcher(hit) => hit,
            _ => return,
        },
        Fault::Relay { stopped, .. } => stopped,
        Fault::All { .. }
        | Fault::AtTask { .. }
        | Fault::AtPost { .. }
        | Fault::Udm { .. }
        | Fault::Twin { .. } => {
            return;
        }
    };
    if dispatchers > 2 && dice.random_ratio(u32::from(dispatchers - 2), u32::from(dispatchers)) {
        *hit = dice.random_range(2..dispatchers);
    }
}

/// A stop that is longer than the time-out of a write, so that its outcome is unknown, or a kill.
fn at_batch(dice: &mut ChaCha12Rng, profile: Profile) -> Fault {
    let main = profile == Profile::Dispatchers || profile == Profile::General && dice.random_ratio(1, 2);
    let other = dice.random_range(0..2);
    let (part, writer) =
        if main { (Part::Main, Target::Dispatcher(other)) } else { (Part::Prefill, Target::Worker(other)) };
    let for_ms = dice.random_range(5500..9000);
    let (target, hit) = match dice.random_range(0..12) {
        0..4 => (writer, Hit::Late(for_ms)),
        4..8 => (Target::Nats, Hit::Stop(for_ms)),
        8..10 => (Target::Nats, Hit::Kill),
        10 => (writer, Hit::Stop(for_ms)),
        _ => (writer, Hit::Kill),
    };
    Fault::AtBatch { part, target, hit }
}

fn wire(dice: &mut ChaCha12Rng, target: Target) -> Fault {
    let all = [Damage::Cut, Damage::AnswersLost, Damage::RequestsLate, Damage::CutInAnswer];
    let damage = *all.choose(dice).unwrap_or(&Damage::Cut);
    // Half of them longer than the time-out of a write.
    let for_ms =
        if dice.random_ratio(1, 2) { dice.random_range(5500..9000) } else { dice.random_range(50..3000) };
    Fault::Wire { target, damage, for_ms }
}
