//! `cargo xtask demo`: what Headstart does, in a minute, on one machine and without Kubernetes. A consumer registers,
//! waits for its prefill, reads it, and then sees changes as they happen; whoever likes kills what runs meanwhile.
//! At its end it counts whether the promises were kept, and says so by its exit code.

use std::{
    fmt::Write as _,
    fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{commands, interrupt::Interrupt, tools, workspace};

mod account;
mod api;
mod directory;
mod screen;
mod server;

use account::{Account, Received};
use api::{Answer, Api, Role};
use screen::Screen;
use server::Server;

/// The consumer's name.
const CONSUMER: &str = "mail-server";

/// Changes that happen while the prefill runs, and must come after it.
const CHANGES_MEANWHILE: u64 = 5;

/// How long a message that must come may take, crashes included.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Users in the directory
    #[arg(long, default_value_t = 2_000)]
    users: u64,
    /// Groups in the directory
    #[arg(long, default_value_t = 60)]
    groups: u64,
    /// Changes shown live after the prefill
    #[arg(long, default_value_t = 20)]
    changes: u64,
    /// Kill headstart and its nats-server with SIGKILL, again and again, instead of leaving that to you
    #[arg(long)]
    kill: bool,
}

/// Runs the demo.
///
/// # Errors
/// Something could not be had or started.
pub fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let nats_server = tools::any_nats_server()?;
    // The profile of development: it builds in half the time, and shares the crates that this program is built of.
    println!("building headstart (the first time takes some minutes)");
    commands::run(commands::cargo().args(["build", "--package=headstart"]))?;
    let headstart = workspace::target().join("debug/headstart");

    let folder = tempfile::Builder::new().prefix("headstart-demo-").tempdir()?;
    let dump = folder.path().join("directory.jsonl");
    let directory = directory::Directory { users: args.users, groups: args.groups };
    fs::write(&dump, directory.dump())?;
    println!("a directory of {} users and {} groups: {}", args.users, args.groups, dump.display());

    let server = Server::start(&headstart, &nats_server, folder.path(), &dump)?;
    let mut demo = Demo {
        api: Api::new(server.address()),
        server,
        account: Account::new(args.users, args.groups),
        screen: Screen::default(),
        interrupt,
        kills: args.kill,
    };
    let played = demo.play(args);
    let interrupted = demo.interrupt.asked();
    demo.server.stop();
    match played {
        Err(error) if !interrupted => return Err(error),
        _ => {}
    }
    let (verdict, kept) = demo.account.verdict(!interrupted);
    println!("\n{verdict}");
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Demo {
    server: Server,
    api: Api,
    account: Account,
    screen: Screen,
    interrupt: Interrupt,
    kills: bool,
}

impl Demo {
    fn play(&mut self, args: &Args) -> Result<()> {
        self.wait_ready()?;
        self.screen.say(&format!("headstart runs at {}", self.server.describe()));
        self.screen.say("kill either of them with kill -9, whenever you like: nothing may be lost\n");
        self.register()?;
        for number in 1..=CHANGES_MEANWHILE {
            self.post_change(number)?;
        }
        self.screen.say(&format!(
            "{CHANGES_MEANWHILE} changes happened meanwhile; they have to wait for the prefill"
        ));
        self.watch_prefill()?;
        self.read_prefill()?;
        self.show_live(args.changes)
    }

    fn register(&mut self) -> Result<()> {
        let body = json!({
            "name": CONSUMER,
            "realms_topics": [{"realm": "udm", "topic": "users/user"}, {"realm": "udm", "topic": "groups/group"}],
            "request_prefill": true,
            "password": api::CONSUMER_PASSWORD,
        });
        self.show_curl(
            "registering a consumer that wants all users, then all groups:",
            Role::Admin,
            "-X POST",
            "/v1/subscriptions",
            Some(&body),
        );
        let answer = self.call(Role::Admin, "POST", "/v1/subscriptions", Some(&body))?;
        if !matches!(answer.status, 200 | 201) {
            bail!("the registration was answered with {}: {}", answer.status, answer.body);
        }
        Ok(())
    }

