//! Each flag reaches the configuration of its component: with a value that nothing else has, so that two that are
//! confused are seen.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};
use prefill_job::source::udm::{self, Credentials};

use crate::{
    commands,
    settings::{self, Cli, Command},
};

/// Arguments, and how what is configured shows them. `{file}` is a file that holds `of-the-file`.
type Row = (&'static str, &'static str);

const LOGGING: &[Row] =
    &[("--log-level api=debug", "log_level: \"api=debug\""), ("--log-format json", "log_format: Json")];

const ACCESS: &[Row] = &[
    ("--nats-user odd-user --nats-password odd", "user: Some(\"odd-user\")"),
    ("--nats-user odd-user --nats-password odd", "password of NATS: odd"),
    ("--nats-user odd-user --nats-password-file {file}", "password of NATS: of-the-file"),
    ("--nats-tls true", "required: true"),
    ("--nats-ca-file ca.pem", "ca_file: Some(\"ca.pem\")"),
    ("--nats-client-cert-file c.pem --nats-client-key-file k.pem", "certificate: \"c.pem\", key: \"k.pem\""),
];

const NATS: &[Row] = &[
    ("--nats-url nats://odd:1", "url: \"nats://odd:1\""),
    ("--nats-host odd", "url: \"nats://odd:4222\""),
    ("--nats-port 77", "url: \"nats://127.0.0.1:77\""),
    ("--nats-replicas 3", "replicas: 3"),
];

const QUEUES: &[Row] = &[
    ("--queue-max-messages 11", "QueueLimits { messages: 11,"),
    ("--queue-max-bytes 12", " bytes: Some(12)"),
    ("--queue-max-age 13.5", "age: Some(13.5s)"),
    ("--queue-when-full give-up", "when_full: GiveUp"),
];

const LOG: &[Row] =
    &[("--log-max-bytes 14", "log_bytes: Some(14)"), ("--queue-max-messages 11", "queue_messages: 11")];

const HTTP: &[Row] = &[
    ("--root-path /odd", "root_path: \"/odd\""),
    ("--cors-all yes", "cors_all: true"),
    ("--redelivery-delay 1.5", "redelivery_delay: 1.5s"),
    ("--tls-cert-file c.pem --tls-key-file k.pem", "TlsFiles { certificate: \"c.pem\", key: \"k.pem\" }"),
    ("--max-connections 15", "connections: 15"),
    ("--streams-per-subscription 18", "streams_per_subscription: 18"),
    ("--polls-per-subscription 17", "polls_per_subscription: 17"),
    ("--shutdown-delay 2.5", "shutdown_delay: 2.5s"),
    ("--trusted-proxies 10.0.0.0/9,2001:db8::/33", "10.0.0.0"),
    ("--trusted-proxies 10.0.0.0/9,2001:db8::/33", "2001:db8::"),
];

const ADMIN: &[Row] = &[
    ("--admin-username odd", "admin: odd"),
    ("--admin-password odd", "admin: admin odd"),
    ("--admin-password-file {file}", "admin: admin of-the-file"),
];

const ROLES: &[Row] = &[
    ("--events-username-udm odd", "events: odd"),
    ("--events-password-udm odd", "events: udm odd"),
    ("--events-password-udm-file {file}", "events: udm of-the-file"),
    ("--prefill-username odd", "prefill: odd"),
    ("--prefill-password odd", "prefill: prefill odd"),
    ("--prefill-password-file {file}", "prefill: prefill of-the-file"),
];

const JOBS: &[Row] = &[
    ("--job-template odd.yaml", "job_template: \"odd.yaml\""),
    ("--job-owner odd", "job_owner: Some(\"odd\")"),
    ("--namespace odd", "namespace: Some(\"odd\")"),
];

const UDM: &[Row] = &[
    ("--udm-username odd", "password of UDM: odd"),
    ("--udm-password odd", "password of UDM: cn=admin odd"),
    ("--udm-password-file {file}", "password of UDM: cn=admin of-the-file"),
    ("--udm-token odd", "token of UDM: odd"),
    ("--udm-token-file {file}", "token of UDM: of-the-file"),
    ("--udm-concurrency 33", "concurrency_max: 33"),
    ("--udm-missing-types fail", "missing_types: Fail"),
    ("--udm-missing-seconds 34", "missing_wait: 34s"),
    ("--udm-broken-objects fail", "broken_objects: Fail"),
    ("--udm-away-seconds 35", "away: 35s"),
    ("--udm-refused-seconds 36", "refused: 36s"),
    ("--udm-reads-primary true", "reads_primary: true"),
    ("--udm-lag-seconds 37", "lag: 37s"),
    ("--udm-ca-file {file}", "trusted for UDM: of-the-file"),
];

