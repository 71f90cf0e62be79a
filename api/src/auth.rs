//! Who calls: HTTP Basic, fixed users and subscriptions.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine, engine::general_purpose::STANDARD};
use broker::{Credentials, RegistryView, StoredCredential};
use model::{Incarnation, Subscription, SubscriptionName, subscription::Lifecycle};
use ring::hmac;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::{
    access::{Access, Caller, LoggedIn},
    error::{ApiError, NO_ACCESS, NOT_AUTHENTICATED, WRONG_CREDENTIALS},
    hashing::Hashing,
    lanes::{Lanes, Turn},
    password,
    roles::KnownRoles,
    throttle::{Admission, Attempt, Counted, Throttle},
};

/// After this time a verified password is compared with the stored hash's revision again: one look at the leader
/// instead of a hash. A changed password takes effect in every replica within this time.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Verified passwords that are remembered, one a subscription.
const REMEMBERED_MAX: usize = 10_000;

/// What the caller presents.
struct Login {
    user: String,
    password: String,
}

/// Knows the fixed users and verifies subscriptions.
pub(crate) struct Auth {
    roles: Arc<KnownRoles>,
    credentials: Credentials,
    view: RegistryView,
    hashing: Hashing,
    /// Only fingerprints under this key, which never leaves the process, are remembered.
    key: hmac::Key,
    /// By subscription. A std lock: nothing awaits under it.
    remembered: Mutex<HashMap<SubscriptionName, Remembered>>,
    /// Failed logins. A std lock: nothing awaits under it.
    throttle: Mutex<Throttle>,
    /// Where those go whose throttle is closed.
    lanes: Lanes,
    /// Users are told apart in it by this, whose key never leaves the process either.
    users: RandomState,
    /// What an unknown user's password is compared with, so that it takes as long as a known one's.
    decoy: String,
    /// After what time at least a wrong one is answered.
    refused_after: Duration,
}

/// A password that was verified.
struct Remembered {
    incarnation: Incarnation,
    /// Revision of the hash that it was verified with.
    revision: u64,
    fingerprint: hmac::Tag,
    looked_at: Instant,
}

/// Reads the header.
fn parse(headers: &HeaderMap) -> Option<Login> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    // Only the first colon separates: passwords may hold more.
    let (user, password) = text.split_once(':')?;
    Some(Login { user: user.to_owned(), password: password.to_owned() })
}

