//! The stand-in as its clients see it: over a socket, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::Value;
use stand_in_udm::{
    Credentials, Directory, Effect, Faults, On, Population, Rule, Settings, StandIn, quote_dn,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The list that a prefill asks for.
const CHEAP: &str = "?scope=sub&hidden=true&opened=0&properties=dn";

struct Answer {
    status: u16,
    head: String,
    body: String,
    /// Did the body end as its head said?
    whole: bool,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn entries(&self) -> Vec<String> {
        let json = self.json();
        let entries = json["_embedded"]["udm:object"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["dn"].as_str().unwrap().to_owned()).collect()
    }
}

/// Sends a request and reads until the server closes.
async fn send(udm: &StandIn, request: String) -> Answer {
    let mut socket = TcpStream::connect(udm.address()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // A cut connection may end in an error: what came before counts.
    _ = socket.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, raw) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let (body, whole) = if chunked { unchunked(raw) } else { (raw.to_owned(), true) };
    Answer { status, head: head.to_owned(), body, whole }
}

fn unchunked(mut raw: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, rest)) = raw.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        body.push_str(&rest[..size.min(rest.len())]);
        raw = rest.get(size + 2..).unwrap_or("");
    }
    (body, false)
}

fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: udm.test:9979\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}

fn basic(username: &str, password: &str) -> String {
    let plain = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    format!("Authorization: Basic {plain}")
}

async fn get(udm: &StandIn, path: &str) -> Answer {
    let headers = [&*basic("cn=admin", "univention"), "Accept: application/json"];
    send(udm, request("GET", &format!("/univention/udm/{path}"), &headers, "")).await
}

async fn small() -> StandIn {
    let population = Population { users: 12, groups: 3, photos_per_mille: 0, ..Population::default() };
    StandIn::start(Directory::generated(population), Faults::default()).await.unwrap()
}

#[tokio::test]
async fn the_index_names_all_modules_sorted() {
    let udm = small().await;
    let index = get(&udm, "").await;
    let json = index.json();
    let types = json["_links"]["udm:object-types"].as_array().unwrap();
    let names: Vec<_> = types.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted());
    for name in ["users/user", "users/self", "oxmail/oxcontext", "computers/computer"] {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(types[0]["href"], format!("http://udm.test:9979/univention/udm/{}/", names[0]));
    let users = get(&udm, "users/").await.json();
    assert!(users["_links"]["udm:object-types"].as_array().unwrap().len() < 10);

    udm.faults().update(|faults| faults.unloaded_modules = ["oxmail/oxcontext".to_owned()].into());
    assert!(!get(&udm, "").await.body.contains("oxmail/oxcontext"));
    assert_eq!(get(&udm, "oxmail/oxcontext/?opened=0").await.status, 404);
    udm.faults().set(Faults::default());
    assert!(get(&udm, "").await.body.contains("oxmail/oxcontext"));
}

#[tokio::test]
async fn a_list_needs_a_query_and_an_empty_one_has_no_list() {
    let udm = small().await;
    let without = get(&udm, "users/user/").await;
    assert_eq!((without.status, without.json().get("results")), (200, None));

    let cheap = get(&udm, &format!("users/user/{CHEAP}")).await.json();
    assert_eq!(cheap["results"], 12);
    let entry = &cheap["_embedded"]["udm:object"][0];
    assert_eq!(entry["properties"], serde_json::json!({}));
    assert!(entry.get("options").is_none() && entry.get("policies").is_none());
    assert!(
        entry["uri"].as_str().unwrap().starts_with("http://udm.test:9979/univention/udm/users/user/uid%3D")
    );

    let whole = get(&udm, "users/user/?scope=sub").await.json();
    assert!(whole["_embedded"]["udm:object"][0]["properties"]["username"].is_string());

    let none = get(&udm, &format!("oxresources/oxresources/{CHEAP}")).await.json();
    assert_eq!(none["results"], 0);
    assert!(none["_embedded"].get("udm:object").is_none());
    assert_eq!(get(&udm, &format!("no/such/{CHEAP}")).await.status, 404);
    assert_eq!(get(&udm, &format!("users/self/{CHEAP}")).await.status, 403);
    assert_eq!(get(&udm, "users/user/?filter=x").await.status, 422);
    assert_eq!(get(&udm, "users/user/?nosuch=x").await.status, 422);
}

