//! Labels and annotations: what people select with `kubectl -l`, and how the controller finds its objects.
//!
//! Labels are an index, annotations are the truth: a label value can't hold every subscription name.

use std::collections::BTreeMap;

use model::{SubscriptionName, prefill::PrefillTask};

/// `app.kubernetes.io/name`.
pub const NAME: &str = "app.kubernetes.io/name";
/// `app.kubernetes.io/instance`: the Helm release. Two releases may share a namespace.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// `app.kubernetes.io/component`.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// `app.kubernetes.io/part-of`.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// `app.kubernetes.io/managed-by`: objects made at run time carry our name, not Helm's.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// `app.kubernetes.io/version`.
pub const VERSION: &str = "app.kubernetes.io/version";

/// Name of the subscription, or a hash of it (see [`subscription_value`]).
pub const SUBSCRIPTION: &str = "headstart/subscription";
/// First 8 hex digits of the incarnation as a label; the whole UUID as an annotation.
pub const INCARNATION: &str = "headstart/incarnation";
/// Number of the attempt.
pub const ATTEMPT: &str = "headstart/attempt";
/// Round of the prefill.
pub const ROUND: &str = "headstart/round";

/// Annotation: the subscription's name, in full.
pub const SUBSCRIPTION_NAME: &str = "headstart/subscription-name";
/// Annotation: the incarnation's UUID.
pub const INCARNATION_UUID: &str = "headstart/incarnation-uuid";

/// Annotation: when the attempt was asked for, as its entry has it. It is compared, and never read as a time.
pub const ASKED: &str = "headstart/asked";

/// Value of [`COMPONENT`] of all that belongs to an attempt.
pub const COMPONENT_PREFILL: &str = "prefill";
/// Value of [`MANAGED_BY`].
pub const MANAGED_BY_HEADSTART: &str = "headstart";

/// Selects the Jobs, Pods and ConfigMaps of the attempts of one instance.
#[must_use]
pub fn selector(instance: &str) -> String {
    format!("{INSTANCE}={instance},{COMPONENT}={COMPONENT_PREFILL},{MANAGED_BY}={MANAGED_BY_HEADSTART}")
}

/// Selects the objects of one subscription's attempts, of all its incarnations.
#[must_use]
pub fn selector_of_subscription(instance: &str, subscription: &SubscriptionName) -> String {
    format!("{},{SUBSCRIPTION}={}", selector(instance), subscription_value(subscription))
}

/// Longest label value of Kubernetes.
const LONGEST: usize = 63;

/// The label value for a subscription: its name if that is a legal label value (at most 63 characters, it begins and
/// ends with a letter or digit and has no `=`), else `hash-` and 16 hex digits. Two names may share a value; annotations
/// tell them apart.
#[must_use]
pub fn subscription_value(subscription: &SubscriptionName) -> String {
    let name = subscription.as_str();
    let letter = |c: char| c.is_ascii_alphanumeric();
    let legal =
        name.len() <= LONGEST && !name.contains('=') && name.starts_with(letter) && name.ends_with(letter);
    if legal { name.to_owned() } else { format!("hash-{:016x}", fnv1a(name.as_bytes())) }
}

/// The labels that an attempt's objects are found by.
#[must_use]
pub fn index(instance: &str, task: &PrefillTask) -> BTreeMap<String, String> {
    let mut labels = of_task(&BTreeMap::new(), task);
    labels.insert(INSTANCE.to_owned(), instance.to_owned());
    labels
}

/// The labels of an attempt's objects: those of the template, then ours.
pub(crate) fn of_task(template: &BTreeMap<String, String>, task: &PrefillTask) -> BTreeMap<String, String> {
    let mut labels = template.clone();
    labels.extend([
        (COMPONENT.to_owned(), COMPONENT_PREFILL.to_owned()),
        (MANAGED_BY.to_owned(), MANAGED_BY_HEADSTART.to_owned()),
        (SUBSCRIPTION.to_owned(), subscription_value(&task.subscription)),
        (INCARNATION.to_owned(), task.incarnation.short()),
        (ATTEMPT.to_owned(), task.attempt.to_string()),
        (ROUND.to_owned(), task.round.to_string()),
    ]);
    labels
}

/// The annotations of an attempt's objects: those of the template, then ours.
pub(crate) fn annotations_of_task(
    template: &BTreeMap<String, String>,
    task: &PrefillTask,
) -> BTreeMap<String, String> {
    let mut annotations = template.clone();
    annotations.extend([
        (SUBSCRIPTION_NAME.to_owned(), task.subscription.to_string()),
        (INCARNATION_UUID.to_owned(), task.incarnation.to_string()),
    ]);
    annotations
}

/// FNV-1a, 64 bit: stable over versions of Rust and of Headstart, which the standard library's hasher is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vectors of draft-eastlake-fnv.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn legal_names_are_kept_and_others_hashed() {
        for (name, value) in [
            ("ox-connector", "ox-connector"),
            ("Self_Service", "Self_Service"),
            ("a=b", "hash-e65093190491a193"),
            ("a-", "hash-089bf707b5451593"),
            (&"x".repeat(63), &"x".repeat(63)),
        ] {
            assert_eq!(subscription_value(&name.parse().unwrap()), value);
        }
        for name in ["-a", "_a", "=a", &"x".repeat(64)] {
            assert!(subscription_value(&name.parse().unwrap()).starts_with("hash-"), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_gives_a_legal_label_value(name in "[A-Za-z0-9_=-]{1,128}") {
            let Ok(name) = name.parse() else { return Ok(()) };
            let value = subscription_value(&name);
            prop_assert!((1..=63).contains(&value.len()), "{value}");
            prop_assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{value}");
            prop_assert!(value.starts_with(|c: char| c.is_ascii_alphanumeric()), "{value}");
            prop_assert!(value.ends_with(|c: char| c.is_ascii_alphanumeric()), "{value}");
        }
    }
}
