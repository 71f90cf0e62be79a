//! Each Rust file is part of something that is compiled. A file whose `mod` line was lost compiles no more, and its tests
//! vanish without a word.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Follows the `mod` lines of each target.
///
/// # Errors
/// A file belongs to no target.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let files: BTreeSet<PathBuf> =
        workspace::files(&["--cached", "--others", "--", "*.rs"])?.into_iter().map(PathBuf::from).collect();
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<PathBuf> = files.iter().filter(|file| is_target(file)).cloned().collect();
    while let Some(file) = ahead.pop() {
        // A file that was deleted and is still in the index is none of ours.
        if !root.join(&file).exists() || !reached.insert(file.clone()) {
            continue;
        }
        let text = fs::read_to_string(root.join(&file)).with_context(|| file.display().to_string())?;
        let children = modules(&text).flat_map(|module| places(&file, module)).chain(named(&file, &text));
        ahead.extend(children.filter(|child| files.contains(child)));
    }
    let lost: Vec<String> = files
        .iter()
        .filter(|file| root.join(file).exists() && !reached.contains(*file))
        .map(|file| file.display().to_string())
        .collect();
    if !lost.is_empty() {
        bail!("no `mod` line names these files, so nothing compiles them:\n{}", lost.join("\n"));
    }
    Ok(())
}

/// Whether cargo finds a target there (https://doc.rust-lang.org/cargo/guide/project-layout.html).
fn is_target(file: &Path) -> bool {
    let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
    let end = |folder: &str| parts.iter().rposition(|part| *part == folder).map(|at| &parts[at + 1..]);
    let single = |rest: Option<&[&str]>| rest.is_some_and(|rest| matches!(rest, [_] | [_, "main.rs"]));
    parts == ["build.rs"]
        || matches!(end("src"), Some(["lib.rs" | "main.rs"] | ["bin", ..]))
        || (end("src").is_none()
            && ["tests", "benches", "examples", "fuzz_targets"].iter().any(|f| single(end(f))))
        || parts.last() == Some(&"build.rs")
}

/// The modules that a file declares to be in files of their own.
fn modules(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim().strip_suffix(';')?;
        let line = line.strip_prefix("pub ").or(line.strip_prefix("pub(crate) ")).unwrap_or(line);
        line.strip_prefix("mod ")
    })
}

/// The files that a file names by `#[path = "…"]`, which are relative to its folder.
fn named(file: &Path, text: &str) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let paths = text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
    paths.map(|path| without_dots(&folder.join(path))).collect()
}

/// A path without `..`.
fn without_dots(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        if part == Component::ParentDir {
            whole.pop();
        } else {
            whole.push(part);
        }
        whole
    })
}

/// Where a module of a file may be.
fn places(file: &Path, module: &str) -> [PathBuf; 2] {
    let folder = file.parent().unwrap_or(Path::new(""));
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let own = if ["lib", "main", "mod"].contains(&stem) || is_target(file) {
        folder.to_owned()
    } else {
        folder.join(stem)
    };
    [own.join(format!("{module}.rs")), own.join(module).join("mod.rs")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_in_files_are_found() {
        let text = "mod a;\npub mod b;\n    pub(crate) mod c;\nmod inline {\n}\n// mod d;\nuse mod_e;\n";
        assert_eq!(modules(text).collect::<Vec<_>>(), ["a", "b", "c"]);
        let found = |file: &str| places(Path::new(file), "x").map(|path| path.display().to_string());
        assert_eq!(found("a/src/lib.rs"), ["a/src/x.rs", "a/src/x/mod.rs"]);
        assert_eq!(found("a/src/b.rs"), ["a/src/b/x.rs", "a/src/b/x/mod.rs"]);
        assert_eq!(found("a/tests/b.rs"), ["a/tests/x.rs", "a/tests/x/mod.rs"]);
        assert_eq!(found("a/tests/b/main.rs"), ["a/tests/b/x.rs", "a/tests/b/x/mod.rs"]);
        let text = "#[path = \"../../fuzz/x.rs\"]\nmod x;\n";
        assert_eq!(named(Path::new("a/tests/b.rs"), text), [Path::new("fuzz/x.rs")]);
    }

    #[test]
    fn targets_are_those_of_cargo() {
        for (file, target) in [
            ("a/src/lib.rs", true),
            ("tests/a/src/main.rs", true),
            ("a/src/b.rs", false),
            ("a/tests/b.rs", true),
            ("a/tests/b/main.rs", true),
            ("a/tests/b/c.rs", false),
            ("a/tests/support/mod.rs", false),
            ("tests/tests/chart/main.rs", true),
            ("a/src/b/tests.rs", false),
            ("fuzz/fuzz_targets/dn.rs", true),
        ] {
            assert_eq!(is_target(Path::new(file)), target, "{file}");
        }
    }
}
