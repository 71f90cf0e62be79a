//! `cargo xtask campaign`: builds and runs the crash campaign, on the product or on a mutant: the product with one
//! rule left out, in which it has to find violations.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{commands, interrupt::Interrupt, steps::step, tools, workspace};

/// Arguments of `cargo xtask campaign`.
#[derive(clap::Args)]
pub struct Args {
    /// Seed of the plan: changes, actions of consumers, faults
    #[arg(long)]
    seed: Option<u64>,
    /// How long changes and faults go on; draining comes after it
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What the plan aims at: general, zombies, recreate, dispatchers or rounds
    #[arg(long)]
    profile: Option<String>,
    /// Run this program instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Leave out a rule (tests/campaign/mutants/<NAME>.patch) and expect violations; the patch names the profile and
    /// the seed that are used when none are given
    #[arg(long, value_name = "NAME", conflicts_with = "binary")]
    mutant: Option<String>,
    /// Print the plan and do nothing
    #[arg(long)]
    plan: bool,
    /// Carry out a plan that was kept (plan.json), perhaps with some of it left out by hand
    #[arg(long, value_name = "FILE")]
    plan_file: Option<PathBuf>,
    /// Run this plan with ever fewer faults, as long as it finds the same; the shortest one is written beside it
    #[arg(long, value_name = "FILE")]
    shorten: Option<PathBuf>,
    /// Check the history that a run left behind
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// Runs it. A mutant in which nothing is found is a failure.
///
/// # Errors
/// Something can't be built or started.
pub fn run(args: &Args) -> Result<ExitCode> {
    // Ctrl-C goes to the campaign as well; it ends what it has started, and then we end.
    let interrupt = Interrupt::listen()?;
    let nats_server = tools::nats_server()?;
    step("building the campaign", || {
        commands::run(commands::cargo().args(["build", "--quiet", "--package=campaign"]))
    })?;
    let mutant = args.mutant.as_deref().map(Mutant::read).transpose()?;
    let binary = match (&mutant, &args.binary) {
        _ if args.plan || args.check.is_some() => PathBuf::new(),
        (Some(mutant), _) => step(&format!("building the mutant {}", mutant.name), || mutant.build())?,
        (None, Some(binary)) => binary.clone(),
        (None, None) => step("building headstart", || {
            commands::run(commands::cargo().args(["build", "--quiet", "--package=headstart"]))?;
            Ok(workspace::target().join("debug/headstart"))
        })?,
    };
    interrupt.check()?;

    let mut campaign = Command::new(workspace::target().join("debug/campaign"));
    campaign.arg("--minutes").arg(args.minutes.to_string());
    campaign.arg("--binary").arg(binary).arg("--nats-server").arg(nats_server);
    campaign.arg("--folder").arg(workspace::target().join("campaign"));
    campaign.arg("--commit").arg(commit(mutant.as_ref()));
    let found_by = |word: &str| mutant.as_ref().and_then(|mutant| mutant.found_by(word));
    let seed = args.seed.map(|seed| seed.to_string()).or_else(|| found_by("--seed"));
    let profile = args.profile.clone().or_else(|| found_by("--profile"));
    for (option, value) in [("--seed", seed), ("--profile", profile)] {
        campaign.args(value.iter().flat_map(|value| [option, value]));
    }
    campaign.args(args.plan.then_some("--plan"));
    campaign.args(args.plan_file.iter().flat_map(|file| [Path::new("--plan-file"), file]));
    campaign.args(args.shorten.iter().flat_map(|file| [Path::new("--shorten"), file]));
    campaign.args(args.check.iter().flat_map(|file| [Path::new("--check"), file]));
    campaign.args(mutant.is_some().then_some("--stop-at-violation"));
    let status = campaign.status().context("could not start the campaign")?;
    match (mutant, status.code()) {
        (Some(mutant), Some(1)) => {
            println!("the mutant {} is found", mutant.name);
            Ok(ExitCode::SUCCESS)
        }
        (Some(mutant), Some(0 | 3)) => {
            bail!("the mutant {} was not found; its rule: {}", mutant.name, mutant.rule())
        }
        (_, code) => {
            Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}

/// What is tested, as git names it.
fn commit(mutant: Option<&Mutant>) -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(workspace::root());
    let commit = commands::output(&mut git).unwrap_or_else(|_| "unknown".to_owned());
    let left_out = mutant.map(|mutant| format!(" without {}", mutant.name)).unwrap_or_default();
    format!("{}{left_out}", commit.trim())
}

/// A rule that is left out: a patch whose head says which one.
struct Mutant {
    name: String,
    file: PathBuf,
    text: String,
}

impl Mutant {
    fn read(name: &str) -> Result<Self> {
        let folder = workspace::root().join("tests/campaign/mutants");
        let file = folder.join(format!("{name}.patch"));
        let text =
            fs::read_to_string(&file).with_context(|| format!("no such mutant: {}", file.display()))?;
        Ok(Self { name: name.to_owned(), file, text })
    }

    fn rule(&self) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix("Rule: ")).unwrap_or("not told")
    }

    /// The value of an option in the line "Found by: --profile … --seed …".
    fn found_by(&self, option: &str) -> Option<String> {
        let line = self.text.lines().find_map(|line| line.strip_prefix("Found by: "))?;
        let mut words = line.split_whitespace().skip_while(|word| *word != option);
        words.nth(1).map(str::to_owned)
    }

    /// Copies the sources, leaves out the rule, builds. All mutants share the place and what is built there.
    fn build(&self) -> Result<PathBuf> {
        let folder = workspace::target().join("mutants");
        let sources = folder.join("sources");
        let _lock = commands::lock_file(&folder.join("lock"))?;
        copy_sources(&sources)?;
        let mut patch = Command::new("git");
        // Without this, git would look for the repository around the folder, and skip what is ignored there.
        patch.env("GIT_CEILING_DIRECTORIES", &folder).current_dir(&sources);
        commands::output(patch.args(["apply", "--whitespace=nowarn"]).arg(&self.file))
            .with_context(|| format!("{} does not fit the sources any more", self.file.display()))?;
        let mut cargo = commands::cargo();
        cargo.args(["build", "--quiet", "--package=headstart"]).current_dir(&sources);
        commands::run(cargo.env("CARGO_TARGET_DIR", folder.join("target")))?;
        let built = folder.join("target/debug/headstart");
        let own = folder.join(format!("headstart-{}", self.name));
        fs::copy(&built, &own).with_context(|| format!("could not copy {}", built.display()))?;
        Ok(own)
    }
}

/// Copies all tracked files, and only those that differ, so that cargo builds only what has changed.
fn copy_sources(to: &Path) -> Result<()> {
    let files = workspace::files(&["--cached"])?;
    ensure!(!files.is_empty(), "git names no files");
    for file in &files {
        let (from, to) = (workspace::root().join(file), to.join(file));
        // Deleted but not yet committed, or a link.
        if !from.is_file() {
            continue;
        }
        let content = fs::read(&from)?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        fs::write(&to, content).with_context(|| format!("could not write {}", to.display()))?;
    }
    Ok(())
}
