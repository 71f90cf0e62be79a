//! What comes: all of it, in order, byte by byte.

use std::collections::HashSet;

use model::RealmTopic;
use stand_in_udm::{Directory, Faults, Population, StandIn};
use tokio::sync::mpsc;

use crate::source_support::read;
use crate::{USERS, expected, source, stand_in};

#[tokio::test]
async fn all_objects_come_in_the_order_of_the_topics_and_of_the_lists_byte_by_byte() {
    let udm = stand_in().await;
    let asked = ["groups/group", "users/user", "container/ou", "oxresources/oxresources", "dns/alias"];
    let read = read(&source(&udm), &asked).await.well();
    let wanted: Vec<String> = asked.iter().flat_map(|module| expected(&udm, module)).collect();
    assert_eq!(read.texts(), wanted);
    assert_eq!(
        read.story(),
        [
            "groups/group: 9",
            "9 objects",
            "groups/group done",
            "users/user: 60",
            "60 objects",
            "users/user done",
            "container/ou: 9",
            "9 objects",
            "container/ou done",
            "oxresources/oxresources: 0",
            "oxresources/oxresources done",
            "dns/alias: 2",
            "2 objects",
            "dns/alias done"
        ]
    );
    assert!(read.texts().iter().all(|text| !text.contains("\"_links\"")));
    assert!(read.texts().iter().any(|text| text.contains("\"superordinate\"")));
}

#[tokio::test]
async fn numbers_key_order_and_escapes_stay_as_they_are() {
    let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
    // One for each place where the server puts `_links`.
    for name in ["a", "bb", "ccc"] {
        let text = format!(
            r#"{{"z":1,  "objectType":"my/module","dn":"cn={name},dc=x","f":2.0,"m":-0.0,"e":1E+2,"big":123456789012345678901234567890,"properties":{{"_links":{{"kept":[]}},"u":"\u00fc\/ü","n":null,"a":[]}} , "a":{{}}}}"#
        );
        udm.directory().put(&text).unwrap();
    }
    let read = read(&source(&udm), &["my/module"]).await.well();
    assert_eq!(read.texts(), expected(&udm, "my/module"));
    assert!(read.texts()[0].contains(r#""f":2.0,"m":-0.0,"e":1E+2,"big":123456789012345678901234567890"#));
}

#[tokio::test]
async fn a_pattern_is_expanded_and_no_module_is_read_twice() {
    let udm = stand_in().await;
    let read = read(&source(&udm), &["groups/group", "users/.*", "groups/.*"]).await.well();
    let story = read.story();
    assert!(
        !story.iter().any(|line| line.starts_with("users/self") || line.starts_with("users/passwd")),
        "{story:?}"
    );
    let dns: Vec<_> = read.texts();
    assert_eq!(dns.iter().collect::<HashSet<_>>().len(), dns.len());
    assert_eq!(dns.len(), 9 + USERS as usize);
    let numbers = udm.counters().numbers();
    assert_eq!((numbers.index, numbers.lists["groups/group"]), (1, 1));
}

#[tokio::test]
async fn everything_comes_once_under_its_own_type_although_virtual_modules_show_it_again() {
    let udm = stand_in().await;
    let read = read(&source(&udm), &[".*"]).await.well();
    let mut seen = HashSet::new();
    for (topic, text) in read.objects() {
        let object: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(object["objectType"], topic);
        assert!(seen.insert(object["dn"].as_str().unwrap().to_owned()), "twice: {text}");
    }
    let modules = udm.directory().modules();
    let own = modules.names().filter(|name| modules.listed_types(name) == [(*name).to_owned()]);
    let all: HashSet<String> = own.flat_map(|name| udm.directory().dns(name)).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn the_objects_of_a_virtual_module_come_with_their_own_topic_if_that_was_asked_for() {
    let udm = stand_in().await;
    let read_both = read(&source(&udm), &["computers/computer", "computers/linux"]).await.well();
    assert_eq!(read_both.texts(), expected(&udm, "computers/linux"));
    assert_eq!(read_both.story()[0], "computers/computer: 0");
    assert!(read(&source(&udm), &["computers/computer"]).await.well().objects().is_empty());
}

#[tokio::test]
async fn other_realms_are_passed_over() {
    let udm = stand_in().await;
    let (sender, _receiver) = mpsc::channel(1);
    let topics = [RealmTopic { realm: "other".to_owned(), topic: "users/user".to_owned() }];
    source(&udm).read(&topics, sender.clone()).await.unwrap();
    source(&udm).read(&[], sender).await.unwrap();
    assert!(udm.counters().asked().is_empty());
}

#[tokio::test]
async fn a_huge_group_and_huge_photos_come_whole_whatever_there_is_room_for() {
    // A group of 12 MB as UDM sends it, and photos that are more than there is room for at once.
    let population = Population { users: 40_000, groups: 0, photos_per_mille: 0, ..Population::default() };
    let udm = StandIn::start(Directory::generated(population), Faults::default()).await.unwrap();
    let photo = |n: usize| {
        let photo = "/9j/".repeat(100_000 + n);
        format!(
            r#"{{"dn":"uid=photo{n},dc=x","objectType":"my/photo","properties":{{"jpegPhoto":"{photo}"}}}}"#
        )
    };
    (0..60).for_each(|n| udm.directory().put(&photo(n)).unwrap());
    let read = read(&source(&udm), &["groups/group", "my/photo"]).await.well();
    assert!(read.texts()[0].len() > 2_000_000);
    let wanted: Vec<String> =
        ["groups/group", "my/photo"].iter().flat_map(|module| expected(&udm, module)).collect();
    assert!(read.texts() == wanted, "they are not the same");
}