const SOURCE: &[Row] = &[("--source http://odd/udm/", "base_url: \"http://odd/udm/\"")];
const SHAPE: &[Row] = &[("--prefill-shape live", "shape: Live")];
const REMOVALS: &[Row] =
    &[("--max-removals-percent 41", "percent: 41"), ("--max-removals-objects 42", "objects: 42")];
const ATTEMPTS: &[Row] = &[
    ("--max-prefill-attempts 18", "tries_max: Some(18)"),
    ("--max-prefill-attempts -1", "tries_max: None"),
    ("--parallel-prefills 19", "parallel: 19"),
];
const PROBES: &[Row] = &[("--health-listen 127.0.0.1:81", "health_listen: Some(127.0.0.1:81)")];

const API: &[Row] =
    &[("--listen 127.0.0.1:82", "listen: 127.0.0.1:82"), ("--launcher queue", "launcher: Queue")];

const DISPATCHER: &[Row] =
    &[("--lane-entries-max 63", "lane_entries_max: 63"), ("--copy-after 64.5", "copy_after: 64.5s")];

const CONTROLLER: &[Row] = &[
    ("--queue-ages true", "queue_ages: true"),
    ("--launcher queue", "launcher: Queue"),
    ("--max-running-prefills 51", "max_running: 51"),
    ("--start-deadline 52.5", "start_deadline: 52.5s"),
    ("--nats-store-limit 53", "nats_store_limit: Some(53)"),
    ("--lease-name odd", "LeaseConfig { namespace: \"of-the-test\", name: \"odd\""),
    ("--lease-name x --pod-name odd", "holder: \"odd\""),
    ("--lease-name x --job-owner odd", "holder: \"headstart-controller\", owner: Some(\"odd\")"),
    ("--pod-name odd", "reporter: \"odd\""),
    ("--job-owner odd", " owner: Some(\"odd\")"),
];

const PREFILL: &[Row] = &[
    ("--task odd.json", "task: \"odd.json\""),
    ("--pod-name odd", "holder: \"odd\""),
    ("--termination-log odd.log", "termination_log: Some(\"odd.log\")"),
];

const WORKER: &[Row] = &[("--pod-name odd", "holder: \"odd\"")];

const STANDALONE: &[Row] = &[
    ("--listen 127.0.0.1:82", "listen: 127.0.0.1:82"),
    ("--data-dir odd", "data_dir: \"odd\""),
    ("--nats nats://odd:1", "nats_url: Some(\"nats://odd:1\")"),
    ("--nats-server odd-nats", "nats_server: Some(\"odd-nats\")"),
];

const VALIDATE: &[Row] = &[
    ("--topic odd/a --topic odd/b", "topic: [\"odd/a\", \"odd/b\"]"),
    ("--problems 61", "problems: 61"),
    ("--json", "json: true"),
];

const EXPORT: &[Row] = &[
    ("--topic odd/a --topic odd/b", "topic: [\"odd/a\", \"odd/b\"]"),
    ("--output odd.gz", "output: \"odd.gz\""),
];

const REGISTER: &[Row] = &[
    ("--consumers odd", "consumers: \"odd\""),
    ("--api http://odd", "api_url: \"http://odd\""),
    ("--api-ca-file ca.pem", "api_ca_file: Some(\"ca.pem\")"),
    ("--if-different update", "if_different: Update"),
    ("--wait-seconds 71", "wait_seconds: 71s"),
    (
        "--wait-for-udm-object users/user/odd --source http://x",
        "wait_for_udm_object: Some(\"users/user/odd\")",
    ),
    ("--source http://odd", "source: Some(\"http://odd\")"),
];

const WATCH: &[Row] = &[
    ("--api http://odd", "api: \"http://odd\""),
    ("--api-ca-file ca.pem", "api_ca_file: Some(\"ca.pem\")"),
    ("--password odd", "looks as: mail odd"),
    ("--admin-username odd", "looks as: odd base"),
    ("--admin-password odd", "looks as: admin odd"),
    ("--admin-password-file {file}", "looks as: admin of-the-file"),
    ("--timeout 72", "timeout: Some(72s)"),
];

