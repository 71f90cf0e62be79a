//! Settings of the UDM source.

use std::time::Duration;

use super::Credentials;

/// How to reach UDM and how hard to press it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the API, with or without the trailing `udm/`, e.g. `http://ums-udm-rest-api:9979/univention/udm/`.
    pub base_url: String,
    /// Who asks.
    pub credentials: Credentials,
    /// Certificates, as PEM, of the only authorities that are trusted for `https`; those of the system if `None`.
    pub ca_pem: Option<Vec<u8>>,
    /// The most objects that are asked for at the same time. How many it is within this limit is found from how long
    /// the answers take.
    pub concurrency_max: usize,
    /// What to do about a requested topic that no module of the directory matches, when it was waited for.
    pub missing_types: MissingTypes,
    /// How long such topics are waited for, all together: extensions are loaded late.
    pub missing_wait: Duration,
    /// What to do about an object that is listed and can't be read.
    pub broken_objects: BrokenObjects,
    /// Does UDM read the LDAP primary, so that an object holds every change whose event was accepted before? False where
    /// it may read a replica, which lags behind.
    pub reads_primary: bool,
    /// How far a replica may lag behind the events.
    pub lag: Duration,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// For one object or the index, all in all.
    pub request_timeout: Duration,
    /// Until a list begins to come. UDM's own gateway gives up after 310 s; so we do just before.
    pub list_timeout: Duration,
    /// Between two pieces of a list.
    pub idle_timeout: Duration,
    /// What to do about requests that fail.
    pub retries: Retries,
    /// An object, without its links, may have so many bytes: a bound on memory, far above what is real (a group of
    /// 200,000 members has 13 MB).
    pub max_object_bytes: usize,
}

impl Config {
    /// The usual settings.
    #[must_use]
    pub fn new(base_url: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            base_url: base_url.into(),
            credentials,
            ca_pem: None,
            concurrency_max: 64,
            missing_types: MissingTypes::default(),
            missing_wait: Duration::from_secs(120),
            broken_objects: BrokenObjects::default(),
            reads_primary: false,
            lag: Duration::ZERO,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(120),
            list_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(60),
            retries: Retries::default(),
            max_object_bytes: 64 << 20,
        }
    }
}

/// Bounds of trying again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Until no request had an answer for so long, UDM, or the directory behind it, is waited for: longer than a node
    /// is drained or a database restored, shorter than an operator's patience with a Job whose next pod tries again
    /// anyway.
    pub away: Duration,
    /// Credentials are wrong if they were refused at once for so long: a Secret that is mounted follows its change
    /// within a minute or two, and a directory that comes back may refuse at first.
    pub refused: Duration,
    /// A 401 that took so long is no refusal: the directory behind UDM is away.
    pub slow_refusal: Duration,
    /// A list that was given up by a gateway after so long is late: UDM still works on it. Less than what gateways wait by
    /// default, from the 30 s of OpenShift's router on.
    pub late: Duration,
    /// Times that a request is sent when its answer is odd: a list of no JSON, or that breaks off.
    pub tries: u32,
    /// Times that a request is sent when its answer is wrong: 500, or an object of no JSON.
    pub tries_if_wrong: u32,
    /// Wait before the second try; doubled each time.
    pub first_wait: Duration,
    /// The longest wait that is ours.
    pub usual_wait_max: Duration,
    /// The longest wait, also if UDM asks for a longer one.
    pub longest_wait: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            away: Duration::from_secs(600),
            refused: Duration::from_secs(180),
            slow_refusal: Duration::from_secs(3),
            late: Duration::from_secs(25),
            tries: 8,
            tries_if_wrong: 3,
            first_wait: Duration::from_millis(500),
            usual_wait_max: Duration::from_secs(15),
            longest_wait: Duration::from_secs(60),
        }
    }
}

/// What to do about a requested topic that no module of the directory matches, when it was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingTypes {
    /// The topic is left out, and named in log, progress and result: consumers ask for more than each directory has.
    #[default]
    Skip,
    /// The attempt fails, and may succeed later.
    Fail,
}

/// What to do about an object that is listed and can't be read: refused or 500 again and again, no answer, or no JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokenObjects {
    /// The object becomes a dead letter, and the attempt goes on: a single birthday that can't be read would keep
    /// everybody from everything.
    #[default]
    SetAside,
    /// The attempt fails and names the object.
    Fail,
}