impl Auth {
    pub(crate) fn new(
        roles: Arc<KnownRoles>,
        credentials: Credentials,
        view: RegistryView,
        refused_after: Duration,
    ) -> Self {
        let random = uuid::Uuid::new_v4().into_bytes();
        Self {
            roles,
            credentials,
            view,
            hashing: Hashing::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &[random, uuid::Uuid::new_v4().into_bytes()].concat()),
            remembered: Mutex::default(),
            throttle: Mutex::default(),
            lanes: Lanes::default(),
            users: RandomState::new(),
            decoy: password::hash("decoy").unwrap_or_default(),
            refused_after,
        }
    }

    /// Who calls, if the route lets them in. `name` is the subscription that the path names.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        origin: IpAddr,
        access: Access,
        name: &str,
    ) -> Result<Caller, ApiError> {
        let login = parse(headers).ok_or(NOT_AUTHENTICATED)?;
        let refused = || if access.subscriber() { NO_ACCESS } else { WRONG_CREDENTIALS };
        let role = access.role().filter(|role| self.roles.is_user(&login.user, *role));
        let is_own = access.subscriber() && login.user == name;
        if role.is_none() && !is_own {
            // The password is not looked at, so this is no guess; but it is not free either.
            return match self.throttle().admit_elsewhere(origin, Instant::now()) {
                Admission::Free => Err(refused()),
                Admission::Slow(wait) => Err(too_many_failures(wait)),
            };
        }
        let admitted = self.admit(&login, origin);
        // This costs nothing, so no throttle keeps it out.
        if let Some(role) = role.filter(|role| self.roles.is(&login.user, &login.password, *role)) {
            admitted.give_back();
            return Ok(Caller::Role(role));
        }
        if !is_own {
            return Err(admitted.wrong(refused()));
        }
        let began = Instant::now();
        match self.subscriber(&login, name, &admitted).await {
            Ok(Some(own)) => {
                admitted.give_back();
                Ok(Caller::Subscriber(own))
            }
            Ok(None) => {
                tokio::time::sleep_until(began + self.refused_after).await;
                Err(admitted.wrong(WRONG_CREDENTIALS))
            }
            Err(error) => {
                admitted.give_back();
                Err(error)
            }
        }
    }

    /// The subscription, if the password is right. One that is known costs nothing, whatever the throttle says.
    async fn subscriber(
        &self,
        login: &Login,
        name: &str,
        admitted: &Admitted<'_>,
    ) -> Result<Option<LoggedIn>, ApiError> {
        let name = name.parse::<SubscriptionName>().ok();
        if let Some(name) = &name
            && let Some(own) = self.known(login, name).await?
        {
            return Ok(Some(own));
        }
        let mut turn = admitted.turn().await?;
        // The cache answers for most requests; what it does not know is asked for, once.
        for (fresh, name) in [false, true].into_iter().zip(std::iter::repeat(name.as_ref())) {
            let Some(name) = name else { break };
            let entry = if fresh { self.view.read(name).await? } else { self.view.get(name.as_str()) };
            let Some(entry) = entry.filter(|e| e.value.lifecycle != Lifecycle::Deleting) else { continue };
            let looked_at = Instant::now();
            let Some(stored) = self.stored(name, entry.value.incarnation).await? else { continue };
            if !self.hashing.verify(stored.hash.clone(), &login.password, turn.take()).await? {
                return Ok(None);
            }
            let revision = self.replace_former_hash(&entry.value, &stored, &login.password).await;
            self.remember(&entry.value, revision, login, looked_at);
            return Ok(Some(LoggedIn { entry, revision }));
        }
        // An unknown user is refused after the time that a known one would take.
        self.hashing.verify(self.decoy.clone(), &login.password, turn.take()).await?;
        Ok(None)
    }

    /// The subscription, if this password was verified before and has not changed since.
    async fn known(&self, login: &Login, name: &SubscriptionName) -> Result<Option<LoggedIn>, ApiError> {
        let entry = self.view.get(name.as_str()).filter(|e| e.value.lifecycle != Lifecycle::Deleting);
        let Some(entry) = entry else { return Ok(None) };
        let Some(Known { revision, looked_at }) = self.remembered(&entry.value, login) else {
            return Ok(None);
        };
        if looked_at.elapsed() >= LOOK_AGAIN_AFTER {
            let looked_at = Instant::now();
            let stored = self.stored(name, entry.value.incarnation).await?;
            if stored.is_none_or(|stored| stored.revision != revision) {
                return Ok(None);
            }
            self.remember(&entry.value, revision, login, looked_at);
        }
        Ok(Some(LoggedIn { entry, revision }))
    }

    /// Is the password with which somebody has logged in still the one that counts? Also if there is none any more:
    /// the subscription is gone then, which is noticed elsewhere.
    pub(crate) async fn is_current(&self, own: &LoggedIn) -> Result<bool, broker::Error> {
        let Subscription { name, incarnation, .. } = &own.entry.value;
        let stored = self.stored(name, *incarnation).await?;
        Ok(stored.is_none_or(|stored| stored.revision == own.revision))
    }

    /// The hash that counts for an incarnation; a bare one of the former software counts for any.
    async fn stored(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
    ) -> Result<Option<StoredCredential>, broker::Error> {
        let stored = self.credentials.get(name).await?;
        Ok(stored.filter(|stored| stored.incarnation.is_none_or(|i| i == incarnation)))
    }

    /// Is it the name of one of the fixed users?
    pub(crate) fn is_reserved(&self, name: &str) -> bool {
        self.roles.has_user(name)
    }

    /// A subscription of this name was registered: what failed before it existed was no guess.
    pub(crate) fn registered(&self, name: &SubscriptionName) {
        self.throttle().forget(self.users.hash_one(name.as_str()));
    }

    fn admit<'a>(&'a self, login: &'a Login, origin: IpAddr) -> Admitted<'a> {
        let attempt = Attempt::new(self.users.hash_one(login.user.as_str()), origin);
        let (admission, counted) = self.throttle().admit(&attempt, Instant::now());
        Admitted { auth: self, user: &login.user, attempt, admission, counted }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the stored hash belong to this password?
    pub(crate) async fn verify(&self, hash: String, password: &str) -> Result<bool, ApiError> {
        self.hashing.verify(hash, password, None).await
    }

    /// Hashes a new password.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, ApiError> {
        self.hashing.hash(password).await
    }

    /// A bcrypt hash of the former software becomes one of ours at the first login. Answers the revision that holds
    /// now.
    async fn replace_former_hash(
        &self,
        subscription: &Subscription,
        stored: &StoredCredential,
        password: &str,
    ) -> u64 {
        if !password::is_former(&stored.hash) {
            return stored.revision;
        }
        let Ok(hash) = self.hash(password).await else { return stored.revision };
        let name = &subscription.name;
        match self.credentials.put(name, subscription.incarnation, &hash).await {
            Ok(revision) => revision,
            Err(error) => {
                tracing::warn!(subscription = %name, %error, "a former password hash could not be replaced");
                stored.revision
            }
        }
    }

    fn fingerprint(&self, login: &Login) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(login.user.as_bytes());
        context.update(b":");
        context.update(login.password.as_bytes());
        context.sign()
    }

    /// What is known of this login, if its password was verified before.
    fn remembered(&self, subscription: &Subscription, login: &Login) -> Option<Known> {
        let fingerprint = self.fingerprint(login);
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(&subscription.name)?;
        let same = found.incarnation == subscription.incarnation
            && bool::from(found.fingerprint.as_ref().ct_eq(fingerprint.as_ref()));
        same.then_some(Known { revision: found.revision, looked_at: found.looked_at })
    }

    /// `looked_at`: when the stored hash was asked for. However long the answer or a hash takes, what is changed meanwhile
    /// is seen in time.
    fn remember(&self, subscription: &Subscription, revision: u64, login: &Login, looked_at: Instant) {
        let fingerprint = self.fingerprint(login);
        let incarnation = subscription.incarnation;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            // Only subscriptions that exist get in, so this is rare; it costs one hash each.
            remembered.clear();
        }
        let known = Remembered { incarnation, revision, fingerprint, looked_at };
        remembered.insert(subscription.name.clone(), known);
    }
}

