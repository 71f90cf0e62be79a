//! Logins that fail too often, and whom that does not concern.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use support::{ADMIN, Answer, PREFILL, Server, answer, described};

/// Requests from one of the addresses of loopback.
struct Origin<'a> {
    server: &'a Server,
    client: Client,
}

impl<'a> Origin<'a> {
    fn new(server: &'a Server, address: &str) -> Self {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(60));
        Self { server, client: client.local_address(Some(address.parse().unwrap())).build().unwrap() }
    }

    async fn get(&self, path: &str, (user, password): (&str, &str)) -> Answer {
        let request = self.client.get(self.server.url(path)).basic_auth(user, Some(password));
        // Nobody chooses the address under which they are known.
        let request = request.header("x-forwarded-for", "10.0.0.2");
        described(&Method::GET, path, answer(request).await)
    }

    /// Wrong passwords until it is too much; how many it took.
    async fn guess(&self, path: &str, user: &str) -> usize {
        for n in 0..100 {
            let refused = self.get(path, (user, &format!("guess{n}"))).await;
            if refused.status == StatusCode::TOO_MANY_REQUESTS {
                let wait: u64 = refused.header("retry-after").parse().unwrap();
                assert!((1..=60).contains(&wait), "{refused:?}");
                assert!(refused.json()["detail"].as_str().unwrap().contains("failed"), "{refused:?}");
                return n;
            }
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
        }
        panic!("a hundred guesses")
    }
}

const SHOW: &str = "/v1/subscriptions/mail";
const NEXT: &str = "/v1/subscriptions/mail/messages/next?timeout=0.1";
const MAIL: (&str, &str) = ("mail", "pw");

#[tokio::test]
async fn a_right_password_is_never_locked_out() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let (attacker, consumer) = (Origin::new(&server, "127.0.0.2"), Origin::new(&server, "127.0.0.3"));
    assert_eq!(attacker.guess(NEXT, "mail").await, 10);
    assert_eq!(consumer.get(NEXT, MAIL).await.status, StatusCode::OK, "from elsewhere");
    // From the same address, such as behind the same proxy, for the first time and again.
    for path in [NEXT, SHOW] {
        assert_eq!(attacker.get(path, MAIL).await.status, StatusCode::OK);
    }
    let again = attacker.get(NEXT, ("mail", "wrong")).await;
    assert_eq!(
        again.status,
        StatusCode::TOO_MANY_REQUESTS,
        "the right one in between does not help to guess"
    );
    for path in ["/v1/subscriptions", SHOW] {
        attacker.guess(path, "admin").await;
        assert_eq!(attacker.get("/v1/subscriptions", ADMIN).await.status, StatusCode::OK);
    }
    let text = answer(server.client.get(server.url("/metrics"))).await.text;
    for reason in ["wrong", "throttled"] {
        let figure = format!("headstart_api_logins_refused_total{{reason=\"{reason}\"}} ");
        assert!(text.contains(&figure), "{text}");
    }
}

#[tokio::test]
async fn guesses_at_once_and_guesses_that_hang_up_count_as_others() {
    let server = Server::start().await;
    for name in ["mail", "chat"] {
        server.register(name, &["users/user"], false).await;
    }
    let attacker = Origin::new(&server, "127.0.0.2");
    let passwords: Vec<String> = (0..60).map(|n| format!("guess{n}")).collect();
    let guesses = passwords.iter().map(|password| attacker.get(NEXT, ("mail", password)));
    let guesses = futures::future::join_all(guesses).await;
    let wrong = guesses.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED).count();
    assert!(wrong <= 10, "{wrong}");
    for refused in guesses.iter().filter(|answer| answer.status != StatusCode::UNAUTHORIZED) {
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 60, "{refused:?}");
    }
    assert_eq!(attacker.get(NEXT, MAIL).await.status, StatusCode::OK);

    for _ in 0..20 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.4:0".parse().unwrap()).unwrap();
        let address = server.url("").trim_start_matches("http://").parse().unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        // chat:x
        let request =
            "GET /v1/subscriptions/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Y2hhdDp4\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    }
    let other = Origin::new(&server, "127.0.0.4");
    let guess = async || other.get("/v1/subscriptions/chat", ("chat", "x")).await.status;
    let refused = |status: &StatusCode| *status == StatusCode::TOO_MANY_REQUESTS;
    broker::testing::eventually("the throttle to close", Duration::from_secs(20), guess, refused).await;
}

#[tokio::test]
async fn who_asks_for_what_is_not_theirs_has_not_failed_to_log_in() {
    let server = Server::start().await;
    for name in ["mail", "chat"] {
        server.register(name, &["users/user"], false).await;
    }
    let origin = Origin::new(&server, "127.0.0.2");
    for path in ["/v1/subscriptions/chat", "/v1/subscriptions"] {
        for _ in 0..15 {
            assert_eq!(origin.get(path, MAIL).await.status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    assert_eq!(origin.get("/v1/subscriptions", PREFILL).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(origin.get(SHOW, MAIL).await.status, StatusCode::OK);
    assert_eq!(origin.guess(SHOW, "mail").await, 10);
}

#[tokio::test]
async fn what_failed_before_a_registration_is_forgotten() {
    let server = Server::start().await;
    let consumer = Origin::new(&server, "127.0.0.2");
    assert_eq!(consumer.guess(NEXT, "mail").await, 10);
    server.register("mail", &["users/user"], false).await;
    assert_eq!(consumer.get(NEXT, MAIL).await.status, StatusCode::OK);
    assert_eq!(consumer.guess(NEXT, "mail").await, 10);
    // Users of the API's own are no names of subscriptions.
    for name in ["admin", "udm", "prefill"] {
        let body = support::registration(name, &["users/user"], false);
        let refused = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.json()["errors"][0]["loc"], serde_json::json!(["body", "name"]));
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_the_address_that_counts() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let mut config = support::config(None);
    config.bounds.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let shutdown = tokio_util::sync::CancellationToken::new();
    let base = support::replica(&server.broker, config, shutdown.clone()).await;
    let ask = async |address: &str| {
        let request = server.client.get(format!("{base}{SHOW}")).basic_auth("mail", Some("wrong"));
        answer(request.header("x-forwarded-for", format!("203.0.113.1, {address}"))).await.status
    };
    for _ in 0..10 {
        assert_eq!(ask("198.51.100.1").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(ask("198.51.100.1").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("198.51.100.2").await, StatusCode::UNAUTHORIZED, "another one");
    shutdown.cancel();
}

#[tokio::test]
async fn invented_names_run_out_too() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let (attacker, consumer) = (Origin::new(&server, "127.0.0.2"), Origin::new(&server, "127.0.0.3"));
    let mut refused = 0;
    // Each costs a hash, which takes longer than it takes to forget one or two of a hundred.
    for n in 0..400 {
        let path = format!("/v1/subscriptions/name{n}");
        let status = attacker.get(&path, (&format!("name{n}"), "x")).await.status;
        assert!([StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&status));
        assert!(n >= 100 || status == StatusCode::UNAUTHORIZED, "{n}");
        refused += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0);
    assert_eq!(attacker.get(NEXT, MAIL).await.status, StatusCode::OK, "a right one from the same address");
    assert_eq!(consumer.get(SHOW, MAIL).await.status, StatusCode::OK, "from elsewhere");
}
