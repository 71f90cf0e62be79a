//! `cargo xtask test`: gets what the tests need and runs all of them: those of the workspace against a real
//! nats-server, a few of them against the oldest one that is accepted, then the end-to-end tests named `cluster_*` in a
//! real Kubernetes.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    cluster::{self, Cluster, Lifetime},
    commands, image,
    interrupt::Interrupt,
    steps::step,
    tools, workspace,
};

mod report;
mod runner;

use report::Report;

/// The names of the end-to-end tests' targets that need a Kubernetes begin with this.
const NEEDS_CLUSTER: &str = "cluster_";

/// Tests that run at once in the cluster: they mostly wait for it.
const CLUSTER_TESTS_AT_ONCE: &str = "8";

/// The targets of tests that run against the oldest nats-server, too: within a minute they write and read all that NATS
/// holds, in each way that the product does.
const ON_OLDEST_NATS: [&str; 5] = ["queue", "direct", "reading", "log_and_tasks", "dispatching"];

/// The images of [`image::build_for_tests`], as the tests know them.
const IMAGES: [(&str, &str); 3] = [
    ("HEADSTART_IMAGE", "headstart:dev"),
    ("HEADSTART_NATS_IMAGE", "nats:dev"),
    ("HEADSTART_UDM_IMAGE", "stand-in-udm:dev"),
];

/// The environment variables that `cargo xtask test` reads.
pub const ENVIRONMENT: &str = "Environment:
  KEEP=1                         keep the cluster; the next run uses it
  HEADSTART_KUBERNETES           the version that our own cluster emulates, such as 1.31
  HEADSTART_TEST_KUBECONFIG      use this cluster instead of one of our own
  HEADSTART_TEST_IMAGE_REGISTRY  from where it pulls headstart:dev, nats:dev and stand-in-udm:dev, to which you
                                 have pushed the archives of `cargo xtask image`";

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the tests that need a Kubernetes
    #[arg(long)]
    without_cluster: bool,
    /// Run only the tests that need a Kubernetes
    #[arg(long, conflicts_with = "without_cluster")]
    only_cluster: bool,
    /// Run only the tests whose names contain one of these
    filters: Vec<String>,
}

/// Runs the tests. The last lines are the test runners' own results, and their sum.
///
/// # Errors
/// The signals that interrupt it can't be handled; all else is part of the report.
pub fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let mut report = Report::default();
    if let Err(error) = run_all(args, &interrupt, &mut report) {
        report.broke_off(&error);
    }
    Ok(report.finish())
}