#[tokio::test]
async fn lists_are_cut_to_a_place() {
    let udm = small().await;
    let base = udm.directory().base().to_owned();
    let below = quote_dn(&format!("cn=groups,{base}")).replace('/', "%2F");
    let groups = get(&udm, &format!("groups/group/?opened=0&position={below}&scope=one")).await;
    assert_eq!(groups.entries().len(), 4);
    assert_eq!(
        get(&udm, &format!("groups/group/?opened=0&position={}&scope=one", quote_dn(&base))).await.json()["results"],
        0
    );
    assert_eq!(get(&udm, "groups/group/?opened=0&position=cn%3Dnowhere").await.status, 422);
    let data = |query: &str| format!("settings/data/?opened=0{query}");
    assert_eq!(get(&udm, &data("")).await.json()["results"], 1);
    assert_eq!(get(&udm, &data("&hidden=false")).await.json()["results"], 0);
}

#[tokio::test]
async fn a_page_that_is_read_again_is_empty() {
    let udm = small().await;
    let page =
        async |page: u32| get(&udm, &format!("users/user/?opened=0&limit=5&page={page}")).await.entries();
    let all = udm.directory().dns("users/user");
    assert_eq!(page(1).await, all[..5]);
    assert_eq!(page(2).await, all[5..10]);
    assert!(page(2).await.is_empty(), "the trap");
    assert_eq!(page(3).await, all[10..]);
    let computers = get(&udm, "computers/computer/?opened=0&limit=1&page=1").await;
    assert_eq!(computers.entries().len(), 6, "virtual modules ignore the limit");
}

#[tokio::test]
async fn a_virtual_module_shows_the_objects_of_others() {
    let udm = small().await;
    let json = get(&udm, &format!("dns/dns/{CHEAP}")).await.json();
    let entries = json["_embedded"]["udm:object"].as_array().unwrap();
    assert!(
        entries
            .iter()
            .all(|e| e["objectType"] != "dns/dns" && !e["uri"].as_str().unwrap().contains("dns/dns"))
    );
    assert!(entries.iter().any(|e| e["superordinate"].is_string()), "aliases hang under their zone");
}

#[tokio::test]
async fn each_object_is_got_by_its_address_and_has_links() {
    let udm = small().await;
    for module in ["users/user", "groups/group", "container/ou"] {
        for dn in udm.directory().dns(module) {
            let answer = get(&udm, &format!("{module}/{}", quote_dn(&dn))).await;
            assert_eq!(answer.status, 200, "{dn}");
            let json = answer.json();
            assert_eq!((json["dn"].as_str(), json["objectType"].as_str()), (Some(&*dn), Some(module)));
            assert!(json["_links"]["self"].is_array() && json["uri"].is_string());
            assert!(answer.header("etag").is_some() && answer.header("link").is_some());
        }
    }
    let group = format!("cn=Domain Users,cn=groups,{}", udm.directory().base());
    let answer = get(&udm, &format!("groups/group/{}", quote_dn(&group))).await;
    assert_eq!(answer.json()["_links"]["udm:object/property/reference/users"].as_array().unwrap().len(), 12);
    assert_eq!(
        get(&udm, &format!("users/user/{}", quote_dn(&group))).await.status,
        400,
        "type and DN must fit"
    );

    let typed = get(&udm, &format!("object/{}", quote_dn(&group))).await;
    assert_eq!(typed.status, 301);
    assert!(typed.header("location").unwrap().contains("/groups/group/"));
    assert_eq!(get(&udm, "ldap/base/").await.status, 301);
}

#[tokio::test]
async fn links_name_the_host_that_was_asked_or_another() {
    let udm = small().await;
    let forwarded = ["X-Forwarded-Host: portal.example.org", "X-Forwarded-Proto: https"];
    let headers = [&*basic("cn=admin", "univention"), "Accept: application/json", forwarded[0], forwarded[1]];
    let answer = send(&udm, request("GET", "/univention/udm/", &headers, "")).await;
    assert!(answer.body.contains("https://portal.example.org/univention/udm/users/user/"));
    udm.faults().update(|faults| faults.link_base = Some("http://foreign:1/udm-prefix".to_owned()));
    assert!(get(&udm, "").await.body.contains("http://foreign:1/udm-prefix/udm/users/user/"));
}

