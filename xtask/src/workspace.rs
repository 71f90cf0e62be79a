//! Where things are: the workspace's root and its target folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::commands;

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The folder for everything that is built; git ignores it.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None => root().join("target"),
    }
}

/// The files that `git ls-files` names with these arguments, without those that git ignores.
///
/// # Errors
/// git fails.
pub fn files(arguments: &[&str]) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--exclude-standard"]).args(arguments).current_dir(root());
    Ok(commands::output(&mut git)?.lines().map(str::to_owned).collect())
}