    /// Shows how far the prefill is until it is done.
    fn watch_prefill(&mut self) -> Result<()> {
        let path = format!("/v1/subscriptions/{CONSUMER}");
        self.show_curl("how far is its prefill?", Role::Consumer, "", &path, None);
        self.screen.begin("prefill", self.account.prefill_expected());
        let begun = Instant::now();
        loop {
            let subscription = self.call(Role::Consumer, "GET", &path, None)?.body;
            let prefill = &subscription["prefill"];
            let done = prefill["progress"]["done"].as_u64().unwrap_or(0);
            self.screen
                .at(done, &format!("attempt {} {}", prefill["attempt"], text(&prefill["progress"]["topic"])));
            match text(&subscription["prefill_queue_status"]) {
                "done" => break,
                "failed" => bail!("the prefill failed: {prefill}"),
                _ if begun.elapsed() > ARRIVES_WITHIN => {
                    bail!("the prefill is not done after a minute: {prefill}")
                }
                _ => {}
            }
            self.kill_sometimes(0.05)?;
            thread::sleep(Duration::from_millis(50));
        }
        self.screen.end(&format!("the prefill is done after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Reads and acknowledges one message after the other, until the changes that waited have come.
    fn read_prefill(&mut self) -> Result<()> {
        let next = format!("/v1/subscriptions/{CONSUMER}/messages/next");
        self.show_curl("the consumer reads a message:", Role::Consumer, "", &next, None);
        self.show_curl(
            "and acknowledges it, by its sequence_number:",
            Role::Consumer,
            "-X PATCH",
            &format!("/v1/subscriptions/{CONSUMER}/messages/SEQUENCE_NUMBER/status"),
            Some(&json!({"status": "ok"})),
        );
        let expected = self.account.prefill_expected();
        self.screen.begin("reading", expected);
        let begun = Instant::now();
        while self.account.live_received() < CHANGES_MEANWHILE {
            self.receive()?;
            let count = self.account.prefill_received();
            self.screen.at(count, &format!("{:.0} messages/s", per_second(count, begun)));
            self.kill_sometimes(0.002)?;
        }
        let received = self.account.prefill_received();
        self.screen.end(&format!(
            "{received} of {expected} objects read and acknowledged in {:.1} s, then the {CHANGES_MEANWHILE} changes \
             that waited",
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    fn show_live(&mut self, changes: u64) -> Result<()> {
        let example = directory::change(0);
        self.show_curl(
            "now live; a change in the directory is posted:",
            Role::Events,
            "-X POST",
            "/v1/messages",
            Some(&example),
        );
        for number in (1..=changes).map(|number| number + CHANGES_MEANWHILE) {
            let begun = Instant::now();
            self.post_change(number)?;
            self.kill_sometimes(0.2)?;
            while self.account.live_received() < number {
                self.receive()?;
            }
            self.screen.say(&format!(
                "  change {number} arrived after {:.1} ms",
                begun.elapsed().as_secs_f64() * 1e3
            ));
            thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    fn post_change(&mut self, number: u64) -> Result<()> {
        let failures = self.api.failures;
        let answer = self.call(Role::Events, "POST", "/v1/messages", Some(&directory::change(number)))?;
        if answer.status != 202 {
            bail!("a change was answered with {}: {}", answer.status, answer.body);
        }
        self.account.posted(number, self.api.failures > failures);
        Ok(())
    }

    /// Reads the next message and acknowledges it.
    fn receive(&mut self) -> Result<()> {
        let begun = Instant::now();
        let path = format!("/v1/subscriptions/{CONSUMER}/messages");
        let message = loop {
            let answer = self.call(Role::Consumer, "GET", &format!("{path}/next?timeout=5"), None)?;
            match answer.status {
                200 if answer.body.is_null() => {}
                200 => break answer.body,
                status => bail!("reading was answered with {status}: {}", answer.body),
            }
            if begun.elapsed() > ARRIVES_WITHIN {
                bail!("no message for a minute: {}", self.account.verdict(true).0);
            }
        };
        let sequence = message["sequence_number"].as_u64().context("a message without sequence_number")?;
        self.account.received(sequence, &Received::of(&message));
        let acknowledged = self.call(
            Role::Consumer,
            "PATCH",
            &format!("{path}/{sequence}/status"),
            Some(&json!({"status": "ok"})),
        )?;
        // 404: it was acknowledged before, and a crash swallowed the answer.
        if !matches!(acknowledged.status, 200 | 404) {
            bail!("an acknowledgement was answered with {}: {}", acknowledged.status, acknowledged.body);
        }
        Ok(())
    }

    /// One request, sent again as long as headstart or its nats-server is away; headstart is started again if it died.
    fn call(&mut self, role: Role, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let begun = Instant::now();
        let mut said = false;
        loop {
            self.interrupt.check()?;
            match self.api.call(role, method, path, body) {
                Ok(answer) if answer.status < 500 => return Ok(answer),
                _ if begun.elapsed() > ARRIVES_WITHIN => bail!("no answer to {method} {path} for a minute"),
                Ok(answer) if !said => {
                    self.screen.say(&format!("  !! {method} {path}: {}; trying again", answer.status))
                }
                Err(error) if !said => {
                    self.screen.say(&format!("  !! {method} {path}: {error:#}; trying again"))
                }
                _ => {}
            }
            said = true;
            self.api.failures += 1;
            self.revive()?;
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn revive(&mut self) -> Result<()> {
        if let Some(how) = self.server.died()? {
            self.screen.say(&format!("  !! headstart died ({how}): starting it again on the same data"));
            self.server.start_again()?;
            self.wait_ready()?;
            self.screen.say(&format!("  !! it is back: {}", self.server.describe()));
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !self.api.ready() {
            self.interrupt.check()?;
            if let Some(how) = self.server.died()? {
                bail!("headstart ended ({how}) before it was ready:\n{}", self.server.log_tail());
            }
            if begun.elapsed() > ARRIVES_WITHIN {
                bail!("headstart is not ready after a minute:\n{}", self.server.log_tail());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// With `--kill`: kills headstart or its nats-server, with this probability.
    fn kill_sometimes(&mut self, probability: f64) -> Result<()> {
        if self.kills && self.server.dice() < probability {
            let killed = self.server.kill_one()?;
            self.screen.say(&format!("  !! kill -9 {killed}"));
        }
        Ok(())
    }

    /// Shows how to do the same by hand.
    fn show_curl(&self, why: &str, role: Role, method: &str, path: &str, body: Option<&Value>) {
        let mut line = format!("{why}\n  curl -u {}", role.credentials());
        if !method.is_empty() {
            write!(line, " {method}").ok();
        }
        write!(line, " '{}{path}'", self.server.address()).ok();
        if let Some(body) = body {
            write!(line, " \\\n    -H 'Content-Type: application/json' -d '{body}'").ok();
        }
        self.screen.say(&line);
    }
}

fn per_second(count: u64, begun: Instant) -> f64 {
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let count = count as f64;
    count / seconds.max(0.001)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