#[tokio::test]
async fn who_asks_wrongly_is_refused() {
    let udm = small().await;
    let (right, wrong) = (basic("cn=admin", "univention"), basic("cn=admin", "guess"));
    let json = "Accept: application/json";
    for (headers, body, status) in [
        (vec![json], "", 401),
        (vec![&*wrong, json], "", 401),
        (vec!["Authorization: Basic !", json], "", 400),
        (vec![&*right], "", 406),
        (vec![&*right, "Accept: text/html"], "", 406),
        (vec![&*right, "Accept: */*"], "", 406),
        (vec![&*right, json], "{}", 400),
        (vec![&*right, "Accept: application/hal+json"], "", 200),
    ] {
        let answer = send(&udm, request("GET", "/univention/udm/", &headers, body)).await;
        assert_eq!(answer.status, status, "{headers:?}");
        if status == 401 {
            assert_eq!(answer.body, "");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Basic realm="));
        }
    }
    udm.set_credentials(Credentials { password: "new".to_owned(), ..Credentials::default() });
    assert_eq!(get(&udm, "").await.status, 401, "the password was changed");
    assert!(udm.counters().asked().iter().all(|asked| !format!("{asked:?}").contains("univention\"")));
}

#[tokio::test]
async fn whole_objects_hold_everybody_up() {
    let settings = Settings { opened_per_object: Duration::from_millis(40), ..Settings::default() };
    let population = Population { users: 10, ..Population::default() };
    let udm =
        StandIn::start_with(settings, Directory::generated(population), Faults::default()).await.unwrap();
    let list = async {
        let started = Instant::now();
        assert_eq!(get(&udm, "users/user/?scope=sub").await.status, 200);
        started.elapsed()
    };
    let index = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        assert_eq!(get(&udm, "").await.status, 200);
        started.elapsed()
    };
    let (list, index) = tokio::join!(list, index);
    assert!(list >= Duration::from_millis(400), "{list:?}");
    assert!(index >= Duration::from_millis(200), "waits for the list: {index:?}");
}

#[tokio::test]
async fn a_list_that_is_too_big_or_too_slow_fails_as_a_whole() {
    let settings = Settings { response_timeout: Duration::from_millis(30), ..Settings::default() };
    let population = Population { users: 10, ..Population::default() };
    let faults = Faults { size_limit: Some(9), ..Faults::default() };
    let udm = StandIn::start_with(settings, Directory::generated(population), faults).await.unwrap();
    let refused = get(&udm, &format!("users/user/{CHEAP}")).await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("size limit"));
    udm.faults().set(Faults::default());
    let slow = get(&udm, "users/user/?scope=sub").await;
    assert_eq!((slow.status, slow.header("retry-after")), (503, Some("3")));
    assert!(slow.json().is_string());
}

#[tokio::test]
async fn faults_are_played() {
    let udm = small().await;
    let dn = &udm.directory().dns("users/user")[0];
    let path = format!("users/user/{}", quote_dn(dn));
    let once = |effect| {
        udm.faults().set(Faults { rules: vec![Rule::new(effect).dn(dn).times(1)], ..Faults::default() })
    };

    once(Effect::Status { code: 500 });
    let broken = get(&udm, &path).await;
    assert_eq!(broken.status, 500);
    assert!(broken.json()["error"]["traceback"].is_string());
    assert_eq!(get(&udm, &path).await.status, 200, "once only");

    once(Effect::LdapDown { retry_after: None });
    let down = get(&udm, &path).await;
    assert_eq!((down.status, down.header("retry-after")), (503, Some("15")));
    once(Effect::BackendDown { retry_after: Some("Wed, 21 Oct 2026 07:28:00 GMT".to_owned()) });
    let down = get(&udm, &path).await;
    assert_eq!(down.header("retry-after"), Some("Wed, 21 Oct 2026 07:28:00 GMT"));

    once(Effect::Truncate { bytes: 100 });
    let part = get(&udm, &path).await;
    assert_eq!((part.body.len(), part.whole), (100, true));
    once(Effect::Cut { bytes: 100 });
    let part = get(&udm, &path).await;
    assert_eq!((part.body.len(), part.whole), (100, false));
    once(Effect::Redirect { to: "http://elsewhere:1".to_owned() });
    assert_eq!(
        get(&udm, &path).await.header("location"),
        Some(&*format!("http://elsewhere:1/univention/udm/{path}"))
    );

    once(Effect::Hang);
    let hanging = tokio::time::timeout(Duration::from_millis(200), get(&udm, &path)).await;
    assert!(hanging.is_err());

    once(Effect::Vanish);
    assert_eq!(get(&udm, &path).await.status, 404);
    assert_eq!(udm.directory().count("users/user"), 11);

    udm.faults()
        .set(Faults { rules: vec![Rule::new(Effect::VanishAfter).on(On::List)], ..Faults::default() });
    assert_eq!(get(&udm, &format!("groups/group/{CHEAP}")).await.entries().len(), 4);
    assert_eq!(udm.directory().count("groups/group"), 0);
}

