//! `cargo xtask cluster`: a real single-node Kubernetes (etcd, apiserver, controller-manager, scheduler,
//! containerd, kubelet, kube-proxy, CoreDNS) on this machine.
//!
//! The node lives in a network, a process and a mount namespace of its own. So nothing that it sends leaves the
//! machine, several clusters (and what else runs here) can't disturb one another, and ending its first process
//! ends all of it at once: containers, mounts and interfaces go with the namespaces. What is left to remove is
//! its run folder and its cgroups.
//!
//! ```text
//! target/cluster/bin/<versions>/   the programs, built once per set of versions   binaries
//! target/cluster/run/<id>/         one cluster: keys, configuration, data, logs   lifecycle, pki
//!   inside the node: /run/cluster, and its var/ is the node's /var
//! first process of the node        starts the components, restarts what dies      node
//! cgroup headstart-<id>-<hash>     the parent of all pods                          cgroup
//! ```

use std::{os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{commands, image};

mod binaries;
mod cgroup;
mod lifecycle;
mod node;
mod packages;
mod pki;

pub use binaries::build;
pub use lifecycle::{Cluster, Lifeline, Lifetime};
pub use packages::{install_buildah, install_missing as install_packages};

/// Arguments of `cargo xtask cluster`.
#[derive(clap::Args)]
pub struct Args {
    /// Which cluster: several may run beside each other
    #[arg(long, global = true, env = "HEADSTART_CLUSTER", default_value = "dev", value_parser = Cluster::named)]
    id: Cluster,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build the programs of the cluster, once per set of versions (minutes), and install missing packages
    Build,
    /// Start the cluster, or see that it is well; a broken one is replaced
    Up,
    /// End the cluster and remove all that it left
    Down,
    /// Show which clusters run, and their processes
    Status,
    /// Run kubectl on the cluster
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command in the cluster's network, with KUBECONFIG set, and kubectl and helm in PATH
    Exec {
        /// Run it on the node: also among its processes and its mounts (`ps`, `ctr -n k8s.io …`)
        #[arg(long)]
        node: bool,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Build an image and give it to the cluster; without arguments the project's images
    #[command(override_usage = "cargo xtask cluster image [TAG CONTAINERFILE CONTEXT]")]
    Image {
        #[arg(requires = "context")]
        tag: Option<String>,
        containerfile: Option<PathBuf>,
        context: Option<PathBuf>,
    },
    /// The first process of a node, started by `up`
    #[command(hide = true)]
    Node(node::Args),
}

/// Why this machine can't run a cluster, if it can't.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    if !commands::succeeds(
        Command::new("unshare").args(["--net", "--pid", "--mount", "--ipc", "--fork", "true"]),
    ) {
        return Some("unshare can not make namespaces".to_owned());
    }
    let probe = format!("headstart-probe-{}", std::process::id());
    if let Err(error) = cgroup::create(&probe).and_then(|()| cgroup::remove(&probe)) {
        return Some(format!("{error:#}"));
    }
    if !binaries::built().unwrap_or(false) && commands::find("go").is_none() {
        return Some("Go is not in PATH to build its programs".to_owned());
    }
    let missing = packages::missing();
    (!missing.is_empty() && commands::find("apt-get").is_none())
        .then(|| format!("packages are missing and there is no apt-get: {}", missing.join(" ")))
}

/// Does what `cargo xtask cluster` was asked.
pub fn run(Args { id: cluster, action }: Args) -> Result<()> {
    match action {
        Action::Build => {
            packages::install_missing()?;
            build().map(drop)
        }
        Action::Up => {
            packages::install_missing()?;
            let binaries = build()?;
            let _lock = cluster.lock()?;
            cluster.up(&binaries, Lifetime::UntilDown)?;
            println!("ready. Try: cargo xtask cluster kubectl get pods --all-namespaces");
            Ok(())
        }
        Action::Down => {
            let _lock = cluster.lock()?;
            cluster.down()
        }
        Action::Status => lifecycle::print_status(),
        Action::Kubectl { arguments } => {
            let mut kubectl = cluster.command("kubectl")?;
            Err(kubectl.args(arguments).exec()).context("could not start kubectl")
        }
        Action::Exec { node, command } => {
            let (program, arguments) = command.split_first().context("no command given")?;
            let mut command = if node { cluster.node_command(program)? } else { cluster.command(program)? };
            Err(command.args(arguments).exec()).with_context(|| format!("could not start {program}"))
        }
        Action::Image { tag: Some(tag), containerfile: Some(containerfile), context: Some(context) } => {
            cluster.import(image::build_archive(&tag, &containerfile, &context)?.path())
        }
        Action::Image { .. } => {
            image::build_all()?.iter().try_for_each(|image| cluster.import(&image.archive))
        }
        Action::Node(args) => node::run(args),
    }
}
