//! The keys and certificates of a cluster, and a kubeconfig per identity.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use crate::commands;

/// Name, subject and subject alternative names of each certificate. Kubernetes reads user and groups from the
/// subject: `CN` and `O`.
const CERTIFICATES: [(&str, &str, &str); 6] = [
    (
        "apiserver",
        "/CN=kube-apiserver",
        "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1,IP:192.0.2.1",
    ),
    ("admin", "/O=system:masters/CN=admin", "DNS:unused"),
    ("controller-manager", "/CN=system:kube-controller-manager", "DNS:unused"),
    ("scheduler", "/CN=system:kube-scheduler", "DNS:unused"),
    ("proxy", "/CN=system:kube-proxy", "DNS:unused"),
    ("node1", "/O=system:nodes/CN=system:node:node1", "DNS:node1,IP:192.0.2.1,IP:127.0.0.1"),
];

/// Writes `pki/` and `<identity>.kubeconfig` into the cluster's run folder.
///
/// # Errors
/// openssl fails, or a file can't be written.
pub fn create(run: &Path) -> Result<()> {
    let pki = run.join("pki");
    fs::create_dir_all(&pki)?;
    let openssl = |arguments: &str| {
        commands::output(Command::new("openssl").current_dir(&pki).args(arguments.split_whitespace()))
            .map(drop)
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=kubernetes -days 365")?;
    openssl("genrsa -out sa.key 2048")?;
    openssl("rsa -in sa.key -pubout -out sa.pub")?;
    let kubeconfig = fs::read_to_string(run.join("config/kubeconfig.yaml"))?;
    for (name, subject, names) in CERTIFICATES {
        fs::write(
            pki.join(format!("{name}.ext")),
            format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n"),
        )?;
        openssl(&format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"))?;
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 365 -extfile {name}.ext"
        ))?;
        fs::write(run.join(format!("{name}.kubeconfig")), kubeconfig.replace("USER", name))?;
    }
    Ok(())
}
