//! The streams and buckets that all share: made, followed when a setting changes, and never taken from somebody else.

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Broker, Error, names, wire::code};

/// Most dead letters of all subscriptions together, their parts counted: beyond it the oldest go.
const MOST_DEAD_LETTERS: i64 = 100_000;
/// Names of foreign streams that are shown.
const SHOWN: usize = 5;

/// Settings of a stream, with whatever a newer server adds.
pub(crate) type Settings = Map<String, Value>;

/// What a setting means that a server leaves out.
fn setting<'a>(settings: &'a Settings, field: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    settings.get(field).unwrap_or(&NONE)
}

/// Settings that make a stream what it is. Where one differs the stream is somebody else's: ours never changes it.
const IDENTITY: [&str; 9] = [
    "retention",
    "discard",
    "max_age",
    "max_msgs_per_subject",
    "discard_new_per_subject",
    "allow_msg_ttl",
    "sealed",
    "mirror",
    "sources",
];

/// The same form for what can be written in several: no limit, no list, and what is left out.
fn normal(field: &str, value: &Value) -> Value {
    match (field, value) {
        ("max_msgs_per_subject" | "max_age", value) if value.as_i64().is_none_or(|n| n <= 0) => {
            Value::from(0)
        }
        (_, Value::Null | Value::Bool(false)) => Value::Null,
        (_, Value::Array(list)) if list.is_empty() => Value::Null,
        (_, value) => value.clone(),
    }
}

/// How a stream that is there goes on.
#[derive(Debug, PartialEq)]
pub(crate) enum Course {
    /// As it is, after these updates, one after the other.
    Ours {
        /// Whole settings.
        updates: Vec<Settings>,
        /// It has more copies than are wanted. It keeps them.
        too_many_copies: bool,
    },
    /// It is somebody else's, which can be seen by this.
    Foreign(String),
}

/// Decides about a stream of which these settings were found and those are wanted; `follow` names numbers that are
/// changed where they differ.
pub(crate) fn course(found: &Settings, wanted: &Settings, follow: &[&str]) -> Course {
    for field in IDENTITY.into_iter().filter(|field| !follow.contains(field)) {
        let (has, should) = (normal(field, setting(found, field)), normal(field, setting(wanted, field)));
        if has != should {
            return Course::Foreign(format!("its setting {field} is {has} where ours is {should}"));
        }
    }
    let subjects = |settings: &Settings| -> Vec<String> {
        let list = setting(settings, "subjects").as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|subject| subject.as_str().map(str::to_owned)).collect()
    };
    let (has, should) = (subjects(found), subjects(wanted));
    if let Some(other) = has.iter().find(|subject| !should.iter().any(|ours| covers(ours, subject))) {
        return Course::Foreign(format!("it has the subject {other}"));
    }
    let copies = |settings: &Settings| setting(settings, "num_replicas").as_u64().unwrap_or(1).max(1);
    let more = copies(wanted) > copies(found);
    let mut next = found.clone();
    let mut set = |field: &str, value: &Value| {
        next.insert(field.to_owned(), value.clone());
    };
    if !should.iter().all(|subject| has.contains(subject)) {
        set("subjects", setting(wanted, "subjects"));
    }
    if setting(wanted, "allow_atomic") == &Value::Bool(true)
        && setting(found, "allow_atomic") != &Value::Bool(true)
    {
        set("allow_atomic", &Value::Bool(true));
    }
    // Before there are several copies: any of them answers a direct get, also one that is behind.
    if copies(wanted) > 1
        && setting(wanted, "allow_direct") != &Value::Bool(true)
        && setting(found, "allow_direct") == &Value::Bool(true)
    {
        set("allow_direct", &Value::Bool(false));
    }
    for field in follow {
        if setting(found, field) != setting(wanted, field) {
            set(field, setting(wanted, field));
        }
    }
    let mut updates = Vec::new();
    if next != *found {
        updates.push(next.clone());
    }
    if more {
        next.insert("num_replicas".to_owned(), copies(wanted).into());
        updates.push(next);
    }
    Course::Ours { updates, too_many_copies: copies(wanted) < copies(found) }
}

