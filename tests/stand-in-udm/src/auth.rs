//! Who may ask.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What the server accepts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Credentials {
    /// User of Basic authentication.
    pub username: String,
    /// Its password.
    pub password: String,
    /// A bearer token that is accepted besides.
    #[serde(default)]
    pub token: Option<String>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { username: "cn=admin".to_owned(), password: "univention".to_owned(), token: None }
    }
}

/// The outcome of looking at a request's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Welcome,
    /// 401
    Unknown,
    /// 400
    Malformed,
}

/// Looks at the `Authorization` header.
pub fn check(headers: &HeaderMap, accepted: &Credentials) -> Verdict {
    let Some(header) = headers.get(AUTHORIZATION) else { return Verdict::Unknown };
    let Some((scheme, value)) = header.to_str().ok().and_then(|h| h.split_once(' ')) else {
        return Verdict::Malformed;
    };
    let known = match scheme.to_ascii_lowercase().as_str() {
        "basic" => {
            let plain = STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let Some(plain) = plain else { return Verdict::Malformed };
            let Some((username, password)) = plain.split_once(':') else { return Verdict::Malformed };
            username == accepted.username && password == accepted.password
        }
        "bearer" => accepted.token.as_deref() == Some(value.trim()),
        _ => return Verdict::Malformed,
    };
    if known { Verdict::Welcome } else { Verdict::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_checked() {
        let accepted = Credentials { token: Some("t0k".to_owned()), ..Credentials::default() };
        let basic = |plain: &str| format!("Basic {}", STANDARD.encode(plain));
        for (header, verdict) in [
            (basic("cn=admin:univention"), Verdict::Welcome),
            (basic("cn=admin:wrong"), Verdict::Unknown),
            (basic("nobody:univention"), Verdict::Unknown),
            (basic("nocolon"), Verdict::Malformed),
            ("Basic ###".to_owned(), Verdict::Malformed),
            ("Bearer t0k".to_owned(), Verdict::Welcome),
            ("Bearer other".to_owned(), Verdict::Unknown),
            ("Digest x".to_owned(), Verdict::Malformed),
        ] {
            let headers = [(AUTHORIZATION, header.parse().unwrap())].into_iter().collect();
            assert_eq!(check(&headers, &accepted), verdict, "{header}");
        }
        assert_eq!(check(&HeaderMap::new(), &accepted), Verdict::Unknown);
    }
}
