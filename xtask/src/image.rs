//! `cargo xtask image`: the product's image and those of its tests, as OCI archives in `target/image`, built with
//! buildah, without a daemon.

use std::{
    ffi::OsStr,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::{NamedTempFile, TempDir};

use crate::{cluster, commands, tools, workspace};

/// The certificates of public authorities where Debian and its relatives keep them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An image that was built: its tag, and the OCI archive that holds it.
pub struct Image {
    pub tag: String,
    pub archive: PathBuf,
}

/// Builds all images and prints where they are.
///
/// # Errors
/// A build fails.
pub fn run() -> Result<()> {
    cluster::install_buildah()?;
    for image in build_all()? {
        println!("{} {}", image.tag, image.archive.display());
    }
    println!("components: {}", bill_of_materials()?.display());
    Ok(())
}

/// Writes the list of all components that the binary is made of, in the format CycloneDX (ECMA-424), and says where.
///
/// # Errors
/// The tool is not available or fails.
pub fn bill_of_materials() -> Result<PathBuf> {
    const NAME: &str = "headstart.cdx";
    let tool = tools::cargo_cyclonedx()?;
    let list = workspace::target().join("image").join(NAME).with_extension("cdx.json");
    let mut cyclonedx = Command::new(tool);
    cyclonedx.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5"]);
    cyclonedx.args(["--describe", "binaries", "--target", &host()?, "--manifest-path"]);
    commands::output(cyclonedx.arg(workspace::root().join("headstart/Cargo.toml")))?;
    // It writes one beside each Cargo.toml that has a binary, whichever was asked for.
    for folder in ["headstart", "bench", "xtask", "tests/campaign", "tests/stand-in-udm"] {
        for entry in fs::read_dir(workspace::root().join(folder))? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".cdx.json") {
                match folder {
                    "headstart" => fs::rename(&path, &list)?,
                    _ => fs::remove_file(&path)?,
                }
            }
        }
    }
    Ok(list)
}

/// Makes the same images of what `cargo test` has built, with the libraries that it is linked to: for tests, which need
/// no second build of everything, and with the checks of a debug build.
///
/// # Errors
/// A program is not built, or an image can't be made.
pub fn build_for_tests() -> Result<Vec<Image>> {
    let target = workspace::target().join("image");
    fs::create_dir_all(&target)?;
    let _lock = commands::lock_file(&target.join("lock"))?;
    let stripped = temporary_folder()?;
    let program = |name: &str| -> Result<PathBuf> {
        let built = workspace::target().join("debug").join(name);
        let stripped = stripped.path().join(name);
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").arg(&stripped).arg(&built);
        commands::output(&mut strip).with_context(|| format!("{} is not built", built.display()))?;
        Ok(stripped)
    };
    let linked = |program: &Path| -> Result<Vec<PathBuf>> {
        let told = commands::output(Command::new("ldd").arg(program))?;
        let libraries: Vec<PathBuf> =
            told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
        if libraries.is_empty() {
            bail!("ldd names no library of {}: {told}", program.display());
        }
        Ok(libraries)
    };
    let image_of = |name: &'static str, more: Option<(PathBuf, &'static str)>| -> Result<Image> {
        let program = program(name)?;
        let libraries = linked(&program)?;
        let places: Vec<String> =
            libraries.iter().map(|library| library.display().to_string()[1..].to_owned()).collect();
        let libraries = libraries.into_iter().zip(places.iter().map(String::as_str));
        let files: Vec<_> = [(program, name)].into_iter().chain(libraries).chain(more).collect();
        build(name, &files)
    };
    Ok(vec![
        image_of("headstart", authorities())?,
        image_of("stand-in-udm", None)?,
        build("nats", &[(tools::nats_server()?, "nats-server")])?,
    ])
}

/// The certificates of public authorities, if this system has them, and where they are in an image.
fn authorities() -> Option<(PathBuf, &'static str)> {
    let authorities = Path::new(AUTHORITIES);
    if !authorities.exists() {
        println!("no {AUTHORITIES}: the image trusts no public authority");
        return None;
    }
    Some((authorities.to_owned(), "etc/ssl/certs/ca-certificates.crt"))
}

/// Builds what has changed of the images: `headstart`, and for the tests `stand-in-udm` and `nats`.
///
/// # Errors
/// A build fails.
pub fn build_all() -> Result<Vec<Image>> {
    let target = workspace::target().join("image");
    fs::create_dir_all(&target)?;
    let _lock = commands::lock_file(&target.join("lock"))?;
    let built = build_static(&host()?, &["headstart", "stand-in-udm"], |_| ())?;
    Ok(vec![
        build("headstart", &files_of_headstart(built.join("headstart")))?,
        build("stand-in-udm", &[(built.join("stand-in-udm"), "stand-in-udm")])?,
        build("nats", &[(tools::nats_server()?, "nats-server")])?,
    ])
}

