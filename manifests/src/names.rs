//! Names of the objects of an attempt.

use model::{Incarnation, SubscriptionName};

/// What the names of all our Jobs begin with.
pub const PREFIX: &str = "headstart-prefill-";

/// The one container of the pod.
pub const CONTAINER: &str = "prefill";

/// The volume that holds the task.
pub const TASK_VOLUME: &str = "prefill-task";

/// Where the task is mounted, read-only.
pub const TASK_DIRECTORY: &str = "/etc/headstart/prefill";

/// Key of the ConfigMap and name of the file.
pub const TASK_FILE: &str = "task.json";

/// Environment variable that points at the file.
pub const TASK_ENV: &str = "PREFILL_TASK";

/// Environment variable with the pod's name: the holder of the fence.
pub const POD_NAME_ENV: &str = "POD_NAME";

/// Longest slug of a subscription's name: 63 (a Job's name becomes a label value of its pods) less the prefix, the
/// incarnation and an attempt of ten digits, so that all attempts of a subscription share one slug.
pub const LONGEST_SLUG: usize = 63 - PREFIX.len() - "-01234567".len() - "-4294967295".len();

/// Name of an attempt's Job, and of its ConfigMap: `headstart-prefill-<slug>-<8 hex of the incarnation>-<attempt>`.
///
/// The incarnation keeps apart two subscriptions whose names have one slug.
#[must_use]
pub fn job_name(subscription: &SubscriptionName, incarnation: Incarnation, attempt: u32) -> String {
    format!("{PREFIX}{}-{}-{attempt}", slug(subscription), incarnation.short())
}

/// The name in the letters of a DNS label: lower case, other characters `-`, cut to [`LONGEST_SLUG`].
fn slug(subscription: &SubscriptionName) -> String {
    let slug: String = subscription
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(LONGEST_SLUG)
        .collect();
    slug.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn names_are_slugs_with_incarnation_and_attempt() {
        let incarnation = Incarnation(Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0));
        for (subscription, expected) in [
            ("mail", "headstart-prefill-mail-12345678-7"),
            ("Self_Service=1", "headstart-prefill-self-service-1-12345678-7"),
            ("x=", "headstart-prefill-x-12345678-7"),
            ("-", "headstart-prefill--12345678-7"),
            ("a-very-long-name-that-is_=cut", "headstart-prefill-a-very-long-name-that-is-12345678-7"),
        ] {
            let name = job_name(&subscription.parse().unwrap(), incarnation, 7);
            assert_eq!(name, expected);
        }
    }

    proptest! {
        /// RFC 1123 label, as the API server wants a Job's name that becomes a label of its pods.
        #[test]
        fn any_name_gives_a_dns_label(
            subscription in "[A-Za-z0-9_=-]{1,128}",
            incarnation in any::<u128>(),
            attempt in any::<u32>(),
        ) {
            let Ok(subscription) = subscription.parse() else { return Ok(()) };
            let name = job_name(&subscription, Incarnation(Uuid::from_u128(incarnation)), attempt);
            prop_assert!(name.len() <= 63, "{name}");
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
            prop_assert!(name.ends_with(|c: char| c.is_ascii_digit()), "{name}");
        }
    }
}
