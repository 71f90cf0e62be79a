//! `cargo xtask release`: what a release consists of, in `target/release-artifacts/VERSION`. It pushes nothing.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{cluster, commands, image, steps::step, tools, workspace};

mod faults;

/// The version of the workspace, which this crate inherits.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Arguments of `cargo xtask release`.
#[derive(clap::Args)]
pub struct Args {
    /// Only for this target of Rust; may be given several times. Default: 64-bit x86 and ARM
    #[arg(long = "target")]
    targets: Vec<String>,
    /// Sign the checksums with this private key (PEM; made by `openssl genpkey`)
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
    /// Only check, and print the steps
    #[arg(long)]
    dry_run: bool,
}

/// A platform that the release is built for.
struct Target {
    /// The name that Rust uses.
    triple: String,
    is_host: bool,
}

impl Target {
    const DEFAULT: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

    /// The name that the kernel uses.
    fn machine(&self) -> &str {
        self.triple.split('-').next().unwrap_or_default()
    }

    /// The name that container images use.
    fn architecture(&self) -> &str {
        match self.machine() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    fn file(&self) -> String {
        format!("headstart-{VERSION}-linux-{}", self.architecture())
    }

    /// The C compiler, which also links.
    fn compiler(&self) -> String {
        if self.is_host { "cc".to_owned() } else { format!("{}-linux-gnu-gcc", self.machine()) }
    }

    /// Why it can't be built here, if it can't.
    fn obstacle(&self) -> Result<Option<String>> {
        if !self.triple.ends_with("-linux-gnu") {
            return Ok(Some("only targets that end with -linux-gnu are supported".to_owned()));
        }
        let mut rustc = Command::new("rustc");
        let library = commands::output(rustc.args(["--print", "target-libdir", "--target", &self.triple]))?;
        if !Path::new(library.trim()).exists() {
            return Ok(Some(format!("Rust's library for it is missing: rustup target add {}", self.triple)));
        }
        let compiler = self.compiler();
        Ok(commands::find(&compiler).is_none().then(|| format!("{compiler} is missing")))
    }
}

struct Release {
    targets: Vec<Target>,
    key: Option<PathBuf>,
    /// Where everything is written until it is complete.
    folder: PathBuf,
}

type Step = (&'static str, fn(&Release) -> Result<()>);

/// Checks that the workspace is ready, and makes the release.
///
/// # Errors
/// The workspace is not ready, or a step fails.
pub fn run(args: Args) -> Result<()> {
    let host = image::host()?;
    let named =
        if args.targets.is_empty() { Target::DEFAULT.map(str::to_owned).to_vec() } else { args.targets };
    let (mut targets, mut skipped) = (Vec::new(), Vec::new());
    for triple in named {
        let target = Target { is_host: triple == host, triple };
        match target.obstacle()? {
            None => targets.push(target),
            Some(obstacle) => skipped.push(format!("!! SKIPPED {}: {obstacle}", target.triple)),
        }
    }
    let all = workspace::target().join("release-artifacts");
    let steps: [Step; 6] = [
        ("binaries", binaries),
        ("images", images),
        ("chart", chart),
        ("components", components),
        ("checksums", checksums),
        ("signature", signature),
    ];

    let faults = faults::all(VERSION)?;
    faults.iter().for_each(|fault| println!("FAULT {fault}"));
    if args.dry_run {
        println!("the release {VERSION}, in {}:", all.join(VERSION).display());
        targets.iter().for_each(|target| println!("  {0}, {0}.oci.tar", target.file()));
        println!("  headstart-{VERSION}.tgz (the chart), headstart-{VERSION}.cdx.json, SHA256SUMS");
        println!("  {}", args.sign_with.as_ref().map_or("no signature", |_| "SHA256SUMS.sig"));
        println!("steps: {}", steps.map(|(name, _)| name).join(", "));
    }
    skipped.iter().for_each(|line| println!("{line}"));
    if !faults.is_empty() {
        bail!("the workspace is not ready to be released as {VERSION}");
    }
    if targets.is_empty() {
        bail!("none of the targets can be built here");
    }
    if args.dry_run {
        return Ok(());
    }

    cluster::install_buildah()?;
    fs::create_dir_all(&all)?;
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&all)?;
    let release = Release { targets, key: args.sign_with, folder: unfinished.path().to_owned() };
    for (name, make) in steps {
        step(name, || make(&release))?;
    }
    let finished = all.join(VERSION);
    if finished.exists() {
        fs::remove_dir_all(&finished)?;
    }
    fs::rename(unfinished.keep(), &finished)?;
    println!("{}", finished.display());
    skipped.iter().for_each(|line| println!("{line}"));
    println!(
        "Next: git tag --annotate v{VERSION} --message 'Headstart {VERSION}' && git push origin v{VERSION}"
    );
    Ok(())
}

/// One statically linked program for each target; the one for this machine has to state its version.
fn binaries(release: &Release) -> Result<()> {
    for target in &release.targets {
        let built = image::build_static(&target.triple, &["headstart"], |cargo| {
            if !target.is_host {
                let name = target.triple.replace('-', "_");
                cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), target.compiler());
                cargo.env(format!("CC_{name}"), target.compiler());
            }
        })?;
        let file = release.folder.join(target.file());
        fs::copy(built.join("headstart"), &file)?;
        if target.is_host {
            let printed = commands::output(Command::new(&file).arg("--version"))?;
            if printed.trim() != format!("headstart {VERSION}") {
                bail!("{} is version {}", file.display(), printed.trim());
            }
        }
    }
    Ok(())
}