/// Does a subject, maybe with wildcards, cover all of another one?
fn covers(ours: &str, other: &str) -> bool {
    let (mut ours, mut other) = (ours.split('.'), other.split('.'));
    loop {
        match (ours.next(), other.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Is it the stream of a queue of the former software, or of another one? Ours end with the incarnation.
fn is_foreign_queue(stream: &str) -> bool {
    let Some(rest) = stream.strip_prefix("stream:") else { return false };
    let incarnation = rest.split_once(':').map(|(_, incarnation)| incarnation);
    !incarnation.is_some_and(|text| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// One stream of the layout.
struct Planned {
    wanted: Settings,
    follow: &'static [&'static str],
}

impl Broker {
    /// Makes the streams and buckets that all share, if they are not there, and lets those that are there follow what
    /// is set. Safe to call at once from several replicas.
    ///
    /// # Errors
    /// [`Error::Foreign`], before anything is written, when NATS holds another software's: they are named.
    pub async fn create_layout(&self) -> Result<(), Error> {
        let planned = self.planned()?;
        let mut found = Vec::with_capacity(planned.len());
        for Planned { wanted, follow } in &planned {
            let name = name_of(wanted);
            let settings = self.stream_settings(name).await?;
            if let Some(settings) = &settings
                && let Course::Foreign(problem) = course(settings, wanted, follow)
            {
                return Err(Error::Foreign { what: format!("the stream {name}"), problem });
            }
            found.push(settings);
        }
        self.refuse_foreign_queues().await?;
        // The log is made first, so without it nothing here is ours.
        if found.first().is_some_and(Option::is_none) {
            self.refuse_foreign_entries().await?;
        }
        for (Planned { wanted, follow }, found) in planned.iter().zip(&found) {
            match found {
                Some(found) => self.follow(found, wanted, follow).await?,
                None => self.make(wanted).await?,
            }
        }
        Ok(())
    }

    fn planned(&self) -> Result<Vec<Planned>, Error> {
        let log = Config {
            name: names::INCOMING.to_owned(),
            subjects: vec![names::EVENT_SUBJECT.to_owned(), names::MARKER_SUBJECT.to_owned()],
            // Full is answered with 503; nothing is ever dropped.
            discard: DiscardPolicy::New,
            max_bytes: self.limits.log_bytes_config(),
            allow_atomic_publish: true,
            ..self.stream_config()
        };
        let tasks = Config {
            name: names::TASKS.to_owned(),
            subjects: vec![names::TASK_SUBJECTS.to_owned()],
            retention: RetentionPolicy::WorkQueue,
            // One task a subscription: the second of a repeated registration is refused.
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            ..self.stream_config()
        };
        let dead_letters = Config {
            name: names::DEAD_LETTERS.to_owned(),
            subjects: vec![names::DEAD_LETTER_SUBJECTS.to_owned()],
            max_messages: MOST_DEAD_LETTERS,
            allow_atomic_publish: true,
            ..self.stream_config()
        };
        // As the client makes them, so that its tools know them.
        let bucket = |bucket: &&str| Config {
            name: names::bucket_stream(bucket),
            subjects: vec![names::key_subject(bucket, ">")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..self.stream_config()
        };
        let streams: [(Config, &[&str]); 3] =
            [(log, &["max_bytes"]), (tasks, &[]), (dead_letters, &["max_msgs"])];
        let buckets = names::BUCKETS.iter().map(|name| (bucket(name), &[] as &[&str]));
        streams
            .into_iter()
            .chain(buckets)
            .map(|(config, follow)| Ok(Planned { wanted: settings(&config)?, follow }))
            .collect()
    }

    async fn make(&self, wanted: &Settings) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Made {}
        let name = name_of(wanted);
        match self
            .wire
            .api::<Made>(&format!("making the stream {name}"), &format!("STREAM.CREATE.{name}"), wanted)
            .await
        {
            // Another replica was faster.
            Ok(Made {}) | Err(Error::Refused { code: code::STREAM_NAME_EXISTS, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lets a stream that is there follow what is set.
    pub(crate) async fn follow(
        &self,
        found: &Settings,
        wanted: &Settings,
        follow: &[&str],
    ) -> Result<(), Error> {
        let stream = name_of(wanted);
        let (updates, too_many_copies) = match course(found, wanted, follow) {
            Course::Ours { updates, too_many_copies } => (updates, too_many_copies),
            Course::Foreign(problem) => {
                return Err(Error::Foreign { what: format!("the stream {stream}"), problem });
            }
        };
        if too_many_copies {
            let (copies, wanted) = (setting(found, "num_replicas"), setting(wanted, "num_replicas"));
            tracing::warn!(stream, %copies, %wanted, "a stream keeps its copies: fewer are not made of themselves");
        }
        for next in updates {
            let changed: Vec<&String> = next
                .iter()
                .filter(|(field, value)| found.get(*field) != Some(value))
                .map(|(f, _)| f)
                .collect();
            let action = format!("changing the stream {stream}");
            self.wire.api::<Value>(&action, &format!("STREAM.UPDATE.{stream}"), &next).await?;
            tracing::info!(stream, ?changed, copies = %setting(&next, "num_replicas"), "a stream follows its settings");
        }
        Ok(())
    }

    /// The settings of a stream; `None`: it is not there.
    pub(crate) async fn stream_settings(&self, stream: &str) -> Result<Option<Settings>, Error> {
        #[derive(Deserialize)]
        struct Info {
            config: Settings,
        }
        let action = format!("looking at the settings of {stream}");
        match self.wire.api::<Info>(&action, &format!("STREAM.INFO.{stream}"), &()).await {
            Ok(Info { config }) => Ok(Some(config)),
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn refuse_foreign_queues(&self) -> Result<(), Error> {
        let streams = self.stream_names().await?;
        let foreign: Vec<&str> = streams
            .iter()
            .map(String::as_str)
            .filter(|stream| is_foreign_queue(stream))
            .take(SHOWN)
            .collect();
        if foreign.is_empty() {
            return Ok(());
        }
        let problem =
            "streams of that form belong to another provisioning service, and keep subjects that ours need";
        Err(Error::Foreign {
            what: format!("the stream {}", foreign.join(", ")),
            problem: problem.to_owned(),
        })
    }

    /// Entries in a bucket that was there before us, none of which can be read.
    async fn refuse_foreign_entries(&self) -> Result<(), Error> {
        let listed = match self.registry().list().await {
            Err(Error::LayoutMissing { .. }) => return Ok(()),
            listed => listed?,
        };
        if !listed.entries.is_empty() || listed.unreadable.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> =
            listed.unreadable.iter().map(|entry| entry.name.as_str()).take(SHOWN).collect();
        let problem = format!("it holds what we can't read ({})", names.join(", "));
        Err(Error::Foreign { what: format!("the bucket {}", names::SUBSCRIPTIONS), problem })
    }

    /// Looks whether [`create_layout`](Self::create_layout) has been done.
    ///
    /// # Errors
    /// [`Error::LayoutMissing`] names what is not there.
    pub async fn await_layout(&self) -> Result<(), Error> {
        let buckets = names::BUCKETS.iter().map(|bucket| names::bucket_stream(bucket));
        let streams = [names::INCOMING, names::TASKS, names::DEAD_LETTERS]
            .map(str::to_owned)
            .into_iter()
            .chain(buckets);
        for stream in streams {
            if self.stream_state(&stream).await?.is_none() {
                return Err(Error::LayoutMissing { what: format!("the stream {stream}") });
            }
        }
        Ok(())
    }

    fn stream_config(&self) -> Config {
        Config {
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: self.replicas,
            max_messages: -1,
            max_bytes: -1,
            max_messages_per_subject: -1,
            ..Config::default()
        }
    }

    pub(crate) fn queue_config(&self, name: String, subjects: Vec<String>, first_sequence: u64) -> Config {
        Config {
            name,
            subjects,
            first_sequence: Some(first_sequence),
            max_messages_per_subject: self.limits.queue_messages.cast_signed(),
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            allow_rollup: true,
            allow_atomic_publish: true,
            // Any replica answers a direct get, and one that lags behind would show what was removed: only where
            // there is one replica, which is the leader.
            allow_direct: self.replicas == 1,
            ..self.stream_config()
        }
    }

    /// Creates a stream; one with the same name is left as it is.
    pub(crate) async fn create_stream(&self, config: &Config) -> Result<(), Error> {
        self.make(&settings(config)?).await
    }
}

/// Settings as they are written.
pub(crate) fn settings(config: &Config) -> Result<Settings, Error> {
    match serde_json::to_value(config) {
        Ok(Value::Object(settings)) => Ok(settings),
        Ok(_) => Err(Error::corrupt("the settings of a stream", "no object")),
        Err(error) => Err(Error::corrupt("the settings of a stream", error)),
    }
}

fn name_of(settings: &Settings) -> &str {
    settings.get("name").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Settings {
        value.as_object().unwrap().clone()
    }

    fn wanted() -> Settings {
        settings(json!({
            "name": "incoming", "subjects": ["incoming.event", "incoming.marker"], "retention": "limits",
            "discard": "new", "max_age": 0, "max_msgs_per_subject": -1, "max_bytes": 7, "num_replicas": 3,
            "allow_atomic": true,
        }))
    }

    fn with(mut settings: Settings, field: &str, value: Value) -> Settings {
        settings.insert(field.to_owned(), value);
        settings
    }

    #[test]
    fn a_stream_that_is_as_it_should_be_is_left_alone() {
        for (field, value) in [
            ("max_msgs_per_subject", json!(0)),
            ("sources", json!([])),
            ("sealed", json!(false)),
            ("allow_msg_ttl", json!(false)),
            ("something_new", json!(7)),
        ] {
            let course = course(&with(wanted(), field, value), &wanted(), &["max_bytes"]);
            assert_eq!(course, Course::Ours { updates: vec![], too_many_copies: false }, "{field}");
        }
    }

    #[test]
    fn what_is_somebody_elses_is_named_by_what_shows_it() {
        for (field, value) in [
            ("max_age", json!(60_000_000_000_u64)),
            ("discard", json!("old")),
            ("retention", json!("interest")),
            ("max_msgs_per_subject", json!(1)),
            ("allow_msg_ttl", json!(true)),
            ("sealed", json!(true)),
            ("mirror", json!({"name": "other"})),
            ("sources", json!([{"name": "other"}])),
            ("subjects", json!(["incoming.event", "other.>"])),
            ("subjects", json!(["incoming"])),
            ("subjects", json!(["incoming.>"])),
        ] {
            let Course::Foreign(problem) = course(&with(wanted(), field, value), &wanted(), &[]) else {
                panic!("{field} is taken")
            };
            assert!(problem.contains(field.trim_end_matches('s')), "{field}: {problem}");
        }
    }

    #[test]
    fn copies_are_raised_after_direct_gets_are_off_and_never_lowered() {
        let one = with(with(wanted(), "num_replicas", json!(1)), "allow_direct", json!(true));
        let off = with(one.clone(), "allow_direct", json!(false));
        let raised = with(off.clone(), "num_replicas", json!(3));
        let ours = |updates, too_many_copies| Course::Ours { updates, too_many_copies };
        assert_eq!(course(&one, &wanted(), &[]), ours(vec![off, raised], false));
        let direct = with(wanted(), "allow_direct", json!(true));
        // Of a bucket nobody reads directly, so it may stay allowed.
        let bucket = with(with(wanted(), "num_replicas", json!(1)), "allow_direct", json!(true));
        assert_eq!(course(&bucket, &direct, &[]), ours(vec![direct.clone()], false));
        assert_eq!(course(&wanted(), &with(wanted(), "num_replicas", json!(1)), &[]), ours(vec![], true));
    }

    #[test]
    fn numbers_and_subjects_follow() {
        let former = with(wanted(), "max_bytes", json!(-1));
        let ours = |updates| Course::Ours { updates, too_many_copies: false };
        assert_eq!(course(&former, &wanted(), &["max_bytes"]), ours(vec![wanted()]));
        assert_eq!(course(&former, &wanted(), &[]), ours(vec![]));
        let fewer = with(wanted(), "subjects", json!(["incoming.event"]));
        assert_eq!(course(&fewer, &wanted(), &[]), ours(vec![wanted()]));
    }

    #[test]
    fn queues_of_others() {
        for (stream, foreign) in [
            ("stream:mail:0123abcd", false),
            ("stream:mail", true),
            ("stream:incoming", true),
            ("stream:mail:0123", true),
            ("stream:prefill-failures", true),
            ("incoming", false),
            ("KV_SUBSCRIPTIONS", false),
            ("streams", false),
        ] {
            assert_eq!(is_foreign_queue(stream), foreign, "{stream}");
        }
    }

    #[test]
    fn subjects_that_cover_others() {
        for (ours, other, expected) in [
            ("a.>", "a.b", true),
            ("a.>", "a.*.c", true),
            ("a.>", "a.>", true),
            ("a.>", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!(covers(ours, other), expected, "{ours} {other}");
        }
    }
}