/// A login that is being looked at. It counts as failed until it is given back, also when its client hangs up.
struct Admitted<'a> {
    auth: &'a Auth,
    user: &'a str,
    attempt: Attempt,
    admission: Admission,
    counted: Counted,
}

impl Admitted<'_> {
    /// Before a hash is computed: waits for a turn, if the throttle is closed.
    async fn turn(&self) -> Result<Option<Turn>, ApiError> {
        let Admission::Slow(wait) = self.admission else { return Ok(None) };
        match self.auth.lanes.turn(self.attempt.address).await {
            Some(turn) => Ok(Some(turn)),
            None => {
                self.report();
                Err(too_many_failures(wait))
            }
        }
    }

    /// It was right, or could not be looked at.
    fn give_back(&self) {
        self.auth.throttle().give_back(&self.attempt, self.counted, Instant::now());
    }

    fn wrong(&self, refused: ApiError) -> ApiError {
        self.report();
        match self.admission {
            Admission::Free => refused,
            Admission::Slow(wait) => too_many_failures(wait),
        }
    }

    /// Says so when a throttle has closed. A name that nobody has may be a password in the wrong field.
    fn report(&self) {
        let Some(failures) = self.auth.throttle().closed_now(&self.attempt, Instant::now()) else { return };
        let is_known = self.auth.roles.has_user(self.user) || self.auth.view.get(self.user).is_some();
        let user = if is_known { self.user } else { "(unknown)" };
        tracing::warn!(
            user,
            address = %self.attempt.address,
            failures,
            "logins have failed too often: further ones are looked at one at a time, and answered with 429 if wrong"
        );
    }
}

fn too_many_failures(wait: Duration) -> ApiError {
    let detail =
        "Too many logins of this user, or from this address, have failed: try again later".to_owned();
    ApiError::TooMany { detail, wait }
}