fn images(release: &Release) -> Result<()> {
    let containerfile = workspace::root().join("xtask/images/headstart.Containerfile");
    for target in &release.targets {
        let program = release.folder.join(target.file());
        let context = image::context(&image::files_of_headstart(program))?;
        let tag = format!("headstart:{VERSION}");
        let archive =
            image::build_archive_for(Some(target.architecture()), &tag, &containerfile, context.path())?;
        // Not copied, as it would keep the permissions of a temporary file.
        let mut file = File::create(release.folder.join(format!("{}.oci.tar", target.file())))?;
        io::copy(&mut File::open(archive.path())?, &mut file)?;
    }
    Ok(())
}

fn chart(release: &Release) -> Result<()> {
    let mut helm = Command::new(tools::helm()?);
    helm.arg("package").arg(workspace::root().join("charts/headstart"));
    commands::output(helm.arg("--destination").arg(&release.folder)).map(drop)
}

fn components(release: &Release) -> Result<()> {
    let list = image::bill_of_materials()?;
    fs::copy(list, release.folder.join(format!("headstart-{VERSION}.cdx.json")))?;
    Ok(())
}

fn checksums(release: &Release) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(&release.folder)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let sums = commands::output(Command::new("sha256sum").args(names).current_dir(&release.folder))?;
    fs::write(release.folder.join("SHA256SUMS"), sums)?;
    Ok(())
}

/// Signs the checksums, and verifies the signature as its readers do.
fn signature(release: &Release) -> Result<()> {
    let Some(key) = &release.key else {
        println!("no --sign-with FILE: the release is not signed");
        return Ok(());
    };
    let key = std::path::absolute(key)?;
    let openssl = || {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(&release.folder);
        openssl
    };
    let public = tempfile::NamedTempFile::new()?;
    let mut sign = openssl();
    sign.args(["dgst", "-sha256", "-sign"]).arg(&key).args(["-out", "SHA256SUMS.sig", "SHA256SUMS"]);
    commands::output(&mut sign).context("the checksums could not be signed")?;
    commands::output(openssl().args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(public.path()))?;
    let mut verify = openssl();
    verify.args(["dgst", "-sha256", "-verify"]).arg(public.path());
    commands::output(verify.args(["-signature", "SHA256SUMS.sig", "SHA256SUMS"])).map(drop)
}
