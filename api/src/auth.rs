//! Who calls: HTTP Basic, fixed users and subscriptions.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine, engine::general_purpose::STANDARD};
use broker::{Credentials, RegistryView, StoredCredential};
use model::{Incarnation, Lifecycle, Subscription, SubscriptionName};
use ring::hmac;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::{
    access::{Access, Caller, LoggedIn},
    error::{ApiError, NO_ACCESS, NOT_AUTHENTICATED, WRONG_CREDENTIALS},
    hashing::Hashing,
    password,
    roles::KnownRoles,
    throttle::{Admission, Attempt, Throttle},
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
    /// Users are told apart in it by this, whose key never leaves the process either.
    users: RandomState,
    /// What an unknown user's password is compared with, so that it takes as long as a known one's.
    decoy: String,
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
    pub(crate) fn new(roles: Arc<KnownRoles>, credentials: Credentials, view: RegistryView) -> Self {
        let random = uuid::Uuid::new_v4().into_bytes();
        Self {
            roles,
            credentials,
            view,
            hashing: Hashing::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &[random, uuid::Uuid::new_v4().into_bytes()].concat()),
            remembered: Mutex::default(),
            throttle: Mutex::default(),
            users: RandomState::new(),
            decoy: password::hash("decoy").unwrap_or_default(),
        }
    }

    /// Who calls, if the route lets them in. `name` is the subscription that the path names.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        access: Access,
        name: &str,
    ) -> Result<Caller, ApiError> {
        let login = parse(headers).ok_or(NOT_AUTHENTICATED)?;
        let admitted = self.admit(&login, peer)?;
        if let Some(role) = access.role()
            && self.roles.is(&login.user, &login.password, role)
        {
            return admitted.right(Caller::Role(role));
        }
        if !access.subscriber() {
            return Err(admitted.wrong(WRONG_CREDENTIALS));
        }
        if login.user != name {
            return Err(admitted.wrong(NO_ACCESS));
        }
        self.verified(&login, name, admitted).await.map(Caller::Subscriber)
    }

    async fn verified(
        &self,
        login: &Login,
        name: &str,
        admitted: Admitted<'_>,
    ) -> Result<LoggedIn, ApiError> {
        let Ok(name) = name.parse::<SubscriptionName>() else {
            return self.refuse(login, admitted).await;
        };
        // The cache answers for most requests; what it does not know is asked for, once.
        for fresh in [false, true] {
            let entry = if fresh { self.view.read(&name).await? } else { self.view.get(name.as_str()) };
            let Some(entry) = entry.filter(|e| e.value.lifecycle != Lifecycle::Deleting) else { continue };
            let known = self.remembered(&entry.value, login);
            if let Some(Known { revision, .. }) = known.filter(|k| k.looked_at.elapsed() < LOOK_AGAIN_AFTER) {
                return admitted.right(LoggedIn { entry, revision });
            }
            let stored = self.credentials.get(&name).await?;
            let Some(stored) = stored.filter(|s| s.incarnation.is_none_or(|i| i == entry.value.incarnation))
            else {
                continue;
            };
            if known.is_some_and(|known| known.revision == stored.revision) {
                self.remember(&entry.value, stored.revision, login);
                return admitted.right(LoggedIn { entry, revision: stored.revision });
            }
            admitted.may_cost()?;
            if self.verify(stored.hash.clone(), &login.password).await? {
                let revision = self.replace_former_hash(&entry.value, &stored, &login.password).await;
                self.remember(&entry.value, revision, login);
                return admitted.right(LoggedIn { entry, revision });
            }
            return Err(admitted.wrong(WRONG_CREDENTIALS));
        }
        self.refuse(login, admitted).await
    }

    /// Refuses an unknown user after the time that a known one would take.
    async fn refuse<T>(&self, login: &Login, admitted: Admitted<'_>) -> Result<T, ApiError> {
        admitted.may_cost()?;
        self.verify(self.decoy.clone(), &login.password).await?;
        Err(admitted.wrong(WRONG_CREDENTIALS))
    }

    /// A login may be looked at, if not too many have failed before it.
    fn admit(&self, login: &Login, peer: IpAddr) -> Result<Admitted<'_>, ApiError> {
        let attempt = Attempt::new(self.users.hash_one(&login.user), peer);
        let throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        match throttle.admission(&attempt, Instant::now()) {
            Admission::Free => Ok(Admitted { throttle: &self.throttle, attempt, or_wait: None }),
            Admission::Cheap(wait) => Ok(Admitted { throttle: &self.throttle, attempt, or_wait: Some(wait) }),
            Admission::Later(wait) => Err(too_many_failures(wait)),
        }
    }

    /// Does the stored hash belong to this password?
    pub(crate) async fn verify(&self, hash: String, password: &str) -> Result<bool, ApiError> {
        self.hashing.verify(hash, password).await
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

    fn remember(&self, subscription: &Subscription, revision: u64, login: &Login) {
        let looked_at = Instant::now();
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

/// A login that is being looked at, and what came of it.
struct Admitted<'a> {
    throttle: &'a Mutex<Throttle>,
    attempt: Attempt,
    /// Too many have failed before it: it must cost nothing, and if it is wrong it was too early.
    or_wait: Option<Duration>,
}

impl Admitted<'_> {
    /// Before a hash is computed.
    fn may_cost(&self) -> Result<(), ApiError> {
        self.or_wait.map_or(Ok(()), |wait| Err(too_many_failures(wait)))
    }

    fn right<T>(self, of: T) -> Result<T, ApiError> {
        self.throttle().succeeded(&self.attempt, Instant::now());
        Ok(of)
    }

    fn wrong(self, error: ApiError) -> ApiError {
        if let Some(wait) = self.or_wait {
            return too_many_failures(wait);
        }
        self.throttle().failed(&self.attempt, Instant::now());
        error
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
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
}
