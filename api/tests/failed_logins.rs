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
        let request = request.header("x-headstart-peer", "10.0.0.1").header("x-forwarded-for", "10.0.0.2");
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
async fn a_consumer_is_not_locked_out_by_others() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let (attacker, consumer) = (Origin::new(&server, "127.0.0.2"), Origin::new(&server, "127.0.0.3"));
    assert!(attacker.guess(NEXT, "mail").await >= 10);
    let lucky = attacker.get(NEXT, MAIL).await;
    assert_eq!(lucky.status, StatusCode::TOO_MANY_REQUESTS, "a guess that is right is not told");
    assert_eq!(consumer.get(NEXT, MAIL).await.status, StatusCode::OK, "from elsewhere, for the first time");

    // Who guesses from the consumer's own address, such as behind the same proxy, does not lock it out either.
    assert!(consumer.guess(SHOW, "mail").await >= 10);
    for path in [NEXT, SHOW] {
        assert_eq!(consumer.get(path, MAIL).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn roles_are_guarded_alike() {
    let server = Server::start().await;
    let (attacker, admin) = (Origin::new(&server, "127.0.0.2"), Origin::new(&server, "127.0.0.3"));
    for path in ["/v1/subscriptions", SHOW] {
        attacker.guess(path, "admin").await;
        assert_eq!(attacker.get("/v1/subscriptions", ADMIN).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(admin.get("/v1/subscriptions", ADMIN).await.status, StatusCode::OK);
    assert!(admin.guess("/v1/subscriptions", "admin").await >= 9);
    assert_eq!(admin.get("/v1/subscriptions", ADMIN).await.status, StatusCode::OK, "known from this address");
    let other_role = attacker.get("/v1/subscriptions", PREFILL).await.status;
    assert_eq!(other_role, StatusCode::UNAUTHORIZED, "another user");
}

#[tokio::test]
async fn invented_names_run_out_too() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let (attacker, consumer) = (Origin::new(&server, "127.0.0.2"), Origin::new(&server, "127.0.0.3"));
    assert_eq!(attacker.get(NEXT, MAIL).await.status, StatusCode::OK);
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
    assert_eq!(attacker.get(NEXT, MAIL).await.status, StatusCode::OK, "known from this address");
    assert_eq!(consumer.get(SHOW, MAIL).await.status, StatusCode::OK, "from elsewhere");
}
