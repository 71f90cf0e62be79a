use clap::{CommandFactory, Parser};

use crate::settings::{self, Cli};

mod flags;
mod reference;

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

#[test]
fn wrong_values_are_refused_with_their_setting() {
    for (arguments, told) in [
        (&["--log-level", "verbose", "validate", "--source", "x"][..], "LOG_LEVEL"),
        (&["--log-format", "xml", "validate", "--source", "x"], "--log-format"),
        (&["watch", "mail", "--timeout", "0"], "--timeout"),
        (&["watch", "mail", "--admin-username", "a:b"], "--admin-username"),
        (&["standalone", "--source", "x", "--events-username-udm", ""], "--events-username-udm"),
        (&["standalone", "--source", "x", "--prefill-username", ":"], "--prefill-username"),
        (&["dispatcher", "--nats-url", "x", "--queue-max-age", "0"], "--queue-max-age"),
        (&["dispatcher", "--nats-url", "x", "--queue-max-messages", "0"], "--queue-max-messages"),
    ] {
        let error = Cli::try_parse_from([&["headstart"], arguments].concat()).unwrap_err().to_string();
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}