/// Builds these packages for a platform, statically linked and optimised, and says in which folder their programs are.
///
/// # Errors
/// The build fails.
pub fn build_static(platform: &str, packages: &[&str], prepare: impl Fn(&mut Command)) -> Result<PathBuf> {
    // A target folder of its own, since other flags would make cargo rebuild the other one each time.
    let target = workspace::target().join("image");
    let mut cargo = commands::cargo();
    cargo.args(["build", "--quiet", "--release"]);
    cargo.args(packages.iter().map(|package| format!("--package={package}")));
    cargo.args(["--target", platform, "--target-dir"]).arg(&target);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    prepare(&mut cargo);
    commands::run(&mut cargo)?;
    Ok(target.join(platform).join("release"))
}

/// The files of the product's image, of which this is the program.
pub fn files_of_headstart(program: PathBuf) -> Vec<(PathBuf, &'static str)> {
    [(program, "headstart")].into_iter().chain(authorities()).collect()
}

/// The platform that the compiler builds for by default.
///
/// # Errors
/// It is not Linux with glibc.
pub fn host() -> Result<String> {
    let told = commands::output(Command::new("rustc").arg("--version").arg("--verbose"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    if !host.ends_with("-linux-gnu") {
        bail!("the image is a Linux binary, statically linked to glibc; this compiler builds for {host}");
    }
    Ok(host.to_owned())
}

/// Builds `localhost/<name>:dev` of these files (where each is, and where it goes), unless it was built of the same
/// before.
fn build(name: &str, files: &[(PathBuf, &str)]) -> Result<Image> {
    let target = workspace::target().join("image");
    let containerfile = workspace::root().join(format!("xtask/images/{name}.Containerfile"));
    let image = Image { tag: format!("localhost/{name}:dev"), archive: target.join(format!("{name}.tar")) };
    let mut hash = DefaultHasher::new();
    for path in files.iter().map(|(path, _)| path).chain([&containerfile]) {
        fs::read(path).with_context(|| format!("no {}", path.display()))?.hash(&mut hash);
    }
    let built_of = format!("{:016x}", hash.finish());
    let record = target.join(format!("{name}.built-of"));
    if image.archive.exists() && fs::read_to_string(&record).is_ok_and(|recorded| recorded == built_of) {
        return Ok(image);
    }
    let context = context(files)?;
    let archive = build_archive(&image.tag, &containerfile, context.path())?;
    archive.persist(&image.archive)?;
    fs::write(record, built_of)?;
    Ok(image)
}

/// A folder with these files as a Containerfile expects them, which is removed when it is dropped.
///
/// # Errors
/// A file can't be copied.
pub fn context<P: AsRef<Path>>(files: &[(PathBuf, P)]) -> Result<TempDir> {
    let context = temporary_folder()?;
    for (path, place) in files {
        let place = context.path().join("root").join(place);
        fs::create_dir_all(place.parent().unwrap_or(context.path()))?;
        fs::copy(path, place)?;
    }
    Ok(context)
}

/// Builds an image for this machine, see [`build_archive_for`].
///
/// # Errors
/// buildah fails.
pub fn build_archive(tag: &str, containerfile: &Path, context: &Path) -> Result<NamedTempFile> {
    build_archive_for(None, tag, containerfile, context)
}

/// Builds an image, without an architecture for this machine, and gives it as an OCI archive, which is removed when it
/// is dropped. buildah works in a store of its own that goes with it: our images are `FROM scratch`, so there are no
/// layers to keep.
///
/// # Errors
/// buildah fails.
pub fn build_archive_for(
    architecture: Option<&str>,
    tag: &str,
    containerfile: &Path,
    context: &Path,
) -> Result<NamedTempFile> {
    let store = temporary_folder()?;
    let archive = NamedTempFile::new_in(workspace::target().join("image"))?;
    let buildah = || {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(store.path().join("root")).arg("--runroot").arg(store.path().join("run"));
        buildah.args(["--storage-driver", "vfs"]);
        buildah
    };
    let policy = workspace::root().join("tests/cluster/config/buildah-policy.json");
    // The same files give the same image, whenever it is built.
    let mut build = buildah();
    build
        .args(["build", "--quiet", "--isolation", "chroot", "--timestamp", "0"])
        .args(architecture.iter().flat_map(|name| ["--arch", name]))
        .arg("--signature-policy")
        .arg(&policy);
    build.args([
        OsStr::new("--tag"),
        tag.as_ref(),
        "--file".as_ref(),
        containerfile.as_ref(),
        context.as_ref(),
    ]);
    commands::output(&mut build)?;
    let mut push = buildah();
    push.args(["push", "--quiet", "--signature-policy"]).arg(&policy).arg(tag);
    commands::output(push.arg(format!("oci-archive:{}:{tag}", archive.path().display())))?;
    Ok(archive)
}

fn temporary_folder() -> Result<TempDir> {
    let target = workspace::target().join("image");
    fs::create_dir_all(&target)?;
    Ok(tempfile::Builder::new().prefix(".unfinished-").tempdir_in(target)?)
}
