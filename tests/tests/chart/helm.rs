//! Runs helm.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Renders a set of values as the release `ums` in the namespace `identity`; the error is helm's.
pub fn template(set: &str, options: &[&str]) -> Result<String, String> {
    template_as("ums", set, options)
}

/// Renders a set of values as a release.
pub fn template_as(release: &str, set: &str, options: &[&str]) -> Result<String, String> {
    template_of(&chart(), release, set, options)
}

/// Renders another chart's files with a set of values.
pub fn template_of(chart: &Path, release: &str, set: &str, options: &[&str]) -> Result<String, String> {
    run("template", &[release], chart, set, options)
}

/// The chart's folder.
pub fn chart() -> PathBuf {
    root().join("charts/headstart")
}

/// A copy of the chart, for a test that adds a file.
pub fn copy_chart(folder: &Path) -> PathBuf {
    let copied = Command::new("cp").arg("-r").arg(chart()).arg(folder).status().unwrap();
    assert!(copied.success());
    folder.join("headstart")
}

/// A rendered text with the generated passwords (32 letters, so 44 of base64) replaced.
pub fn without_generated(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix("  password: ") {
        Some(password) if password.len() == 44 => "  password: (generated)",
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Lints the chart with a set of values.
pub fn lint(set: &str) -> Result<String, String> {
    run("lint", &["--strict"], &chart(), set, &[])
}

/// The rendered objects.
pub fn render(set: &str) -> Vec<Value> {
    render_with(set, &[])
}

/// The rendered objects, with further options.
pub fn render_with(set: &str, options: &[&str]) -> Vec<Value> {
    parse(&template(set, options).unwrap())
}

/// The documents of a YAML text.
pub fn parse(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let objects: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    assert!(!objects.is_empty());
    objects
}

/// Kind of an object.
pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

/// Name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn run(
    command: &str,
    arguments: &[&str],
    chart: &Path,
    set: &str,
    options: &[&str],
) -> Result<String, String> {
    let values = root().join(format!("tests/tests/chart/values/{set}.yaml"));
    let output = Command::new(binary())
        .arg(command)
        .args(arguments)
        .arg(chart)
        .args(["--namespace", "identity", "--kube-version", "1.34.0", "--values"])
        .arg(values)
        .args(options)
        // Nothing of the user's own configuration, and no cluster.
        .env("KUBECONFIG", "/dev/null")
        .env_remove("HELM_NAMESPACE")
        .output()
        .expect("starting helm");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The binary: `HEADSTART_HELM`, else what the test cluster was built with, else on PATH.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HEADSTART_HELM") {
        return path.into();
    }
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let built = entries(&root().join("target/cluster"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("bin")))
        .flat_map(|bin| entries(&bin).into_iter().chain([bin]))
        .map(|folder| folder.join("helm"))
        .find(|helm| helm.is_file());
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("helm")).find(|helm| helm.is_file())
    };
    built.or_else(on_path).expect(
        "helm is needed: run `cargo xtask cluster build`, or install Helm 3 (https://helm.sh/docs/intro/install), \
         or set HEADSTART_HELM to its path",
    )
}
