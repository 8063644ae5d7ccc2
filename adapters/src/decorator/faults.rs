//! Plans of the faults that are injected into calls of a port.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is done to one call. Reads and loads change nothing, so for them `DropAnswer`, `Withhold` and `Late` only fail. A save
/// cannot be withheld; it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call passes.
    Pass,
    /// The call passes after this delay.
    Delay(Duration),
    /// The request is not sent.
    NotSent,
    /// The call is refused: by a shadow as throttled, by a store as unavailable.
    Refuse,
    /// The call is made and its answer is lost.
    DropAnswer,
    /// The request is lost, and the caller receives no answer.
    LoseRequest,
    /// The update is held back until `FaultyShadow::release`, and the caller receives no answer. It has no text form.
    Withhold,
    /// The request is made after this delay, and the caller receives no answer.
    Late(Duration),
}

/// The calls that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// An update of a shadow that puts an entry.
    Put,
    /// Any update of a shadow. One that puts an entry also counts as [`Operation::Put`], whose rules take precedence.
    Update,
    /// A read of a shadow.
    Read,
    /// A save of a store.
    Save,
    /// A load of a store.
    Load,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Selection {
    /// The calls from the first number to the last, counted from 1.
    Calls(u64, u64),
    /// Each call with this probability.
    Chance(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    operation: Operation,
    selection: Selection,
    fault: Fault,
}

/// The faults of future calls. The first rule that selects a call decides; a call that no rule selects passes.
///
/// The text form is a list of rules: `put@1=refuse,put@3-5=drop-answer,read@2-=lose,update~0.1=delay:200ms,seed=7` is about the
/// first put, the third to fifth, every read from the second on, and a tenth of all updates. Operations are `put`, `update`,
/// `read`, `save` and `load`; faults are `pass`, `delay:D`, `not-sent`, `refuse`, `drop-answer`, `lose` and `late:D`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    rules: Vec<Rule>,
    seed: u64,
}

/// The text of a [`FaultPlan`] has an invalid rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}` is not a valid rule of a fault plan: {problem}")]
pub struct InvalidFaultRule {
    /// The rule as it was written.
    pub rule: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl FaultPlan {
    /// Adds faults of the next calls of `operation`, after the calls that the plan already selects by number.
    #[must_use]
    pub fn then(mut self, operation: Operation, faults: impl IntoIterator<Item = Fault>) -> Self {
        let known = self.rules.iter().filter(|r| r.operation == operation);
        let last = known.map(|rule| match rule.selection {
            Selection::Calls(_, last) => last,
            Selection::Chance(_) => 0,
        });
        let first = last.max().unwrap_or(0) + 1;
        let rules = (first..).zip(faults).map(|(call, fault)| Rule {
            operation,
            selection: Selection::Calls(call, call),
            fault,
        });
        self.rules.extend(rules);
        self
    }
}

impl FromStr for FaultPlan {
    type Err = InvalidFaultRule;

    fn from_str(text: &str) -> Result<Self, InvalidFaultRule> {
        let mut plan = Self::default();
        for rule in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            plan.add(rule).map_err(|problem| InvalidFaultRule {
                rule: rule.to_owned(),
                problem,
            })?;
        }
        Ok(plan)
    }
}

impl FaultPlan {
    fn add(&mut self, rule: &str) -> Result<(), &'static str> {
        let (calls, fault) = rule
            .split_once('=')
            .ok_or("write it as calls=fault, such as put@1=refuse")?;
        if calls == "seed" {
            self.seed = fault
                .parse()
                .map_err(|_| "the seed must be a whole number")?;
            return Ok(());
        }
        let (operation, selection) = parse_calls(calls)?;
        self.rules.push(Rule {
            operation,
            selection,
            fault: parse_fault(fault)?,
        });
        Ok(())
    }
}

fn parse_calls(text: &str) -> Result<(Operation, Selection), &'static str> {
    let at = text
        .find(['@', '~'])
        .ok_or("name the calls, as in put@1, put@2-4, put@2- or put~0.1")?;
    let (operation, selection) = text.split_at(at);
    let operation = match operation {
        "put" => Operation::Put,
        "update" => Operation::Update,
        "read" => Operation::Read,
        "save" => Operation::Save,
        "load" => Operation::Load,
        _ => return Err("operations are put, update, read, save and load"),
    };
    if let Some(chance) = selection.strip_prefix('~') {
        let chance = chance.parse().ok().filter(|c| (0.0..=1.0).contains(c));
        return Ok((
            operation,
            Selection::Chance(chance.ok_or("a chance must be a number from 0 to 1")?),
        ));
    }
    let calls = &selection[1..];
    let number = |text: &str| {
        let number = text.parse().ok().filter(|n: &u64| *n > 0);
        number.ok_or("calls are counted from 1")
    };
    let (first, last) = match calls.split_once('-') {
        None => (number(calls)?, number(calls)?),
        Some((first, "")) => (number(first)?, u64::MAX),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if first > last {
        return Err("the first call must not come after the last one");
    }
    Ok((operation, Selection::Calls(first, last)))
}