/// A subcommand, arguments that it needs, and its flags.
const COMMANDS: &[(&str, &str, &[&[Row]])] = &[
    ("api", OF_ROLES, &[LOGGING, NATS, ACCESS, ADMIN, ROLES, HTTP, JOBS, QUEUES, LOG, API]),
    ("dispatcher", "", &[LOGGING, NATS, ACCESS, PROBES, QUEUES, DISPATCHER]),
    ("controller", "", &[LOGGING, NATS, ACCESS, PROBES, JOBS, CONTROLLER]),
    ("prefill", OF_UDM, &[LOGGING, NATS, ACCESS, SOURCE, UDM, SHAPE, REMOVALS, PREFILL]),
    ("worker", OF_UDM, &[LOGGING, NATS, ACCESS, PROBES, SOURCE, UDM, SHAPE, REMOVALS, ATTEMPTS, WORKER]),
    (
        "standalone",
        "--source http://udm/ --udm-password base --admin-password base --events-password-udm base \
         --prefill-password base",
        &[
            LOGGING, ACCESS, SOURCE, UDM, SHAPE, REMOVALS, ADMIN, ROLES, HTTP, ATTEMPTS, QUEUES, LOG,
            STANDALONE,
        ],
    ),
    ("validate", OF_UDM, &[LOGGING, SOURCE, UDM, VALIDATE]),
    ("export", "--source http://udm/ --udm-password base --output x", &[LOGGING, SOURCE, UDM, EXPORT]),
    (
        "register",
        "--consumers x --api http://x --admin-password base --udm-password base",
        &[LOGGING, ADMIN, UDM, REGISTER],
    ),
    ("watch", "mail --admin-password base", &[LOGGING, WATCH]),
];

const OF_ROLES: &str = "--admin-password base --events-password-udm base --prefill-password base";
const OF_UDM: &str = "--source http://udm/ --udm-password base";

fn roles(given: &settings::Roles) -> String {
    let api::Roles { admin, events, prefill } = given.given().unwrap();
    let shown = [("admin", admin), ("events", events), ("prefill", prefill)]
        .map(|(role, user)| format!("{role}: {} {}", user.username, user.password.read().unwrap()));
    shown.join("\n")
}

fn nats(config: anyhow::Result<broker::NatsConfig>) -> String {
    let config = config.unwrap();
    let password = config.password.as_ref().map(|password| password.read().unwrap());
    format!("{config:?}\npassword of NATS: {}", password.unwrap_or_default())
}

fn udm(settings: &settings::Udm, address: &str) -> String {
    let config = settings.config(address).unwrap();
    let secret = match &config.credentials {
        Credentials::Basic { username, password } => {
            format!("password of UDM: {username} {}", password.read().unwrap())
        }
        Credentials::Bearer(token) => format!("token of UDM: {}", token.read().unwrap()),
    };
    let trusted = config.ca_pem.clone().map(|pem| String::from_utf8(pem).unwrap());
    let config = udm::Config { ca_pem: None, ..config };
    format!("{config:?}\n{secret}\ntrusted for UDM: {}", trusted.unwrap_or_default())
}

/// What a component is given, and of its settings those that it uses as they are.
fn configured(command: Command) -> String {
    match command {
        Command::Api(s) => {
            let config = commands::api_config(s.roles.given().unwrap(), &s.http, &s.queues);
            let streams = s.log.streams(&s.queues);
            let (roles, nats) = (roles(&s.roles), nats(s.nats.config("api")));
            let settings::Api { listen, launcher, jobs, .. } = s;
            format!(
                "{config:?}\n{streams:?}\n{roles}\n{nats}\nlisten: {listen} launcher: {launcher:?} {jobs:?}"
            )
        }
        Command::Dispatcher(s) => {
            let (config, nats) = (commands::dispatcher_alone_config(&s), nats(s.nats.config("dispatcher")));
            format!("{config:?}\n{nats}\n{:?}", s.probes)
        }
        Command::Controller(s) => {
            let template = include_str!("../../../manifests/tests/template.yaml");
            let template = manifests::JobTemplate::parse(template).unwrap();
            let lease = commands::lease_config(&s, "of-the-test");
            let nats = nats(s.nats.config("controller"));
            let used = format!(
                "{:?} {:?} launcher: {:?} nats_store_limit: {:?} queue_ages: {}",
                s.probes, s.jobs, s.launcher, s.nats_store_limit, s.queue_ages
            );
            let config = commands::controller_config(s, "of-the-test".to_owned(), template);
            format!("{config:?}\n{lease:?}\n{nats}\n{used}")
        }
        Command::Prefill(s) => {
            let (nats, udm) = (nats(s.nats.config("prefill")), udm(&s.udm, &s.source.source));
            format!("{:?}\n{nats}\n{udm}", commands::job_config(&s))
        }
        Command::Worker(s) => {
            let (nats, udm) = (nats(s.nats.config("worker")), udm(&s.udm, &s.source.source));
            let config = commands::worker_config(&s.attempts, &s.shape, &s.removals, s.pod_name);
            format!("{config:?}\n{nats}\n{udm}\n{:?}", s.probes)
        }
        Command::Standalone(s) => {
            let config = commands::api_config(s.roles.given().unwrap(), &s.http, &s.queues);
            let dispatcher = commands::dispatcher_config(&s.queues);
            let worker = commands::worker_config(&s.attempts, &s.shape, &s.removals, String::new());
            let streams = s.log.streams(&s.queues);
            let (roles, udm) = (roles(&s.roles), udm(&s.udm, &s.source.source));
            let nats = nats(s.nats_access.config("nats://x".to_owned(), "standalone"));
            let settings::Standalone { listen, data_dir, nats_url, nats_server, .. } = s;
            format!(
                "{config:?}\n{dispatcher:?}\n{worker:?}\n{streams:?}\n{roles}\n{udm}\n{nats}\nlisten: {listen} \
                 data_dir: {data_dir:?} nats_url: {nats_url:?} nats_server: {nats_server:?}"
            )
        }
        Command::Validate(s) => format!("{}\n{s:?}", udm(&s.udm, &s.source.source)),
        Command::Export(s) => format!("{}\n{s:?}", udm(&s.udm, &s.source.source)),
        Command::Register(s) => {
            let password = s.admin.password().unwrap().read().unwrap();
            format!("{}\nadmin: {} {password}\n{s:?}", udm(&s.udm, "http://udm/"), s.admin.admin_username)
        }
        Command::Watch(s) => {
            let (user, password) = s.credentials().unwrap();
            format!("looks as: {user} {}\n{s:?}", password.read().unwrap())
        }
        Command::GuardedNatsServer(s) => format!("{s:?}"),
    }
}

