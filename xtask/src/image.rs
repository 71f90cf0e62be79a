//! Container images, built with buildah, without a daemon.

use std::{path::Path, process::Command};

use anyhow::Result;
use tempfile::NamedTempFile;

use crate::{commands, workspace};

/// Builds an image and gives it as an OCI archive, which is removed when it is dropped. buildah works in a store of
/// its own that goes with it: our images are `FROM scratch`, so there are no layers to keep.
///
/// # Errors
/// buildah fails.
pub fn build_archive(tag: &str, containerfile: &Path, context: &Path) -> Result<NamedTempFile> {
    let store = tempfile::tempdir()?;
    let archive = NamedTempFile::new()?;
    let buildah = || {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(store.path().join("root")).arg("--runroot").arg(store.path().join("run"));
        buildah.args(["--storage-driver", "vfs"]);
        buildah
    };
    let policy = workspace::root().join("tests/cluster/config/buildah-policy.json");
    commands::output(
        buildah()
            .args(["build", "--quiet", "--isolation", "chroot", "--timestamp", "0", "--signature-policy"])
            .args([&policy, Path::new("--tag"), Path::new(tag), Path::new("--file"), containerfile, context]),
    )?;
    let target = format!("oci-archive:{}:{tag}", archive.path().display());
    commands::output(
        buildah().args(["push", "--quiet", "--signature-policy"]).arg(&policy).args([tag, &target]),
    )?;
    Ok(archive)
}