#[tokio::test]
async fn it_is_driven_over_http() {
    let udm = small().await;
    let control = async |method: &str, path: &str, body: &str| {
        let answer = send(&udm, request(method, &format!("/control/{path}"), &[], body)).await;
        (answer.status, answer.body)
    };
    assert_eq!(control("GET", "health", "").await, (200, "ok".to_owned()));
    let text = r#"{"dn":"cn=new,dc=x",  "objectType": "my/module", "n": 2.0}"#;
    assert_eq!(control("PUT", "objects", text).await.0, 204);
    assert_eq!(control("PUT", "objects", "[]").await.0, 400);
    assert_eq!(control("GET", "objects?dn=cn%3Dnew%2Cdc%3Dx", "").await, (200, text.to_owned()));
    assert!(get(&udm, "").await.body.contains("my/module"), "its module is there too");
    assert_eq!(
        control("POST", "objects/rename", r#"{"dn":"cn=new,dc=x","to":"cn=other,dc=x"}"#).await.0,
        204
    );
    assert_eq!(control("GET", "objects?module=my/module", "").await.1, r#"["cn=other,dc=x"]"#);
    assert_eq!(control("DELETE", "objects?dn=cn%3Dother%2Cdc%3Dx", "").await.0, 204);
    assert_eq!(control("DELETE", "objects?dn=cn%3Dother%2Cdc%3Dx", "").await.0, 404);

    assert_eq!(
        control("PUT", "faults", r#"{"rules": [{"on": "index", "effect": {"status": {"code": 500}}}]}"#)
            .await
            .0,
        204
    );
    assert_eq!(get(&udm, "").await.status, 500);
    assert_eq!(control("PUT", "faults", r#"{"unknown": 1}"#).await.0, 422);
    assert_eq!(control("PUT", "faults", "{}").await.0, 204);
    assert_eq!(control("PUT", "credentials", r#"{"username": "a", "password": "b"}"#).await.0, 204);
    assert_eq!(get(&udm, "").await.status, 401);
    let numbers: Value = serde_json::from_str(&control("GET", "counters", "").await.1).unwrap();
    assert_eq!(numbers["index"], 2);
    assert_eq!(numbers["statuses"]["401"], 1);
}

#[tokio::test]
async fn it_ends_when_it_is_dropped_and_can_start_at_the_same_address() {
    let udm = small().await;
    udm.faults().add(Rule::new(Effect::Hang).on(On::List));
    let address = udm.address();
    let mut hanging = TcpStream::connect(address).await.unwrap();
    let headers = [&*basic("cn=admin", "univention"), "Accept: application/json"];
    let list = request("GET", "/univention/udm/users/user/?opened=0", &headers, "");
    hanging.write_all(list.as_bytes()).await.unwrap();
    while udm.counters().numbers().lists.is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(5), udm.stop()).await.expect("what hangs is cut").unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    let settings = Settings { listen: address, ..Settings::default() };
    let again = StandIn::start_with(settings, Directory::empty(), Faults::default()).await.unwrap();
    assert_eq!(get(&again, "").await.status, 200);
}
