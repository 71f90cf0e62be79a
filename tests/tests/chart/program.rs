//! What the chart says to the program, the program takes: each container of ours is started as rendered.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{SETS, pods};

/// Exit code of clap for flags and variables that it refuses.
const USAGE: i32 = 2;
/// A program that has said nothing by then waits for something else than its settings.
const AT_MOST: Duration = Duration::from_secs(60);

/// The program, which cargo builds for the workspace's tests beside this executable.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().and_then(|deps| deps.parent()).unwrap().join("headstart");
    assert!(program.is_file(), "{} is missing: cargo build -p headstart", program.display());
    program
}

struct Started {
    what: String,
    child: Child,
}

/// A container of ours as Kubernetes starts it, but for NATS, which is nowhere, and files, which are not mounted.
fn start(owner: &str, container: &Value) -> Option<Started> {
    let args: Vec<&str> = container["args"].as_array()?.iter().filter_map(Value::as_str).collect();
    if container["name"] == "nats" {
        return None;
    }
    let mut command = Command::new(program());
    command.args(&args).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for env in container["env"].as_array().into_iter().flatten() {
        command.env(env["name"].as_str()?, env["value"].as_str().unwrap_or("of-the-pod"));
    }
    // What would listen takes a free port, and nobody is called.
    let named =
        |name: &str| container["env"].as_array().is_some_and(|all| all.iter().any(|e| e["name"] == name));
    for (variable, value) in [
        ("LISTEN", "127.0.0.1:0"),
        ("HEALTH_LISTEN", "127.0.0.1:0"),
        ("API_URL", "http://127.0.0.1:9"),
        ("WAIT_SECONDS", "1"),
    ] {
        if named(variable) {
            command.env(variable, value);
        }
    }
    command.env("NATS_URL", "nats://127.0.0.1:9");
    Some(Started { what: format!("{owner}: {args:?}"), child: command.spawn().unwrap() })
}

/// What it says, if it ends for the sake of its settings.
fn refused(started: &mut Started) -> Option<String> {
    let log = started.child.stderr.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            sender.send(line).ok();
        }
    });
    let first = receiver.recv_timeout(AT_MOST).ok();
    // A line of the log: it has taken its settings, and goes on or can't.
    let Some(mut said) = first.filter(|line| !line.starts_with('{')) else {
        started.child.kill().ok();
        started.child.wait().ok();
        return None;
    };
    said.extend(receiver);
    let code = started.child.wait().unwrap().code();
    (code == Some(USAGE)).then_some(said)
}

#[test]
fn every_container_starts_with_its_environment() {
    let mut seen = 0;
    for set in SETS.into_iter().chain(["former"]) {
        let mut started: Vec<Started> = pods::all(set)
            .iter()
            .flat_map(|pod| {
                pod.spec["containers"].as_array().into_iter().flatten().filter_map(|c| start(&pod.owner, c))
            })
            .collect();
        for one in &mut started {
            assert_eq!(refused(one), None, "{}", one.what);
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen}");
}

/// The check above can fail.
#[test]
fn a_value_that_the_program_does_not_take_is_noticed() {
    let container = serde_json::json!({
        "name": "api", "args": ["api"], "env": [{"name": "MAX_CONNECTIONS", "value": "1e+06"}],
    });
    let said = refused(&mut start("wrong", &container).unwrap());
    assert!(said.as_ref().is_some_and(|said| said.contains("max-connections")), "{said:?}");
}
