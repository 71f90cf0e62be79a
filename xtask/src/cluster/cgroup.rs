//! The cgroup under which the kubelet of one cluster puts its pods: so that two clusters, or a cluster and what
//! else runs on the machine, do not share one `kubepods`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long the kernel may take to let go of the processes that were killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// Makes the cgroup in each hierarchy.
///
/// # Errors
/// The cgroup file systems are read-only, or their controllers can't be handed down.
pub fn create(name: &str) -> Result<()> {
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        bail!("no cgroup file system is mounted");
    }
    for Hierarchy { mount, v2 } in hierarchies {
        let folder = mount.join(name);
        if v2 {
            hand_down(&mount)?;
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("could not make the cgroup {}", folder.display()))?;
        if v2 {
            hand_down(&folder)?;
        }
        // A new cpuset (v1) is empty, and nothing may run in an empty one.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !v2 && folder.join(file).exists() {
                fs::write(folder.join(file), fs::read(mount.join(file))?)?;
            }
        }
    }
    Ok(())
}

/// Removes the cgroup, whose processes have all been killed, from each hierarchy.
///
/// # Errors
/// A process is still in it after [`EMPTY_WITHIN`].
pub fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    for Hierarchy { mount, .. } in hierarchies()? {
        let folder = mount.join(name);
        while folder.exists() {
            match remove_tree(&folder) {
                Ok(()) => {}
                Err(error) if Instant::now() < deadline && error.kind() == io::ErrorKind::ResourceBusy => {
                    sleep(Duration::from_millis(20));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("could not remove the cgroup {}", folder.display()));
                }
            }
        }
    }
    Ok(())
}

/// A cgroup's files can't be removed, only its folder once it has no children.
fn remove_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// Lets children of this cgroup (v2) have all controllers that it has itself.
fn hand_down(folder: &Path) -> Result<()> {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("the cgroup {} can not hand down {controller}", folder.display()))?;
    }
    Ok(())
}

struct Hierarchy {
    mount: PathBuf,
    v2: bool,
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    Ok(parse(&fs::read_to_string("/proc/mounts")?))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (mount, kind) = (fields.next()?, fields.next()?);
        let v2 = kind == "cgroup2";
        (v2 || kind == "cgroup").then(|| Hierarchy { mount: mount.into(), v2 })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found: Vec<_> = parse(mounts).into_iter().map(|it| (it.mount, it.v2)).collect();
        assert_eq!(
            found,
            [("/sys/fs/cgroup/memory".into(), false), (PathBuf::from("/sys/fs/cgroup/unified"), true)]
        );
    }
}
