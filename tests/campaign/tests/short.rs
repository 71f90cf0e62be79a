//! A short run with a fixed seed, as part of the tests; the long ones are `cargo xtask campaign`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use campaign::{
    plan::Profile,
    run::{self, Settings},
};

/// Changes and faults for this long; starting and draining come on top.
const LENGTH: Duration = Duration::from_secs(70);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program under test: cargo builds it for the tests of the workspace, but not for those of this package alone.
fn headstart() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().and_then(Path::parent).unwrap().join("headstart");
    if !binary.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let built = cargo.args(["build", "--package", "headstart"]).current_dir(root()).status();
        assert!(built.is_ok_and(|status| status.success()), "headstart can't be built");
    }
    binary
}

/// The nats-server of the tests: where `cargo xtask tools` puts it, unless the environment says otherwise.
fn nats_server() -> PathBuf {
    match std::env::var_os("HEADSTART_NATS_SERVER") {
        Some(path) => path.into(),
        None => {
            let tools = root().join("target/tools/nats-server");
            if tools.exists() { tools } else { "nats-server".into() }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_promise_is_broken_when_everything_crashes() {
    let seed = std::env::var("HEADSTART_CAMPAIGN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("campaign-{}-{seed}", std::process::id()));
    let settings = Settings {
        plan: None,
        seed,
        profile: Profile::General,
        length: LENGTH,
        headstart: headstart(),
        nats_server: nats_server(),
        folder: folder.clone(),
        stop_at_violation: false,
    };
    let report = run::run(&settings, std::future::pending()).await.unwrap();
    println!("seed {seed}: {}", report.tally);
    let violations: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert!(
        violations.is_empty(),
        "seed {seed}, history in {}:\n{}",
        folder.display(),
        violations.join("\n")
    );
    // A run in which nothing happened proves nothing.
    println!("{}", report.coverage);
    assert!(report.tally.faults > 20 && report.vacuous.is_empty(), "{}: {:?}", report.tally, report.vacuous);
    std::fs::remove_dir_all(folder).ok();
}