/// Arguments beside which these ones can be given.
fn base<'a>(always: &'a str, arguments: &[&str]) -> Vec<&'a str> {
    let given = |flag: &str| {
        arguments.iter().any(|given| {
            *given == flag
                || given.strip_suffix("-file") == Some(flag)
                || (flag == "--udm-password" && given.starts_with("--udm-token"))
        })
    };
    let mut rest = Vec::new();
    let mut words = always.split_whitespace();
    while let Some(word) = words.next() {
        let value = if word.starts_with("--") { words.next() } else { None };
        if !given(word) {
            rest.push(word);
            rest.extend(value);
        }
    }
    rest
}

#[test]
fn each_flag_reaches_the_configuration() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "of-the-file\n").unwrap();
    let path = file.path().to_str().unwrap();
    let shown = |name: &str, arguments: &[&str]| {
        let cli = Cli::try_parse_from([&["headstart", name], arguments].concat()).unwrap();
        format!("{}\n{:?}", configured(cli.command), cli.logging)
    };
    let names: BTreeSet<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    for (name, always, groups) in COMMANDS {
        let mut seen = BTreeSet::new();
        for (row, expected) in groups.iter().copied().flatten() {
            let row = row.replace("{file}", path);
            let arguments: Vec<&str> = row.split_whitespace().collect();
            seen.extend(arguments.iter().filter_map(|word| word.strip_prefix("--")).map(str::to_owned));
            let rest = base(always, &arguments);
            let without = shown(name, &base(always, &[]));
            let with = shown(name, &[rest, arguments].concat());
            assert!(!without.contains(expected), "{name}: {expected} is there without {row}: {without}");
            assert!(with.contains(expected), "{name} {row}: no {expected} in {with}");
        }
        let cli = Cli::command();
        let command = cli.find_subcommand(name).unwrap();
        for flag in command.get_arguments().filter_map(|arg| arg.get_long()) {
            assert!(seen.contains(flag), "{name}: nothing tries --{flag}");
        }
    }
    let cli = Cli::command();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        assert!(names.contains(command.get_name()), "nothing tries {}", command.get_name());
    }
}

/// The flag `--nats-url` is the variable `NATS_URL`, but for names that installations know otherwise.
#[test]
fn each_flag_of_a_component_is_a_variable() {
    const OTHERWISE: &[(&str, &str, &str)] = &[
        ("dispatcher", "lane-entries-max", "DISPATCHER_LANE_ENTRIES_MAX"),
        ("dispatcher", "copy-after", "DISPATCHER_COPY_AFTER"),
        ("prefill", "task", "PREFILL_TASK"),
        ("standalone", "nats", "NATS_URL"),
        ("standalone", "nats-server", "HEADSTART_NATS_SERVER"),
        ("register", "api", "API_URL"),
        ("watch", "api", "API_URL"),
        ("watch", "password", "SUBSCRIPTION_PASSWORD"),
    ];
    let cli = Cli::command();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long().filter(|flag| !["help", "version"].contains(flag)) else {
                continue;
            };
            let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            let name = command.get_name();
            // What somebody at a terminal wants once is no setting.
            if variable.is_none() {
                assert!(["validate", "export", "watch"].contains(&name), "{name} --{flag}");
                continue;
            }
            let other = OTHERWISE.iter().find(|(of, other, _)| *of == name && *other == flag);
            let expected =
                other.map_or_else(|| flag.replace('-', "_").to_uppercase(), |(.., name)| (*name).to_owned());
            assert_eq!(variable, Some(expected), "{name} --{flag}");
        }
    }
}
