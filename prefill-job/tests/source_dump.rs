//! The dump source: any order of lines, plain or compressed, whole or broken.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod source_support;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use model::ExitCode;
use prefill_job::source::dump::{Dump, DumpWriter, Format};
use prefill_job::source::{Source, SourceError, SourceEvent};
use serde_json::value::RawValue;
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

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The same text in each way that is read.
fn packed(text: &str) -> [Vec<u8>; 3] {
    [text.as_bytes().to_vec(), gzip(text.as_bytes()), zstd(text.as_bytes())]
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
const A2: &str = r#"{"objectType": "users/user", "dn": "uid=a2"}"#;
const A3: &str = r#"{"objectType": "users/user", "dn": "uid=a3"}"#;
const B: &str = r#"{"objectType": "groups/group", "dn": "cn=b"}"#;

/// So many users, a line each.
fn users(count: u32) -> String {
    (0..count).map(|n| format!("{{\"objectType\": \"users/user\", \"dn\": \"uid=u{n}\"}}\n")).collect()
}

#[tokio::test]
async fn objects_come_in_the_order_of_the_topics_whatever_the_order_of_the_lines() {
    let grouped = directory();
    for text in [mixed(&grouped), grouped] {
        for bytes in packed(&text) {
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
async fn several_compressed_parts_are_one_dump() {
    let (first, second) = (format!("{A}\n"), format!("{B}\n{A2}\n"));
    // Parallel compressors of zstd begin with a frame that is to be skipped.
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7][..], &zstd(first.as_bytes())].concat();
    for parts in [[gzip(first.as_bytes()), gzip(second.as_bytes())], [skipped, zstd(second.as_bytes())]] {
        let file = file(&parts.concat());
        assert_eq!(read(&source(file.path()), &["users/user"]).await.well().texts(), [A, A2]);
    }
}

#[tokio::test]
async fn other_compressions_are_named() {
    for (begin, name) in [(&b"\xfd7zXZ\0\0\x04"[..], "xz"), (b"BZh91AY&SY", "bzip2")] {
        let file = file(begin);
        let read = read(&source(file.path()), &["users/user"]).await;
        assert!(
            model::error_chain(read.error()).contains(&format!("compressed with {name}")),
            "{:?}",
            read.error()
        );
        assert_eq!(read.error().exit_code(), ExitCode::BadData);
    }
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
        for bytes in packed(&format!("{A}\n\n{A2}\n{broken}\n{A3}\nbroken too\n")) {
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
    for whole in [gzip(text.as_bytes()), zstd(text.as_bytes())] {
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
}

#[tokio::test]
async fn an_empty_dump_is_an_error_and_an_absent_topic_is_not() {
    for bytes in [Vec::new(), b"\n\n".to_vec(), gzip(b""), zstd(b""), b"version: 1\n".to_vec()] {
        let file = file(&bytes);
        let read = read(&source(file.path()), &["users/user"]).await;
        assert!(matches!(read.error(), SourceError::DumpEmpty { .. }), "{:?}", read.error());
    }
    let file = file(A.as_bytes());
    let read = read(&source(file.path()), &["oxmail/.*", "users/user"]).await.well();
    assert_eq!(read.story(), ["oxmail/.*: no module", "users/user: 1", "1 objects", "users/user done"]);
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
    let huge = format!(r#"{{"objectType": "users/user", "photo": "{}"}}"#, "x".repeat(5 << 20));
    for bytes in [format!("{A}\n{huge}\n{B}"), format!("{A}\n{B}\n{huge}")] {
        for bytes in packed(&bytes) {
            let file = file(&bytes);
            let read_all = read(&source(file.path()), &["users/user"]).await.well();
            assert_eq!(read_all.texts(), [A, &huge]);

            let bounded = Source::Dump(Dump::new(file.path()).max_record_bytes(1 << 20));
            let read = read(&bounded, &["users/user"]).await;
            let error = read.error().to_string();
            assert!(error.contains("more than 1048576 bytes") && error.contains("line "), "{error}");
            assert_eq!(read.error().exit_code(), ExitCode::BadData);
        }
    }
    // A line of exactly the bound is well, with or without its end.
    for text in [format!("{A}\n"), A.to_owned()] {
        let file = file(text.as_bytes());
        let exact = Source::Dump(Dump::new(file.path()).max_record_bytes(A.len()));
        assert_eq!(read(&exact, &["users/user"]).await.well().texts(), [A]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn photos_do_not_pile_up_before_an_engine_that_is_slow() {
    let photo = "x".repeat(256 << 10);
    let user = |n: u32| {
        format!(r#"{{"dn":"uid=u{n}","objectType":"users/user","properties":{{"jpegPhoto":"{photo}"}}}}"#)
    };
    let dump = file((0..100).map(user).collect::<Vec<_>>().join("\n").as_bytes());
    let source = source(dump.path());
    let (sender, mut receiver) = mpsc::channel(1000);
    let topics = topics(&["users/user"]);
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    let mut objects = 0;
    while let Some(event) = receiver.recv().await {
        objects += u32::from(matches!(event, SourceEvent::Object(_)));
        // 4 MiB, and what is not an object.
        assert!(receiver.len() <= 18, "{} wait", receiver.len());
        // This is what a slow engine is: without the bound, the dump is far ahead of it.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    reading.await.unwrap().unwrap();
    assert_eq!(objects, 100);
}

#[tokio::test]
async fn a_dump_that_changes_while_it_is_read_is_noticed() {
    // Far more than what is read ahead.
    let mut file = file(users(20_000).as_bytes());
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
    let summary = Dump::new(file_well.path()).validate(20).await.unwrap();
    assert_eq!((summary.objects(), summary.problem_count), (lines as u64, 0));
    let users = &summary.types["users/user"];
    let of_users = of_type(&text, "users/user");
    assert_eq!(users.objects, 200);
    assert_eq!(users.bytes, of_users.iter().map(|line| line.len() as u64).sum::<u64>());
    assert_eq!(users.biggest_bytes, of_users.iter().map(|line| line.len() as u64).max().unwrap());

    let broken = format!("{A}\nx\n{B}\n{{}}\n{}", "y\n".repeat(100));
    let file_broken = file(broken.as_bytes());
    let summary = Dump::new(file_broken.path()).validate(20).await.unwrap();
    assert_eq!((summary.objects(), summary.problem_count, summary.problems.len()), (2, 102, 20));
    assert_eq!(summary.problems.iter().map(|p| p.line).take(3).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(Dump::new("/no/such/dump").validate(20).await.is_err());
}

#[tokio::test]
async fn it_ends_when_the_engine_takes_no_more() {
    let file = file(users(1000).as_bytes());
    let (sender, mut receiver) = mpsc::channel(1);
    let (source, topics) = (source(file.path()), topics(&["users/user"]));
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    receiver.recv().await.unwrap();
    drop(receiver);
    let result = tokio::time::timeout(Duration::from_secs(5), reading).await.expect("it ends").unwrap();
    assert!(matches!(result, Err(SourceError::ReceiverGone)));
}

/// As `slapcat` writes it, all kinds of lines in it.
const LDIF: &str = "\u{feff}version: 1\r
# extended LDIF\r
#\r
dn: dc=example,dc=org\r
objectClass: domain\r
\r
dn: cn=admin,dc=example,\r
 dc=org\r
cn: admin\r
userPassword:: e1NTSEF9c2VjcmV0\r
\r
\r
dn:: dWlkPWrDvHJnZW4sY249dXNlcnMsZGM9ZXhhbXBsZSxkYz1vcmc=\r
univentionObjectType: users/user\r
uid:: asO8cmdlbg==\r
sn: M\r
 üller\r
jpegPhoto:: /9j/\r
oxTimeZone: Europe/Berlin\r
\r
dn: cn=portal,dc=example,dc=org\r
univentionObjectType: portals/portal\r
cn: portal\r
\r
dn: cn=staff,cn=groups,dc=example,dc=org\r
univentionObjectType: groups/group\r
cn: staff\r
uniqueMember: uid=anna,cn=users,dc=example,dc=org\r
\r
dn: uid=anna,cn=users,dc=example,dc=org\r
univentionObjectType: users/user\r
uid: anna";

#[tokio::test]
async fn ldif_is_read_as_objects_of_udm() {
    for text in [LDIF.to_owned(), LDIF.replace('\r', ""), format!("{}\n\n\n", LDIF.replace('\r', ""))] {
        for bytes in packed(&text) {
            let file = file(&bytes);
            let read = read(&source(file.path()), &["groups/group", "users/.*"]).await.well();
            assert_eq!(
                read.story(),
                [
                    "groups/group: 1",
                    "1 objects",
                    "groups/group done",
                    "users/user: 2",
                    "2 objects",
                    "users/user done"
                ]
            );
            let objects: Vec<serde_json::Value> =
                read.texts().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            assert_eq!(objects[0]["properties"]["users"][0], "uid=anna,cn=users,dc=example,dc=org");
            assert_eq!(objects[1]["dn"], "uid=jürgen,cn=users,dc=example,dc=org");
            assert_eq!(objects[1]["properties"]["username"], "jürgen");
            assert_eq!(objects[1]["properties"]["lastname"], "Müller");
            assert_eq!(objects[1]["properties"]["jpegPhoto"], "/9j/");
            assert_eq!(objects[2]["id"], "anna");

            let summary = Dump::new(file.path()).validate(20).await.unwrap();
            assert_eq!(summary.format, Format::Ldif);
            assert_eq!((summary.objects(), summary.untyped, summary.problem_count), (4, 2, 0));
            assert_eq!(summary.types["users/user"].left_out, [("oxTimeZone".to_owned(), 1)].into());
        }
    }
}

/// An entry of LDIF.
fn entry(dn: &str, object_type: &str, more: &str) -> String {
    format!("dn: {dn}\nuniventionObjectType: {object_type}\n{more}\n")
}

async fn problems(text: &[u8]) -> Vec<String> {
    let file = file(text);
    let summary = Dump::new(file.path()).validate(20).await.unwrap();
    let read = read(&source(file.path()), &[".*"]).await;
    // What validate calls good, a prefill can use; what it does not, a prefill names as the first.
    match summary.problems.first() {
        None => _ = read.well(),
        Some(first) => assert!(read.error().to_string().contains(&first.problem), "{}", read.error()),
    }
    summary.problems.into_iter().map(|problem| format!("{}: {}", problem.line, problem.problem)).collect()
}

#[tokio::test]
async fn all_that_rfc_2849_and_ldapsearch_write_is_read() {
    let anna = entry("uid=anna,dc=x   ", "users/user", "sn;lang-ja:: 5bCP\nsn:: TcO8\n bGxl\n  cg==\n");
    for text in [
        format!("# a comment\n# more of it\n\nversion: 1\n\n{anna}"),
        format!(
            "# extended LDIF\n#\n\n{anna}# search reference\nref: ldap://a/dc=y??sub\n\n# search result\nsearch: 2\nresult: 0 Success\n\n# numReferences: 1\n"
        ),
        format!("version: 1\n\n{}version: 1\n{anna}", entry("uid=b,dc=x", "users/user", "sn: b\n")),
        format!("\u{feff}version: 1\n{}", anna.trim_end()),
        anna.replace('\n', "\r\n"),
    ] {
        for bytes in packed(&text) {
            assert_eq!(problems(&bytes).await, [""; 0], "{text}");
            let file = file(&bytes);
            let read = read(&source(file.path()), &["users/user"]).await.well();
            let object: serde_json::Value = serde_json::from_str(read.texts().last().unwrap()).unwrap();
            assert_eq!((&object["dn"], &object["position"]), (&"uid=anna,dc=x".into(), &"dc=x".into()));
            assert_eq!(object["properties"]["lastname"], "Müller", "{text}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_object_before_anything_is_sent() {
    let extended = "dn: cn=ea,dc=x\nobjectClass: univentionUDMProperty\nuniventionObjectType: settings/extended_attribute\n\
        univentionUDMPropertyVersion: 2\nuniventionUDMPropertyModule: users/user\nuniventionUDMPropertyCLIName: ea\n\
        univentionUDMPropertyLdapMapping: a1\nuniventionUDMPropertySyntax: string\n\n";
    let latin1 = entry("uid=a,dc=x", "users/user", "sn:: TfxsbGVy\n");
    let unknown = entry("uid=a,dc=x", "users/user", "a1:: TfxsbGVy\n");
    for (text, expected) in [
        (latin1.clone(), &["1: uid=a,dc=x: the value of sn is not UTF-8"][..]),
        (
            entry("cn=a,dc=x", "portals/portal", "displayName:: TfxsbGVy\n"),
            &["1: cn=a,dc=x: the value of displayName is not UTF-8"],
        ),
        // A photo may be anything, and so may what nobody shows.
        (latin1.replace("sn", "jpegPhoto"), &[]),
        (unknown.clone(), &[]),
        (format!("{unknown}{extended}"), &["1: uid=a,dc=x: the value of a1 is not UTF-8"]),
        (
            format!("{}{}", entry("uid=a,dc=x", "users/user", ""), entry("UID=A, dc=x", "users/user", "")),
            &["4: UID=A, dc=x: an entry of this DN came before"],
        ),
        (format!("{A}\n{A}\n"), &["2: uid=a: this object came before"]),
        (format!("{A}\n{}\n", A.replace("users/user", "users/ldap")), &[]),
        (
            format!("{A}\n{}", r#"{"objectType":"users/user","dn":"uid=cut","properties":{"n":"\ud83d"}}"#),
            &[
                "2: uid=cut: properties.n: a string holds half of a character (a lone surrogate), which can't be read",
            ],
        ),
    ] {
        assert_eq!(problems(text.as_bytes()).await, expected, "{text}");
    }
    let utf16: Vec<u8> = latin1.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [utf16.clone(), [&[0xff, 0xfe], &*utf16].concat(), gzip(&utf16)] {
        let file = file(&bytes);
        let error = Dump::new(file.path()).validate(20).await.unwrap_err();
        assert!(model::error_chain(&error).contains("UTF-16"), "{error:?}");
    }
}

#[tokio::test]
async fn what_udm_does_not_list_is_left_out_and_counted() {
    let classes =
        ["person", "posixAccount", "shadowAccount", "sambaSamAccount", "krb5Principal", "krb5KDCEntry"];
    let account = |name: &str, count: usize| {
        let classes: String =
            classes[..count].iter().map(|class| format!("objectClass: {class}\n")).collect();
        entry(&format!("uid={name},dc=x"), "users/user", &format!("{classes}uid: {name}\n"))
    };
    let group = entry("cn=g,dc=x", "groups/group", "objectClass: posixAccount\n");
    for (text, listed, not_listed) in [
        // Written by hand: nothing is complete, so nothing tells that something is missing.
        (account("a", 0) + &account("b", 1), 2, 0),
        (account("a", 1) + &account("b", 4), 1, 1),
        (account("a", 1) + &account("b", 6), 1, 1),
        (account("a", 6) + &account("b", 5) + &group, 1, 2),
    ] {
        let file = file(text.as_bytes());
        let summary = Dump::new(file.path()).validate(20).await.unwrap();
        assert_eq!(
            (summary.objects(), summary.not_listed.values().sum::<u64>()),
            (listed, not_listed),
            "{text}"
        );
        assert_eq!(summary.types["users/user"].without_identifier, listed);
        let read = read(&source(file.path()), &["users/user"]).await.well();
        assert_eq!(read.texts().len() as u64, listed);
    }
}

#[tokio::test]
async fn many_types_in_any_order_come_whole() {
    // The large type does not fit into what is read together.
    let photo = "A".repeat(64 << 10);
    let user = |n: u32| entry(&format!("uid=u{n},dc=x"), "users/user", &format!("jpegPhoto:: {photo}\n"));
    let small = |n: u32| entry(&format!("cn=s{n},dc=x"), &format!("a/t{}", n % 7), "cn: s\n");
    let text: String = (0..300).map(|n| user(n) + &small(n)).collect();
    for bytes in [text.as_bytes().to_vec(), zstd(text.as_bytes())] {
        let file = file(&bytes);
        let read = read(&source(file.path()), &["a/t3", "users/user", ".*"]).await.well();
        let story = read.story();
        assert_eq!(
            story[..6],
            ["a/t3: 43", "43 objects", "a/t3 done", "users/user: 300", "300 objects", "users/user done"]
        );
        assert_eq!(story.len(), 8 * 3);
        let names: Vec<String> = read
            .objects()
            .iter()
            .map(|(_, text)| {
                serde_json::from_str::<serde_json::Value>(text).unwrap()["id"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!((names.len(), &*names[0], &*names[1], &*names[43]), (600, "s3", "s10", "u0"));
    }
}

#[tokio::test]
async fn a_broken_record_of_ldif_is_named_by_its_line() {
    let good = |name: &str| format!("dn: uid={name},dc=x\nuniventionObjectType: users/user\n");
    let broken = [
        ("dn: uid=b,dc=x\nchangetype: add\nuid: b\n", 5, "only whole entries"),
        ("dn: uid=b,dc=x\nuid: b\njpegPhoto:< file:///etc/passwd\n", 6, "not fetched"),
        ("dn: uid=b,dc=x\nuid\n", 5, "no colon"),
        ("uid: b\n", 4, "begins with dn:"),
    ];
    for (record, line, problem) in broken {
        for bytes in packed(&format!("{}\n{record}\n{}", good("a"), good("c"))) {
            let file = file(&bytes);
            let read = read(&source(file.path()), &["users/user"]).await;
            let error = read.error().to_string();
            assert!(error.contains(&format!("line {line}: ")) && error.contains(problem), "{error}");
            assert!(error.contains(&file.path().display().to_string()) && read.events.is_empty());
            assert_eq!(read.error().exit_code(), ExitCode::BadData);
        }
    }
    // One problem a record, and all of them.
    let record = |(number, (record, ..)): (usize, &(&str, u64, &str))| {
        format!("{record}x x\n\n{}\n", good(&format!("a{number}")))
    };
    let text: String = broken.iter().enumerate().map(record).collect();
    let file_broken = file(text.as_bytes());
    let summary = Dump::new(file_broken.path()).validate(3).await.unwrap();
    assert_eq!((summary.objects(), summary.problem_count, summary.problems.len()), (4, 4, 3));
    assert_eq!(summary.problems.iter().map(|p| p.line).collect::<Vec<_>>(), [2, 11, 18]);

    let without_types = file(b"dn: dc=x\nobjectClass: domain\n");
    let read = read(&source(without_types.path()), &["users/user"]).await;
    assert!(
        read.error().to_string().contains("1 entries have no univentionObjectType"),
        "{:?}",
        read.error()
    );
}

#[tokio::test]
async fn a_huge_entry_is_refused_beyond_the_bound_however_it_is_folded() {
    let good = |name: &str| format!("dn: uid={name},dc=x\nuniventionObjectType: users/user\n\n");
    let folded = format!("photo:: {}\n", "QUFB\n QUFB\n ".repeat(100_000));
    let one_line = format!("photo:: {}\n", "QUFB".repeat(200_000));
    for huge in [folded, one_line] {
        let entry = format!("dn: uid=b,dc=x\n{huge}univentionObjectType: users/user\n\n");
        let text = format!("{}{entry}{}", good("a"), good("c"));
        for bytes in packed(&text) {
            let file = file(&bytes);
            assert_eq!(read(&source(file.path()), &["users/user"]).await.well().texts().len(), 3);
            let bounded = Dump::new(file.path()).max_record_bytes(100_000);
            let summary = bounded.validate(20).await.unwrap();
            assert_eq!((summary.objects(), summary.problem_count), (2, 1));
            assert!(summary.problems[0].problem.contains("more than 100000 bytes"), "{:?}", summary.problems);
        }
    }
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.jsonl", "a.jsonl.gz", "a.zst"] {
        let path = folder.path().join(name);
        let objects = [A, "{\"objectType\":\r\n \"users/user\", \"u\": \"a\\nb\"}", B];
        std::fs::write(&path, "what was there before").unwrap();
        let mut writer = DumpWriter::create(&path).unwrap();
        for object in objects {
            writer.write(&RawValue::from_string(object.to_owned()).unwrap()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "what was there before");
        writer.finish().unwrap();
        let read = read(&source(&path), &["users/user", "groups/group"]).await.well();
        assert_eq!(read.texts(), [A, "{\"objectType\":   \"users/user\", \"u\": \"a\\nb\"}", B]);
    }
    // One that is not finished leaves nothing behind.
    drop(DumpWriter::create(folder.path().join("b.jsonl")).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    let error = DumpWriter::create("/no/such/folder/a.jsonl").unwrap_err();
    assert!(error.to_string().contains("/no/such/folder/a.jsonl"));
}

#[tokio::test]
async fn a_topic_of_which_a_dump_holds_no_object_is_named() {
    let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
    std::fs::write(file.path(), r#"{"dn":"uid=a,dc=x","objectType":"users/user"}"#).unwrap();
    let source = Source::Dump(Dump::new(file.path()));
    let read = read(&source, &["oxmail/.*", "users/user", "no/such"]).await.well();
    assert_eq!(
        read.story(),
        ["oxmail/.*: no module", "no/such: no module", "users/user: 1", "1 objects", "users/user done"]
    );
}
