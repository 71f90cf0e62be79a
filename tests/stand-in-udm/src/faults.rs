//! What goes wrong, and when: switches that can be thrown while the server runs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// All switches. The default is a server in good health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Time that each GET of an object takes, in milliseconds.
    pub get_delay_ms: u64,
    /// Time that each GET of an object takes besides, in microseconds, in which its process serves no other.
    pub get_serial_us: u64,
    /// Percent by which that grows for each other GET that the process is busy with.
    pub crowding_percent: u32,
    /// Time that each list takes, in milliseconds.
    pub list_delay_ms: u64,
    /// Lists of more entries are answered with 400.
    pub size_limit: Option<usize>,
    /// All addresses in answers start with this instead of the request's host, e.g. `http://other:80/univention`.
    pub link_base: Option<String>,
    /// References go out as `Link` headers too, up to so many: big heads.
    pub link_headers: usize,
    /// Modules that are installed but not loaded yet: not in the index, and 404.
    pub unloaded_modules: BTreeSet<String>,
    /// DNs of entries whose values UDM can't map: each list that has one of them is 500 as a whole, and so is its GET.
    pub broken_entries: BTreeSet<String>,
    /// LDAP is away: everything is answered with 401 after so many milliseconds, one after the other (UDM: 10 s).
    pub directory_away_ms: Option<u64>,
    /// Faults of single requests; the first that matches a request is taken.
    pub rules: Vec<Rule>,
}

/// A fault of the requests that match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Kind of request.
    #[serde(default)]
    pub on: On,
    /// Only requests of this module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Only requests of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dn: Option<String>,
    /// So many matching requests are served well first.
    #[serde(default)]
    pub after: u32,
    /// Then so many suffer; without a number all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What happens.
    pub effect: Effect,
}

/// Kinds of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Every request.
    #[default]
    Any,
    /// The index of modules.
    Index,
    /// The list of a module.
    List,
    /// One object.
    Object,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// An error with UDM's body.
    Status {
        /// HTTP status.
        code: u16,
    },
    /// 503 because LDAP is away: UDM's JSON body, `Retry-After: 15`.
    LdapDown {
        /// Another `Retry-After`: seconds, or a date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// 503 of the gateway because its backend is away: a bare JSON string, `Retry-After: 3`.
    BackendDown {
        /// Another `Retry-After`: seconds, or a date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Served well, after so many milliseconds.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// No answer until the server ends.
    Hang,
    /// The head of the answer, then nothing until the server ends.
    HangInBody {
        /// Bytes of the body that still come.
        bytes: usize,
    },
    /// The connection is cut in the middle of the body.
    Cut {
        /// Bytes of the body that still come.
        bytes: usize,
    },
    /// A whole answer of a piece of JSON.
    Truncate {
        /// Bytes of the body.
        bytes: usize,
    },
    /// 200 with a page of HTML, as a login page of a proxy.
    Html,
    /// 301 to the same path elsewhere.
    Redirect {
        /// Scheme and host, e.g. `http://other:80`.
        to: String,
    },
    /// The object is removed just before: 404.
    Vanish,
    /// The object is given another DN just before: 404.
    Move {
        /// The new DN.
        to: String,
    },
    /// A part of the answer's text is another.
    Replace {
        /// What is replaced.
        from: String,
        /// What comes instead.
        to: String,
    },
    /// The module is not loaded any more: 404, here and from now on.
    Unload {
        /// The module.
        module: String,
    },
    /// The object is removed just after it was listed or read.
    VanishAfter,
}

impl Rule {
    /// A rule for all requests.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self { on: On::Any, module: None, dn: None, after: 0, times: None, effect }
    }

    /// Only for one kind of request.
    #[must_use]
    pub fn on(self, on: On) -> Self {
        Self { on, ..self }
    }

    /// Only for GETs of one object.
    #[must_use]
    pub fn dn(self, dn: &str) -> Self {
        Self { on: On::Object, dn: Some(dn.to_owned()), ..self }
    }

    /// Only for one module.
    #[must_use]
    pub fn module(self, module: &str) -> Self {
        Self { module: Some(module.to_owned()), ..self }
    }

    /// Only so many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Only after so many requests that are served well.
    #[must_use]
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }

    fn matches(&self, on: On, module: &str, dn: Option<&str>) -> bool {
        (self.on == On::Any || self.on == on)
            && self.module.as_deref().is_none_or(|m| m == module)
            && self.dn.as_deref().is_none_or(|d| Some(d) == dn)
    }
}

/// The switches of a running server. Clones are the same switches.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    faults: Arc<Mutex<Faults>>,
}

impl Switches {
    /// Switches in the given position.
    #[must_use]
    pub fn new(faults: Faults) -> Self {
        Self { faults: Arc::new(Mutex::new(faults)) }
    }

    /// Puts all switches.
    pub fn set(&self, faults: Faults) {
        self.update(|now| *now = faults);
    }

    /// Changes some switches.
    pub fn update(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds a rule behind those that there are.
    pub fn add(&self, rule: Rule) {
        self.update(|now| now.rules.push(rule));
    }

    /// All switches as they are now; `times` and `after` of the rules are what is left of them.
    #[must_use]
    pub fn get(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads from the switches without a copy.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Faults) -> T) -> T {
        read(&self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The effect on one request, which is counted.
    pub(crate) fn pick(&self, on: On, module: &str, dn: Option<&str>) -> Option<Effect> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for rule in faults.rules.iter_mut().filter(|rule| rule.matches(on, module, dn)) {
            if rule.after > 0 {
                rule.after -= 1;
                continue;
            }
            match &mut rule.times {
                Some(0) => continue,
                Some(times) => *times -= 1,
                None => {}
            }
            return Some(rule.effect.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_the_requests_that_match() {
        let switches = Switches::default();
        switches.add(Rule::new(Effect::Hang).dn("uid=a").after(1).times(2));
        switches.add(Rule::new(Effect::Html).on(On::List).module("users/user"));
        let pick = |on, module, dn| switches.pick(on, module, dn);
        assert_eq!(pick(On::Object, "users/user", Some("uid=b")), None);
        let picked: Vec<_> = (0..4).map(|_| pick(On::Object, "users/user", Some("uid=a"))).collect();
        assert_eq!(picked, [None, Some(Effect::Hang), Some(Effect::Hang), None]);
        assert_eq!(pick(On::List, "users/user", None), Some(Effect::Html));
        assert_eq!(pick(On::List, "groups/group", None), None);
    }

    #[test]
    fn switches_are_json() {
        let text = r#"{"size_limit": 3, "rules": [{"on": "object", "dn": "uid=a", "effect": {"status": {"code": 500}}}, {"effect": "hang"}]}"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        assert_eq!(faults.rules.len(), 2);
        let again = serde_json::to_string(&faults).unwrap();
        assert_eq!(serde_json::from_str::<Faults>(&again).unwrap(), faults);
        assert!(serde_json::from_str::<Faults>(r#"{"size": 3}"#).is_err());
    }
}
