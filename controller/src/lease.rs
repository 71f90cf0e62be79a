//! One controller at a time: a Lease, as client-go's leader election has it (15 s, 10 s, 2 s).
//!
//! A Lease is no fence: for a moment two may think that they lead. The conditional writes make that harmless; the
//! Lease only keeps two from doing the same work, and from counting admissions apart. Whether a holder is alive is
//! judged by our own clock, from the last change that we saw: nobody's clock need be right.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::ConfigMap,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use model::error_chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Error, Metrics};

/// After this time without a change another may take the lease.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long ends.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often a holder renews, and others look.
const EVERY: Duration = Duration::from_secs(2);
/// Longest time that a call may take: 10 s, a pause and a call are over before others may take the lease.
const LIMIT: Duration = Duration::from_secs(2);

/// Which Lease, and who wants it.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of this process, for people; a suffix makes it unique.
    pub holder: String,
    /// Name of the ConfigMap with which the Lease goes away.
    pub owner: Option<String>,
}

/// Waits for the lease, then does `work` while it is held. `work` gets a token that says when to stop.
///
/// # Errors
/// [`Error::LeaseLost`]: somebody else may lead by now, so the process has to end. Otherwise what `work` answers.
///
/// # Cancel safety
/// Dropping the future drops `work`; the lease then runs out.
pub async fn lead<F: Future<Output = Result<(), Error>>>(
    client: Client,
    config: &LeaseConfig,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<(), Error> {
    let mut candidate = Candidate::new(client, config);
    // One that stands by is as ready as it can be: a rollout must not wait for it.
    metrics.ready(true);
    tracing::info!(lease = config.name, "waiting for the lease");
    loop {
        if candidate.try_hold().await {
            break;
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    tracing::info!(lease = config.name, holder = candidate.identity, "this controller leads");
    metrics.ready(false);
    metrics.leads(true);
    let ended = {
        let work = work(shutdown.clone());
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => ended,
            () = candidate.keep() => {
                Err(Error::LeaseLost { name: config.name.clone() })
            }
        }
    };
    metrics.leads(false);
    metrics.ready(false);
    if ended.is_ok() {
        candidate.release().await;
    }
    ended
}

/// What is to be done about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is none: make it.
    Create,
    /// It is free, or its holder has been silent for too long.
    Take,
    /// It is ours.
    Renew,
    /// Another holds it.
    Wait,
}

fn step(me: &str, found: Option<&LeaseSpec>, unchanged_for: Duration) -> Step {
    let Some(spec) = found else { return Step::Create };
    let lasts =
        spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map_or(DURATION, Duration::from_secs);
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == me => Step::Renew,
        None | Some("") => Step::Take,
        Some(_) if unchanged_for >= lasts => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// The lease as we want it.
fn held(me: &str, found: Option<&LeaseSpec>, now: jiff::Timestamp) -> LeaseSpec {
    let mine = found.filter(|spec| spec.holder_identity.as_deref() == Some(me));
    let transitions = found.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: mine.and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if mine.is_some() || found.is_none() {
            transitions
        } else {
            transitions + 1
        }),
        ..LeaseSpec::default()
    }
}

struct Candidate {
    leases: Api<Lease>,
    config_maps: Api<ConfigMap>,
    name: String,
    owner: Option<String>,
    identity: String,
    /// The record as we last saw it change, and when.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    fn new(client: Client, config: &LeaseConfig) -> Self {
        let LeaseConfig { namespace, name, holder, owner } = config;
        // A container that was started again has the pod's name, too.
        let unique = uuid::Uuid::new_v4().simple();
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            name: name.clone(),
            owner: owner.clone(),
            identity: format!("{holder}_{unique}"),
            seen: None,
        }
    }

    /// Returns when the lease is lost, or could not be renewed in time.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            // The time before the call counts: whoever sleeps in it must not think that it leads.
            let began = Instant::now();
            if self.try_hold().await {
                renewed = began;
            } else if renewed.elapsed() >= RENEW_WITHIN || self.is_anothers() {
                return;
            }
        }
    }

    fn is_anothers(&self) -> bool {
        self.seen.as_ref().is_some_and(|(spec, _)| spec.holder_identity.as_deref() != Some(&self.identity))
    }

    /// Takes or renews the lease if that may be. False: another holds it, or nobody knows.
    async fn try_hold(&mut self) -> bool {
        match tokio::time::timeout(LIMIT, self.hold()).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, error = %error_chain(&error), "the lease could not be read or written");
                false
            }
            Err(_) => {
                tracing::warn!(lease = self.name, "Kubernetes did not answer in time about the lease");
                false
            }
        }
    }

    async fn hold(&mut self) -> Result<bool, kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        let spec = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let unchanged_for = self.note(spec.as_ref());
        let next = held(&self.identity, spec.as_ref(), jiff::Timestamp::now());
        let step = step(&self.identity, spec.as_ref(), unchanged_for);
        let taken = step == Step::Take;
        let written = match (step, found) {
            (Step::Wait, _) => return Ok(false),
            (Step::Take | Step::Renew, Some(lease)) => {
                // With the resourceVersion that was read: whoever is slower gets 409.
                let mut lease = Lease { spec: Some(next.clone()), ..lease };
                let former = lease.metadata.owner_references.clone();
                // One of a former version, which had none; and what it belonged to may have been made anew.
                if taken {
                    lease.metadata.owner_references = self.owner().await?.map(|owner| vec![owner]);
                }
                match self.leases.replace(&self.name, &PostParams::default(), &lease).await {
                    // OpenShift lets only those change owners who may delete the object. It is held all the same, and
                    // stays when the release is uninstalled.
                    Err(kube::Error::Api(status))
                        if status.code == 403 && lease.metadata.owner_references != former =>
                    {
                        lease.metadata.owner_references = former;
                        self.leases.replace(&self.name, &PostParams::default(), &lease).await
                    }
                    written => written,
                }
            }
            _ => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    owner_references: self.owner().await?.map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(next.clone()) };
                self.leases.create(&PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => {
                self.note(Some(&next));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn owner(&self) -> Result<Option<OwnerReference>, kube::Error> {
        let Some(name) = &self.owner else { return Ok(None) };
        Ok(self.config_maps.get_opt(name).await?.as_ref().and_then(manifests::owner))
    }

    /// Notes what was seen, and answers for how long it has not changed.
    fn note(&mut self, spec: Option<&LeaseSpec>) -> Duration {
        match (&self.seen, spec) {
            (Some((known, since)), Some(spec)) if known == spec => since.elapsed(),
            (_, spec) => {
                self.seen = spec.map(|spec| (spec.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Gives it back, so that the next one need not wait. If that fails, it runs out.
    async fn release(&mut self) {
        let release = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let Some(spec) = &mut lease.spec else { return Ok(()) };
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
            self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
        };
        match tokio::time::timeout(LIMIT, release).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "the lease is given back"),
            Ok(Err(error)) => {
                tracing::debug!(error = %error_chain(&error), "the lease could not be given back")
            }
            Err(_) => tracing::debug!("the lease could not be given back in time"),
        }
    }
}

#[cfg(test)]
mod tests;
