use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::{
    commands,
    settings::{self, Cli, Command},
};

fn parsed(arguments: &[&str]) -> Command {
    Cli::try_parse_from([&["headstart"], arguments].concat()).unwrap().command
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_subcommand_is_found_behind_any_flags() {
    for (arguments, expected) in [
        (&["prefill", "--x"][..], Some("prefill")),
        (&["--log-level", "info", "prefill"], Some("prefill")),
        (&["--log-level=info", "--log-format", "json", "prefill"], Some("prefill")),
        (&["watch", "prefill"], Some("watch")),
        (&["--log-level", "prefill", "api"], Some("api")),
        (&["--version"], None),
        (&["--log-level"], None),
    ] {
        assert_eq!(settings::subcommand(arguments.iter().copied()), expected, "{arguments:?}");
    }
}

#[test]
fn missing_flags_are_told_with_their_variables() {
    for (arguments, expected) in [
        (&["headstart", "register"][..], &["CONSUMERS", "API_URL"][..]),
        (&["headstart", "validate"], &["SOURCE"]),
    ] {
        let error = Cli::try_parse_from(arguments).unwrap_err();
        let told = settings::missing_variables(&error, arguments[1]).unwrap();
        assert_eq!(told, expected.join(", "));
    }
}

/// Each flag with a value of its own, so that two that are confused are seen.
#[test]
fn flags_reach_the_configuration() {
    let queues = [
        "--queue-max-messages",
        "11",
        "--queue-max-bytes",
        "12",
        "--queue-max-age",
        "13.5",
        "--queue-when-full",
        "give-up",
    ];
    let api = [
        &[
            "api",
            "--nats-url",
            "nats://example:1",
            "--nats-password",
            "n",
            "--log-max-bytes",
            "14",
            "--root-path",
            "/r",
            "--cors-all",
            "yes",
            "--redelivery-delay",
            "1.5",
            "--max-connections",
            "15",
            "--streams-per-subscription",
            "16",
            "--polls-per-subscription",
            "17",
            "--admin-username",
            "a",
            "--admin-password",
            "ap",
            "--events-username-udm",
            "e",
            "--events-password-udm",
            "ep",
            "--prefill-username",
            "p",
            "--prefill-password",
            "pp",
            "--launcher",
            "queue",
        ][..],
        &queues,
    ]
    .concat();
    let Command::Api(api) = parsed(&api) else { panic!("another command") };
    let streams = api.log.streams(&api.queues);
    assert_eq!((streams.queue_messages, streams.log_bytes), (11, Some(14)));
    assert_eq!(api.launcher, settings::LauncherKind::Queue);
    let config = commands::api_config(api.roles.given().unwrap(), &api.http, &api.queues);
    let roles = [&config.roles.admin, &config.roles.events, &config.roles.prefill];
    let roles = roles.map(|role| format!("{} {}", role.username, role.password.read().unwrap()));
    assert_eq!(roles, ["a ap", "e ep", "p pp"]);
    assert_eq!((config.root_path.as_str(), config.cors_all), ("/r", true));
    assert_eq!(config.reader.redelivery_delay, Duration::from_millis(1500));
    let bounds = &config.bounds;
    assert_eq!(
        (bounds.connections, bounds.streams_per_subscription, bounds.polls_per_subscription),
        (15, 16, 17)
    );
    let limits = model::QueueLimits {
        messages: 11,
        bytes: Some(12),
        age: Some(Duration::from_millis(13_500)),
        when_full: model::WhenFull::GiveUp,
    };
    assert_eq!(config.limits, limits);

    let dispatcher = [&["dispatcher", "--nats-url", "nats://example:1"][..], &queues].concat();
    let Command::Dispatcher(dispatcher) = parsed(&dispatcher) else { panic!("another command") };
    assert_eq!(commands::dispatcher_config(&dispatcher.queues).limits, limits);

    let Command::Worker(worker) = parsed(&[
        "worker",
        "--nats-url",
        "nats://example:1",
        "--source",
        "x.jsonl",
        "--max-prefill-attempts",
        "18",
        "--parallel-prefills",
        "19",
        "--pod-name",
        "w",
        "--max-removals-objects",
        "20",
        "--max-removals-percent",
        "21",
    ]) else {
        panic!("another command")
    };
    let config = commands::worker_config(&worker.attempts, &worker.shape, &worker.removals, worker.pod_name);
    let share = model::MaxRemovalsShare { percent: 21, objects: 20 };
    assert_eq!(config.max_removals, model::MaxRemovals::Share(share));
    assert_eq!((config.tries_max, config.parallel, config.holder.as_str()), (Some(18), 19, "w"));
}

#[test]
fn wrong_values_are_refused_with_their_setting() {
    for (arguments, told) in [
        (&["--log-level", "verbose", "validate", "--source", "x"][..], "LOG_LEVEL"),
        (&["--log-format", "xml", "validate", "--source", "x"], "--log-format"),
        (&["watch", "mail", "--timeout", "0"], "--timeout"),
        (&["dispatcher", "--nats-url", "x", "--queue-max-age", "0"], "--queue-max-age"),
        (&["dispatcher", "--nats-url", "x", "--queue-max-messages", "0"], "--queue-max-messages"),
    ] {
        let error = Cli::try_parse_from([&["headstart"], arguments].concat()).unwrap_err().to_string();
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}
