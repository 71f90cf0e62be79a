//! A consumer whose prefill has failed waits for nothing, and is told so with what it reads.

use axum::http::{HeaderName, HeaderValue};
use model::{PrefillState, SubscriptionName};

use crate::state::App;

/// Tells a consumer that it waits for nothing: `failed; reason="…"`.
pub(crate) const PREFILL_STATUS: HeaderName = HeaderName::from_static("prefill-status");

/// Why the prefill of a subscription has failed, as far as this replica knows; `None`: it has not.
pub(crate) fn failed_prefill(app: &App, name: &SubscriptionName) -> Option<&'static str> {
    let entry = app.view.get(name.as_str())?;
    let prefill = &entry.value.prefill;
    let reason = prefill.reason.map_or("unknown", model::Reason::as_str);
    (prefill.state == PrefillState::Failed).then_some(reason)
}

/// The header that tells the reason.
pub(crate) fn prefill_status(reason: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("failed; reason=\"{reason}\"")).ok()
}
