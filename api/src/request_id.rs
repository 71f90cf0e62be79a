//! The id that every answer carries.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's id if it is a UUID, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given =
        headers.get(REQUEST_ID).filter(|v| v.to_str().is_ok_and(|text| Uuid::try_parse(text).is_ok()));
    given.cloned().unwrap_or_else(|| {
        let id = Uuid::new_v4().simple().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_requests() {
        for (given, kept) in [
            ("0f8fad5b-d9cb-469f-a165-70867728950e", true),
            ("0f8fad5bd9cb469fa16570867728950e", true),
            ("x", false),
        ] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, given.parse().unwrap())]);
            assert_eq!(request_id(&headers) == given, kept, "{given}");
        }
        assert_eq!(request_id(&HeaderMap::new()).len(), 32);
    }
}