/// How to write a fault.
const FAULTS: &str =
    "faults are pass, delay:200ms, not-sent, refuse, drop-answer, lose and late:2s";

fn parse_fault(text: &str) -> Result<Fault, &'static str> {
    let (name, span) = match text.split_once(':') {
        Some((name, span)) => (name, Some(span)),
        None => (text, None),
    };
    let span = span
        .map(humantime::parse_duration)
        .transpose()
        .map_err(|_| "write times as in 200ms or 5s")?;
    Ok(match (name, span) {
        ("pass", None) => Fault::Pass,
        ("not-sent", None) => Fault::NotSent,
        ("refuse", None) => Fault::Refuse,
        ("drop-answer", None) => Fault::DropAnswer,
        ("lose", None) => Fault::LoseRequest,
        ("delay", Some(span)) => Fault::Delay(span),
        ("late", Some(span)) => Fault::Late(span),
        _ => return Err(FAULTS),
    })
}

/// Chooses the fault of each call by a plan. Clones share the plan and the counts of calls.
#[derive(Clone)]
pub struct FaultInjector(Arc<Mutex<ActivePlan>>);

struct ActivePlan {
    plan: FaultPlan,
    calls: HashMap<Operation, u64>,
    random: fastrand::Rng,
}

impl FaultInjector {
    /// Follows a plan from its start.
    pub fn new(plan: FaultPlan) -> Self {
        Self(Arc::new(Mutex::new(ActivePlan::new(plan))))
    }

    /// Follows another plan from its start.
    pub fn set(&self, plan: FaultPlan) {
        *self.active() = ActivePlan::new(plan);
    }

    /// The fault of the next call, which counts as each of these operations. A delay ends before this returns.
    pub(super) async fn next(&self, operations: &[Operation]) -> Fault {
        match self.choose(operations) {
            Fault::Delay(span) => {
                tokio::time::sleep(span).await;
                Fault::Pass
            }
            fault => fault,
        }
    }

    fn choose(&self, operations: &[Operation]) -> Fault {
        let mut active = self.active();
        let mut chosen = None;
        for operation in operations {
            let fault = active.next(*operation);
            chosen = chosen.or(fault);
        }
        chosen.unwrap_or(Fault::Pass)
    }

    fn active(&self) -> MutexGuard<'_, ActivePlan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FaultInjector {
    fn default() -> Self {
        Self::new(FaultPlan::default())
    }
}

impl ActivePlan {
    fn new(plan: FaultPlan) -> Self {
        Self {
            random: fastrand::Rng::with_seed(plan.seed),
            calls: HashMap::new(),
            plan,
        }
    }

    fn next(&mut self, operation: Operation) -> Option<Fault> {
        let call = self.calls.entry(operation).or_insert(0);
        *call += 1;
        let (call, random) = (*call, &mut self.random);
        let mut rules = self.plan.rules.iter().filter(|r| r.operation == operation);
        let rule = rules.find(|rule| match rule.selection {
            Selection::Calls(first, last) => (first..=last).contains(&call),
            Selection::Chance(chance) => random.f64() < chance,
        });
        rule.map(|rule| rule.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen_faults(plan: &str, calls: usize) -> Vec<Fault> {
        let faults = FaultInjector::new(plan.parse().expect("a plan"));
        (0..calls)
            .map(|_| faults.choose(&[Operation::Put, Operation::Update]))
            .collect()
    }

    #[test]
    fn parses_a_plan() {
        let (pass, late) = (Fault::Pass, Fault::Late(Duration::from_secs(2)));
        assert_eq!(
            chosen_faults("put@2=refuse, update@3-4=late:2s,put@6-=lose", 7),
            [
                pass,
                Fault::Refuse,
                late,
                late,
                pass,
                Fault::LoseRequest,
                Fault::LoseRequest
            ]
        );
    }

    #[test]
    fn the_same_seed_selects_the_same_calls() {
        let some = chosen_faults("put~0.5=lose,seed=7", 64);
        assert_eq!(chosen_faults("put~0.5=lose,seed=7", 64), some);
        assert_ne!(chosen_faults("put~0.5=lose,seed=8", 64), some);
        let lost = some.iter().filter(|f| **f == Fault::LoseRequest).count();
        assert!((16..48).contains(&lost), "{lost} of 64");
    }

    #[test]
    fn rejects_an_invalid_rule_and_names_it() {
        for text in [
            "refuse",
            "put=refuse",
            "put@0=refuse",
            "put@a=refuse",
            "put@3-1=refuse",
            "put@1=withhold",
            "put~2=refuse",
            "get@1=refuse",
            "put@1=explode",
            "put@1=delay",
            "put@1=delay:soon",
            "put@1=refuse:1s",
            "seed=x",
        ] {
            let error = text.parse::<FaultPlan>().expect_err(text).to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
