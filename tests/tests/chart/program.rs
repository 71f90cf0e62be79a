//! What the chart says to the program, the program takes: each container of ours is started as rendered.

use std::{
    io::Read,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{SETS, pods};

/// Exit code of clap for flags and variables that it refuses.
const USAGE: i32 = 2;
/// A program that has said nothing by then waits for something else than its settings.
const AT_MOST: Duration = Duration::from_secs(30);

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
    command.args(&args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
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

/// The exit code, if it ends at once: who says something and goes on has taken its settings.
fn refused(started: &mut Started) -> Option<String> {
    let until = Instant::now() + AT_MOST;
    let mut said = String::new();
    let mut log = started.child.stdout.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut first = [0; 1];
        let spoke = log.read(&mut first).is_ok_and(|n| n > 0);
        sender.send(spoke).ok();
    });
    let spoke = receiver.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or(true);
    if spoke {
        started.child.kill().ok();
        started.child.wait().ok();
        return None;
    }
    let code = started.child.wait().unwrap().code();
    started.child.stderr.take().unwrap().read_to_string(&mut said).ok();
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
