//! The Debian packages that the cluster needs on the machine: installed when a program of theirs is missing.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::commands;

/// A package, and a program or file that shows that it is there.
const NEEDED: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("iproute2", "ip"),
    ("openssl", "openssl"),
    ("buildah", "buildah"),
];

/// The packages of [`NEEDED`] that are not installed.
pub fn missing() -> Vec<&'static str> {
    let there = |proof: &str| {
        Path::new(proof).is_absolute() && Path::new(proof).exists() || commands::find(proof).is_some()
    };
    NEEDED.iter().filter(|(_, proof)| !there(proof)).map(|(package, _)| *package).collect()
}

/// Installs what is missing with apt-get.
///
/// # Errors
/// Something is missing and there is no apt-get, or it failed.
pub fn install_missing() -> Result<()> {
    install(missing())
}

/// Installs buildah alone, with which images are built, if it is missing.
///
/// # Errors
/// It is missing and there is no apt-get, or that failed.
pub fn install_buildah() -> Result<()> {
    install(missing().into_iter().filter(|package| *package == "buildah").collect())
}

fn install(missing: Vec<&str>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let Some(apt) = commands::find("apt-get") else {
        bail!("these programs are needed and there is no apt-get to install them: {}", missing.join(" "));
    };
    println!("installing {}", missing.join(" "));
    commands::output(Command::new(&apt).arg("update"))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    commands::output(
        Command::new(&apt).env("DEBIAN_FRONTEND", "noninteractive").args(install).args(missing),
    )?;
    Ok(())
}
