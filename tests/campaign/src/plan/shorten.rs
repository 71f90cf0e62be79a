//! A plan that found something, with as little in it as still finds it. Pure: who runs the candidates says what came of
//! them.

use super::Plan;

/// Leaves out faults, ever smaller parts of them, as long as what is left finds the same.
#[derive(Clone, Debug)]
pub struct Shortening {
    plan: Plan,
    /// Faults that are left out next: so many, from that place on.
    count: usize,
    at: usize,
}

impl Shortening {
    /// Of a plan that found something at this moment, in milliseconds: what comes later had no part in it.
    #[must_use]
    pub fn new(mut plan: Plan, found_ms: u64) -> Self {
        // Whatever the machine does meanwhile, it has a moment more.
        let end = plan.length_ms.min(found_ms + 2000);
        plan.length_ms = end;
        plan.faults.retain(|(at, _)| *at < end);
        plan.changes.retain(|change| change.at_ms < end);
        plan.larges.retain(|large| large.at_ms < end);
        for consumer in &mut plan.consumers {
            consumer.actions.retain(|(at, _)| *at < end);
        }
        let count = plan.faults.len().div_ceil(2);
        Self { plan, count, at: 0 }
    }

    /// The shortest plan so far.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is to be tried next.
    #[must_use]
    pub fn candidate(&self) -> Option<Plan> {
        if self.count == 0 || self.plan.faults.is_empty() {
            return None;
        }
        let mut plan = self.plan.clone();
        let end = (self.at + self.count).min(plan.faults.len());
        plan.faults.drain(self.at.min(end)..end);
        Some(plan)
    }

    /// Did the candidate find the same?
    pub fn tried(&mut self, found: bool) {
        let Some(candidate) = self.candidate() else { return };
        if found {
            self.plan = candidate;
        } else {
            self.at += self.count;
        }
        if self.at >= self.plan.faults.len() {
            self.at = 0;
            self.count = if self.count > 1 { self.count.div_ceil(2) } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Profile;

    #[test]
    fn only_the_faults_that_are_needed_are_left() {
        let plan = Plan::new(7, Profile::General, 60_000);
        let wanted = [plan.faults[3], plan.faults[11]];
        let mut shortening = Shortening::new(plan.clone(), 60_000);
        let mut tries = 0;
        while let Some(candidate) = shortening.candidate() {
            shortening.tried(wanted.iter().all(|fault| candidate.faults.contains(fault)));
            tries += 1;
        }
        assert_eq!(shortening.plan().faults, wanted);
        assert!(tries < 2 * plan.faults.len(), "{tries} tries for {} faults", plan.faults.len());
    }

    #[test]
    fn what_comes_after_the_violation_is_left_out() {
        let shortening = Shortening::new(Plan::new(7, Profile::Rounds, 60_000), 10_000);
        assert!(shortening.plan().faults.iter().all(|(at, _)| *at < 12_000));
        assert!(shortening.plan().changes.iter().all(|change| change.at_ms < 12_000));
        let text = serde_json::to_string(shortening.plan()).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), *shortening.plan());
    }
}
