//! The dump source: any order of lines, plain or compressed, whole or broken.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod source_support;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use model::ExitCode;
use prefill_job::source::dump::Dump;
use prefill_job::source::{Source, SourceError, SourceEvent};
use source_support::{read, topics};
use stand_in_udm::{Directory, Population};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn source(path: &Path) -> Source {
    Source::Dump(Dump::new(path))
}

fn of_type(dump: &str, object_type: &str) -> Vec<String> {
    let marker = format!("\"objectType\": \"{object_type}\"");
    dump.lines().filter(|line| line.contains(&marker)).map(str::to_owned).collect()
}

/// A directory's dump, grouped by type.
fn directory() -> String {
    let population = Population { users: 200, groups: 30, photos_per_mille: 50, ..Population::default() };
    let mut text = Vec::new();
    stand_in_udm::dump::write(&Directory::generated(population), "http://udm/univention", &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The same lines, all types mixed.
fn mixed(dump: &str) -> String {
    let lines: Vec<_> = dump.lines().collect();
    // A step that has no divisor in common with the number visits each line once.
    let step = [7919, 104_729].into_iter().find(|step| !lines.len().is_multiple_of(*step)).unwrap();
    (0..lines.len()).map(|i| format!("{}\n", lines[i * step % lines.len()])).collect()
}

const A: &str = r#"{"objectType": "users/user", "dn": "uid=a"}"#;
const B: &str = r#"{"objectType": "groups/group", "dn": "cn=b"}"#;

#[tokio::test]
async fn objects_come_in_the_order_of_the_topics_whatever_the_order_of_the_lines() {
    let grouped = directory();
    for text in [mixed(&grouped), grouped] {
        for bytes in [text.clone().into_bytes(), gzip(text.as_bytes())] {
            let file = file(&bytes);
            let read = read(&source(file.path()), &["users/user", "groups/.*", "container/ou"]).await.well();
            let wanted: Vec<_> = ["users/user", "groups/group", "container/ou"]
                .iter()
                .flat_map(|t| of_type(&text, t))
                .collect();
            assert_eq!(read.texts(), wanted);
            assert_eq!(
                read.story(),
                [
                    "users/user: 200",
                    "200 objects",
                    "users/user done",
                    "groups/group: 31",
                    "31 objects",
                    "groups/group done",
                    "container/ou: 9",
                    "9 objects",
                    "container/ou done"
                ]
            );
        }
    }
}

#[tokio::test]
async fn bytes_stay_as_they_are_and_links_go() {
    let text = r#"  {"_links": {"self": [1]}, "objectType":"a/b",  "n": 2.0, "big":123456789012345678901234567890, "u": "\u00fcü"}  "#;
    let file = file(format!("\n{text}\r\n\n{B}").as_bytes());
    let read = read(&source(file.path()), &["a/b", "groups/group"]).await.well();
    let expected = r#"{"objectType":"a/b",  "n": 2.0, "big":123456789012345678901234567890, "u": "\u00fcü"}"#;
    assert_eq!(read.objects(), [("a/b", expected), ("groups/group", B)]);
}

#[tokio::test]
async fn several_gzip_members_are_one_dump() {
    let bytes = [gzip(format!("{A}\n").as_bytes()), gzip(format!("{B}\n{A}\n").as_bytes())].concat();
    let file = file(&bytes);
    assert_eq!(read(&source(file.path()), &["users/user"]).await.well().texts(), [A, A]);
}

#[tokio::test]
async fn a_broken_line_is_named_before_anything_is_sent() {
    for (broken, problem) in [
        ("not json", "not a JSON object"),
        ("[]", "not a JSON object"),
        (r#"{"objectType": "users/user""#, "not a JSON object"),
        (r#"{"objectType": "users/user"} x"#, "not a JSON object"),
        (r#"{"dn": "uid=a"}"#, "objectType"),
        ("\u{1}", "not a JSON object"),
    ] {
        for compressed in [false, true] {
            let text = format!("{A}\n\n{A}\n{broken}\n{A}\nbroken too\n");
            let bytes = if compressed { gzip(text.as_bytes()) } else { text.into_bytes() };
            let file = file(&bytes);
            let read = read(&source(file.path()), &["users/user"]).await;
            let error = read.error().to_string();
            assert!(error.contains("line 4") && error.contains(problem), "{error}");
            assert!(error.contains(&file.path().display().to_string()), "{error}");
            assert_eq!(read.error().exit_code(), ExitCode::BadData);
            assert!(read.events.is_empty());
        }
    }
    let latin1 = file(&[A.as_bytes(), b"\n{\"objectType\": \"\xfc\"}\n"].concat());
    assert!(
        read(&source(latin1.path()), &["users/user"]).await.error().to_string().contains("line 2: not UTF-8")
    );
}

#[tokio::test]
async fn a_dump_that_is_cut_or_damaged_is_bad_data() {
    let text = directory();
    let whole = gzip(text.as_bytes());
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    for bytes in [&whole[..whole.len() / 2], &whole[..whole.len() - 4], &whole[..5], &damaged] {
        let file = file(bytes);
        let read = read(&source(file.path()), &["users/user"]).await;
        assert_eq!(read.error().exit_code(), ExitCode::BadData, "{:?}", read.error());
        assert!(read.events.is_empty());
    }
}

#[tokio::test]
async fn an_empty_dump_is_an_error_and_an_absent_topic_is_not() {
    for bytes in [Vec::new(), b"\n\n".to_vec(), gzip(b"")] {
        let file = file(&bytes);
        let read = read(&source(file.path()), &["users/user"]).await;
        assert!(matches!(read.error(), SourceError::DumpEmpty { .. }), "{:?}", read.error());
    }
    let file = file(A.as_bytes());
    assert_eq!(read(&source(file.path()), &["oxmail/.*", "users/user"]).await.well().texts(), [A]);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_bad_request() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent.jsonl"), folder.path().to_owned()] {
        let read = read(&source(&path), &["users/user"]).await;
        assert_eq!(read.error().exit_code(), ExitCode::BadRequest, "{:?}", read.error());
        assert!(read.error().to_string().contains(&path.display().to_string()));
    }
}

#[tokio::test]
async fn a_huge_line_is_read_within_the_bound_and_refused_beyond_it() {
    let huge = format!(r#"{{"objectType": "users/user", "photo": "{}"}}"#, "x".repeat(20 << 20));
    for bytes in [format!("{A}\n{huge}\n{B}"), format!("{A}\n{B}\n{huge}")] {
        for bytes in [bytes.clone().into_bytes(), gzip(bytes.as_bytes())] {
            let file = file(&bytes);
            let read_all = read(&source(file.path()), &["users/user"]).await.well();
            assert_eq!(read_all.texts(), [A, &huge]);

            let bounded = Source::Dump(Dump::new(file.path()).max_line_bytes(1 << 20));
            let read = read(&bounded, &["users/user"]).await;
            let error = read.error().to_string();
            assert!(error.contains("more than 1048576 bytes") && error.contains("line "), "{error}");
            assert_eq!(read.error().exit_code(), ExitCode::BadData);
        }
    }
    // A line of exactly the bound is well, with or without its end.
    for text in [format!("{A}\n"), A.to_owned()] {
        let file = file(text.as_bytes());
        let exact = Source::Dump(Dump::new(file.path()).max_line_bytes(A.len()));
        assert_eq!(read(&exact, &["users/user"]).await.well().texts(), [A]);
    }
}

#[tokio::test]
async fn a_dump_that_changes_while_it_is_read_is_noticed() {
    // Far more than what is read ahead.
    let mut file = file(format!("{A}\n").repeat(20_000).as_bytes());
    let (sender, mut receiver) = mpsc::channel(1);
    let (source, topics) = (source(file.path()), topics(&["users/user"]));
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    assert!(matches!(receiver.recv().await, Some(SourceEvent::TopicStarted { total: Some(20_000), .. })));
    file.as_file_mut().set_len(0).unwrap();
    let mut objects = 0;
    while let Some(event) = receiver.recv().await {
        objects += usize::from(matches!(event, SourceEvent::Object(_)));
    }
    let error = reading.await.unwrap().unwrap_err();
    assert!(matches!(error, SourceError::DumpChanged { .. }) && error.is_transient(), "{error}");
    assert!(objects < 20_000);
}

#[tokio::test]
async fn validation_counts_types_and_names_broken_lines() {
    let text = directory();
    let lines = text.lines().count();
    let file_well = file(&gzip(text.as_bytes()));
    let summary = Dump::new(file_well.path()).validate().await.unwrap();
    assert_eq!((summary.objects(), summary.problem_count), (lines as u64, 0));
    let users = &summary.types["users/user"];
    let of_users = of_type(&text, "users/user");
    assert_eq!(users.objects, 200);
    assert_eq!(users.bytes, of_users.iter().map(|line| line.len() as u64).sum::<u64>());
    assert_eq!(users.biggest_bytes, of_users.iter().map(|line| line.len() as u64).max().unwrap());

    let broken = format!("{A}\nx\n{B}\n{{}}\n{}", "y\n".repeat(100));
    let file_broken = file(broken.as_bytes());
    let summary = Dump::new(file_broken.path()).validate().await.unwrap();
    assert_eq!((summary.objects(), summary.problem_count, summary.problems.len()), (2, 102, 20));
    assert_eq!(summary.problems.iter().map(|p| p.line).take(3).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(Dump::new("/no/such/dump").validate().await.is_err());
}

#[tokio::test]
async fn it_ends_when_the_engine_takes_no_more() {
    let file = file(format!("{A}\n").repeat(1000).as_bytes());
    let (sender, mut receiver) = mpsc::channel(1);
    let (source, topics) = (source(file.path()), topics(&["users/user"]));
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    receiver.recv().await.unwrap();
    drop(receiver);
    let result = tokio::time::timeout(Duration::from_secs(5), reading).await.expect("it ends").unwrap();
    assert!(matches!(result, Err(SourceError::ReceiverGone)));
}