fn run_all(args: &Args, interrupt: &Interrupt, report: &mut Report) -> Result<()> {
    let (nats_server, helm, promtool, schemathesis) = step("tools", || {
        Ok((tools::nats_server()?, tools::helm(), tools::promtool(), tools::schemathesis()))
    })?;
    // Always the same packages, so that cargo chooses the same features and builds nothing twice.
    let cargo_test = |options: &[&str]| {
        let mut cargo = commands::cargo();
        cargo.args(["test", "--workspace"]).args(options).env("HEADSTART_NATS_SERVER", &nats_server);
        // Without one of them, the tests that need it say that it is missing.
        cargo.envs(helm.iter().map(|helm| ("HEADSTART_HELM", helm)));
        cargo.envs(promtool.iter().map(|promtool| ("HEADSTART_PROMTOOL", promtool)));
        let schemathesis = schemathesis.iter();
        cargo.envs(schemathesis.map(|schemathesis| ("HEADSTART_SCHEMATHESIS", schemathesis)));
        cargo
    };
    let own = std::env::current_exe()?.display().to_string();
    let outside = runner_option(&[&own, "test-runner"]);
    if args.only_cluster {
        // The programs of the images; otherwise cargo builds them with the tests.
        step("programs", || {
            commands::run(commands::cargo().args([
                "build",
                "--workspace",
                "--bin",
                "headstart",
                "--bin",
                "stand-in-udm",
            ]))
        })?;
    } else {
        step("tests without a cluster", || {
            let mut cargo = cargo_test(&["--no-fail-fast", "--config", &outside, "--"]);
            runner::run(cargo.args(&args.filters), interrupt, report)
        })?;
        step(&format!("tests on nats-server {}", tools::OLDEST_NATS_SERVER), || {
            let oldest = match tools::oldest_nats_server() {
                Ok(oldest) => oldest,
                Err(error) => {
                    report.failed(&format!("the oldest nats-server: {error:#}"));
                    return Ok(());
                }
            };
            let targets = ON_OLDEST_NATS.map(|target| ["--test", target]);
            let mut cargo = cargo_test(&["--no-fail-fast"]);
            cargo.args(targets.as_flattened()).env("HEADSTART_NATS_SERVER", oldest);
            runner::run(cargo.arg("--").args(&args.filters), interrupt, report)
        })?;
    }

    let clustered = if has_cluster_tests()? {
        step("building the tests for the cluster", || {
            let mut list = cargo_test(&["--test", &format!("{NEEDS_CLUSTER}*"), "--quiet", "--", "--list"]);
            Ok(report::listed(&commands::output(list.args(&args.filters))?))
        })?
    } else {
        Vec::new()
    };
    if clustered.is_empty() {
        if args.filters.is_empty() {
            bail!("no test that needs a cluster was found in tests/tests/{NEEDS_CLUSTER}*");
        }
        return Ok(());
    }
    if args.without_cluster {
        report.skipped(&clustered, "--without-cluster was given");
        return Ok(());
    }
    let in_cluster = |runner: Option<&str>, registry: &str| {
        let mut cargo = cargo_test(&["--no-fail-fast", "--test", &format!("{NEEDS_CLUSTER}*")]);
        cargo.args(runner.iter().flat_map(|runner| ["--config", runner]));
        cargo.env("RUST_TEST_THREADS", CLUSTER_TESTS_AT_ONCE);
        cargo.envs(IMAGES.map(|(variable, name)| (variable, format!("{registry}/{name}"))));
        cargo.arg("--").args(&args.filters);
        cargo
    };
    if let Some(kubeconfig) = std::env::var_os("HEADSTART_TEST_KUBECONFIG") {
        let registry = std::env::var("HEADSTART_TEST_IMAGE_REGISTRY").context(
            "HEADSTART_TEST_KUBECONFIG needs HEADSTART_TEST_IMAGE_REGISTRY: where are the images?",
        )?;
        let mut cargo = in_cluster(None, &registry);
        cargo.env("KUBECONFIG", kubeconfig);
        for (variable, program) in [("HEADSTART_KUBECTL", "kubectl"), ("HEADSTART_HELM", "helm")] {
            cargo.env(variable, commands::find(program).with_context(|| format!("no {program} in PATH"))?);
        }
        return step("tests in the given cluster", || runner::run(&mut cargo, interrupt, report));
    }
    if let Some(obstacle) = cluster::obstacle() {
        report.skipped(&clustered, &format!("NO CLUSTER CAN BE HAD HERE: {obstacle}"));
        report.failed("tests that need a cluster were skipped without --without-cluster");
        return Ok(());
    }
    step("packages", cluster::install_packages)?;
    let images = step("images", image::build_for_tests)?;
    interrupt.check()?;
    let (cluster, _held) = Cluster::for_tests()?;
    let up = Up::new(&cluster, interrupt)?;
    step("giving the images to the cluster", || {
        images.iter().try_for_each(|image| cluster.import(&image.archive))
    })?;
    let inside = runner_option(&[&own, "cluster", "--id", cluster.id(), "exec", "--"]);
    step("tests in the cluster", || {
        runner::run(&mut in_cluster(Some(&inside), "localhost"), interrupt, report)
    })?;
    up.down()
}

/// A cluster for the time of the tests: taken down when it is dropped, if it was not there before.
struct Up<'a> {
    cluster: &'a Cluster,
    lifeline: Option<cluster::Lifeline>,
}

impl<'a> Up<'a> {
    fn new(cluster: &'a Cluster, interrupt: &Interrupt) -> Result<Self> {
        let binaries = step("programs of the cluster", cluster::build)?;
        interrupt.check()?;
        let kept = std::env::var("KEEP").is_ok_and(|keep| keep == "1");
        let lifetime = if kept { Lifetime::UntilDown } else { Lifetime::AsThisProcess };
        let lifeline = step("cluster up", || cluster.up(&binaries, lifetime))?;
        Ok(Self { cluster, lifeline })
    }

    fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.lifeline.is_none() {
            println!("the cluster stays: cargo xtask cluster --id {0} down ends it", self.cluster.id());
            return Ok(());
        }
        let ended = step("cluster down", || self.cluster.down());
        self.lifeline = None;
        ended
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        if self.lifeline.is_some()
            && let Err(error) = self.end()
        {
            eprintln!("error: {error:#}");
        }
    }
}

/// Whether the folder of the end-to-end tests has any that need a cluster: cargo refuses a pattern that fits none.
fn has_cluster_tests() -> Result<bool> {
    let folder = workspace::root().join("tests/tests");
    let entries = fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    for entry in entries {
        if entry?.file_name().to_string_lossy().starts_with(NEEDS_CLUSTER) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The option that makes cargo start each test executable with a command before it.
fn runner_option(command: &[&str]) -> String {
    format!("target.'cfg(all())'.runner = {command:?}")
}

/// Runs a test executable, unless it needs a cluster: what cargo calls for each of them outside of the cluster.
#[derive(clap::Args)]
pub struct RunnerArgs {
    executable: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// See [`RunnerArgs`].
///
/// # Errors
/// The executable can't be started.
pub fn run_unless_cluster(RunnerArgs { executable, arguments }: &RunnerArgs) -> Result<()> {
    if needs_cluster(executable) {
        return Ok(());
    }
    Err(Command::new(executable).args(arguments).exec())
        .with_context(|| format!("could not start {}", executable.display()))
}

fn needs_cluster(executable: &Path) -> bool {
    executable.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NEEDS_CLUSTER))
}
