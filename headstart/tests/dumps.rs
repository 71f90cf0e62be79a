//! `headstart validate` and `headstart export` as a person or a script uses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    io::{Read, Write as _},
    path::Path,
    process::Output,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Effect, Faults, On, Population, Rule, StandIn};
use support::headstart;

/// An entry with a type, one without, an error in each of two records, and no end of the last line.
const LDIF: &str = "version: 1

dn: cn=admin,dc=x
cn: admin

dn: uid=anna,dc=x
univentionObjectType: users/user
uid: anna
oxTimeZone: Europe/Berlin

dn: uid=bert,dc=x
changetype: modify
add: mail

dn: cn=staff,dc=x
univentionObjectType: groups/group
photo:< file:///etc/passwd";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn validate(path: &Path, arguments: &[&str]) -> Output {
    headstart(&["validate", "--source"]).arg(path).args(arguments).output().unwrap()
}

#[test]
fn a_dump_is_checked_without_writing_anything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.ldif.gz");
    let mut gzip = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    gzip.write_all(LDIF.as_bytes()).unwrap();
    gzip.finish().unwrap();

    let output = validate(&path, &[]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    for expected in [
        "LDIF: 1 objects of 1 types",
        "line 12: uid=bert,dc=x: changetype",
        "line 17: cn=staff,dc=x: photo",
        "oxTimeZone (1)",
        "1 entries without",
    ] {
        assert!(stdout.contains(expected), "{expected}: {stdout}");
    }
    assert!(text(&output.stderr).contains("2 of its records are no objects"), "{}", text(&output.stderr));

    let output = validate(&path, &["--problems", "1"]);
    assert!(text(&output.stdout).contains("1 more problems"), "{}", text(&output.stdout));

    let output = validate(&path, &["--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &found["ok"]), (Some(1), &json!(false)));
    assert_eq!((&found["problem_count"], &found["problems"][0]["line"]), (&json!(2), &json!(12)));
    assert_eq!(found["types"]["users/user"]["objects"], 1);
    assert_eq!(found["types"]["users/user"]["left_out"], json!({"oxTimeZone": 1}));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let good = folder.path().join("good.jsonl");
    std::fs::write(&good, "{\"objectType\": \"users/user\"}\n").unwrap();
    let output = validate(&good, &["--json", "--topic", "users/.*"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &found["ok"], &found["format"]),
        (Some(0), &json!(true), &json!("json_lines"))
    );
    let output = validate(&good, &["--topic", "groups/group"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no object of the topic groups/group"));
}

/// What becomes of a command whose standard output nobody reads any more, as behind `| head`.
fn read_by_nobody(mut command: std::process::Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

/// `headstart validate … | head` panicked.
#[test]
fn what_nobody_reads_ends_nothing_by_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.jsonl");
    std::fs::write(&path, "{\"objectType\": \"users/user\"}\n").unwrap();
    let source = ["--source", path.to_str().unwrap()];
    for arguments in [&["validate"][..], &["validate", "--json"], &["--help"], &["validate", "--help"]] {
        let mut command = headstart(arguments);
        if arguments.last() != Some(&"--help") {
            command.args(source);
        }
        let done = read_by_nobody(command);
        assert_eq!((done.status.code(), text(&done.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

fn directory() -> Directory {
    Directory::generated(Population { users: 60, groups: 8, ..Population::default() })
}

fn export(udm: &StandIn, path: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = headstart(&["export", "--source", &udm.base_url(), "--output"]);
    command.arg(path).args(arguments).env("UDM_PASSWORD", "univention");
    command
}

async fn output(mut command: std::process::Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Objects by their DN.
fn objects(dump: &str) -> std::collections::BTreeMap<String, String> {
    let object = |line: &str| {
        let dn = serde_json::from_str::<Value>(line).unwrap()["dn"].as_str().unwrap().to_owned();
        (dn, line.to_owned())
    };
    dump.lines().map(object).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_all_of_the_directory_byte_for_byte() {
    let udm = StandIn::start(directory(), Faults::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.jsonl.gz");
    let done = output(export(&udm, &path, &[])).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let mut dump = String::new();
    GzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_string(&mut dump).unwrap();
    let mut expected = Vec::new();
    let base = format!("{}/univention", udm.origin());
    stand_in_udm::dump::write(udm.directory(), &base, &mut expected).unwrap();
    assert_eq!(objects(&dump), objects(&String::from_utf8(expected).unwrap()));
    assert_eq!(dump.lines().count(), objects(&dump).len(), "each object once");
    let valid = tokio::task::spawn_blocking(move || validate(&path, &[])).await.unwrap();
    assert_eq!(valid.status.code(), Some(0), "{}", text(&valid.stdout));

    let path = folder.path().join("groups.zst");
    let done = output(export(&udm, &path, &["--topic", "groups/group"])).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("9 objects"), "{}", text(&done.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_leaves_what_was_there() {
    let faults = Faults {
        rules: vec![Rule::new(Effect::Status { code: 400 }).on(On::List).module("users/user")],
        ..Faults::default()
    };
    let udm = StandIn::start(directory(), faults).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.jsonl");
    std::fs::write(&path, "before").unwrap();
    let done = output(export(&udm, &path, &[])).await;
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    let arguments = ["--topic", "no/such", "--udm-missing-seconds", "0"];
    let done = output(export(&udm, &path, &arguments)).await;
    let stderr = text(&done.stderr);
    assert!(done.status.code() == Some(1) && stderr.contains("no object to write"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before", "a dump of nothing is none");
    for (name, named) in
        [("a.ldif", "JSON lines"), ("a.xz", "gzip"), ("no/such/folder/a.jsonl", "no/such/folder")]
    {
        let done = output(export(&udm, &folder.path().join(name), &[])).await;
        assert_eq!(done.status.code(), Some(1));
        assert!(
            text(&done.stderr).contains(named) && text(&done.stderr).contains("--output"),
            "{}",
            text(&done.stderr)
        );
    }
}

/// An account that may not see anybody gets a list that is well and empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_udm_that_shows_nobody_is_no_source() {
    let nobody = Directory::generated(Population { users: 0, groups: 3, ..Population::default() });
    let udm = StandIn::start(nobody, Faults::default()).await.unwrap();
    for (topics, code) in [
        (&[][..], 1),
        (&["--topic", "users/user"], 1),
        (&["--topic", "groups/group"], 0),
        (&["--topic", "(users/user|groups/group)"], 0),
        (&["--topic", "groups/group", "--topic", "users/.*"], 1),
    ] {
        let mut command = headstart(&["validate", "--source", &udm.base_url(), "--json"]);
        command.args(topics).env("UDM_PASSWORD", "univention");
        let done = output(command).await;
        let found: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((done.status.code(), &found["ok"]), (Some(code), &json!(code == 0)), "{topics:?}");
        let stderr = text(&done.stderr);
        assert_eq!(stderr.contains("no object of the topic users/"), code != 0, "{topics:?}: {stderr}");
    }
    // One that it lists and can't show is not nobody.
    let broken = Rule::new(Effect::Status { code: 500 }).on(On::Object).module("groups/group");
    udm.faults().add(broken);
    let mut command = headstart(&["validate", "--source", &udm.base_url(), "--topic", "groups/group"]);
    command.env("UDM_PASSWORD", "univention");
    let done = output(command).await;
    let stderr = text(&done.stderr);
    assert!(done.status.code() == Some(1) && stderr.contains("can't be read"), "{stderr}");
    assert!(!stderr.contains("no object of the topic"), "{stderr}");
}

/// The objects of the directory as a file holds them.
async fn in_a_file(udm: &StandIn, folder: &Path) -> String {
    let path = folder.join("file.jsonl");
    let done = output(export(udm, &path, &[])).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_gets_the_dump_and_nothing_else() {
    let udm = StandIn::start(directory(), Faults::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let expected = in_a_file(&udm, folder.path()).await;
    let mut command = export(&udm, Path::new("-"), &[]);
    command.current_dir(folder.path());
    let done = output(command).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(objects(&text(&done.stdout)), objects(&expected));
    assert_eq!(text(&done.stdout).lines().count(), expected.lines().count());
    assert!(text(&done.stderr).contains("standard output: "), "{}", text(&done.stderr));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no file of this name");

    // Who reads it has gone: it is not all, and that is said.
    let command = export(&udm, Path::new("-"), &[]);
    let done = tokio::task::spawn_blocking(move || read_by_nobody(command)).await.unwrap();
    let stderr = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("can't write standard output") && stderr.contains("--output"), "{stderr}");
}

/// `--output /dev/stdout` gave the name of the device to a file, so that nobody had the device any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_written_to_and_stays_what_it_is() {
    use std::os::unix::fs::FileTypeExt;
    let udm = StandIn::start(directory(), Faults::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let expected = in_a_file(&udm, folder.path()).await;
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let read = tokio::task::spawn_blocking({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).unwrap()
    });
    let done = output(export(&udm, &pipe, &[])).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(objects(&read.await.unwrap()), objects(&expected));

    // As a source it can't be read twice, and nobody waits for what does not come.
    let refused = tokio::task::spawn_blocking({
        let pipe = pipe.clone();
        move || validate(&pipe, &[])
    });
    let refused = tokio::time::timeout(std::time::Duration::from_secs(20), refused).await.unwrap().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("it is no file"), "{}", text(&refused.stderr));

    // A link stays one, and leads to the new dump.
    let (link, file) = (folder.path().join("link.jsonl"), folder.path().join("behind.jsonl"));
    std::fs::write(&file, "before").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let done = output(export(&udm, &link, &[])).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(objects(&std::fs::read_to_string(&file).unwrap()), objects(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn udm_is_asked_directly_whatever_proxy_is_set() {
    let udm = StandIn::start(directory(), Faults::default()).await.unwrap();
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groups.jsonl");
    let mut command = export(&udm, &path, &["--topic", "groups/group"]);
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(variable, &address);
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let done = output(command).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(proxy.accept().is_err(), "a proxy would see the password");
}