#[derive(Clone, Copy)]
struct Known {
    revision: u64,
    looked_at: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Roles;
    use broker::testing::{NatsServer, ready_subscription};
    use std::sync::atomic::Ordering;
    use tokio_util::sync::CancellationToken;

    fn login(value: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        parse(&headers).map(|l| (l.user, l.password))
    }

    #[test]
    fn headers() {
        let encoded = |text: &str| STANDARD.encode(text);
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login(&format!("Basic {}", encoded("a:b:c"))), pair("a", "b:c"));
        assert_eq!(login(&format!("bAsIc {}", encoded("mail:pässword"))), pair("mail", "pässword"));
        assert_eq!(login(&format!("Basic {}", encoded(":"))), pair("", ""));
        for bad in
            ["Basic", "Basic !!!", "Bearer x", &format!("Basic {}", encoded("nocolon")), "Basic /////w=="]
        {
            assert_eq!(login(bad), None, "{bad}");
        }
    }

    /// The cost of a refusal does not reveal which names exist.
    #[tokio::test]
    async fn an_unknown_user_costs_as_many_hashes_as_a_wrong_password() {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let (s, _) = ready_subscription(&broker, &["users/user"]).await;
        let hash = password::hash("pw").unwrap();
        broker.credentials().put(&s.name, s.incarnation, &hash).await.unwrap();
        let stop = CancellationToken::new();
        let view = broker.registry().view(stop.clone());
        view.synced().await;
        let roles = KnownRoles::read(&Roles::for_tests()).unwrap();
        let auth = Auth::new(roles, broker.credentials(), view, Duration::ZERO);
        let cost = async |user: &str, password: &str, right: bool| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            let before = auth.hashing.begun.load(Ordering::SeqCst);
            let origin = IpAddr::from([127, 0, 0, 1]);
            let called = auth.caller(&headers, origin, Access::AdminOrSubscriber, user).await;
            assert_eq!(called.is_ok(), right, "{user} {password}");
            auth.hashing.begun.load(Ordering::SeqCst) - before
        };
        assert_eq!(cost("mail", "wrong", false).await, 1);
        assert_eq!(cost("nobody", "wrong", false).await, 1);
        assert_eq!(cost("not a name", "wrong", false).await, 1);
        assert_eq!(cost("mail", "pw", true).await, 1);
        assert_eq!(cost("mail", "pw", true).await, 0, "it is remembered");
        // The removal that died half-way, and the end of one.
        let deleting = |s: &Subscription| Some(Subscription { lifecycle: Lifecycle::Deleting, ..s.clone() });
        broker.registry().modify(&s.name, s.incarnation, deleting).await.unwrap();
        assert_eq!(auth.view.read(&s.name).await.unwrap().unwrap().value.lifecycle, Lifecycle::Deleting);
        assert_eq!(cost("mail", "pw", false).await, 1);
        stop.cancel();
    }

    /// Hashes of the former software take longer than ours, so the time would tell names that were taken over.
    #[tokio::test]
    async fn every_refusal_takes_the_same_time_at_least() {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let (s, _) = ready_subscription(&broker, &["users/user"]).await;
        broker.credentials().put(&s.name, s.incarnation, &password::hash("pw").unwrap()).await.unwrap();
        let stop = CancellationToken::new();
        let view = broker.registry().view(stop.clone());
        view.synced().await;
        let least = Duration::from_millis(700);
        let auth =
            Auth::new(KnownRoles::read(&Roles::for_tests()).unwrap(), broker.credentials(), view, least);
        for user in ["mail", "nobody"] {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(format!("{user}:wrong")));
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            let began = Instant::now();
            let origin = IpAddr::from([127, 0, 0, 1]);
            assert!(auth.caller(&headers, origin, Access::Subscriber, user).await.is_err());
            assert!(began.elapsed() >= least, "{user}: {:?}", began.elapsed());
        }
        stop.cancel();
    }

    /// As `docs/explanation/security.md` promises of a password that was changed.
    #[test]
    fn a_verified_password_is_looked_at_again_within_a_second() {
        assert!(LOOK_AGAIN_AFTER <= Duration::from_secs(1), "{LOOK_AGAIN_AFTER:?}");
    }
}
