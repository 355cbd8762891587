//! A bearer token from a file that somebody else keeps fresh, as Kubernetes does with a projected
//! ServiceAccount token. It is read again before it expires and when the sink answers 401, and never
//! logged.

use std::{
    fs,
    io::ErrorKind,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::HeaderValue;
use serde::Deserialize;

use crate::config::TokenConfig;

/// Read again this long before it expires. Kubernetes renews at 80 % of the lifetime.
const BEFORE_EXPIRY: Duration = Duration::from_secs(60);
/// Read again after this long in any case.
const AGE: Duration = Duration::from_secs(60);

struct Read {
    header: HeaderValue,
    at: Instant,
    expires: Option<SystemTime>,
}

/// The token of one sink.
pub(super) struct Token {
    config: TokenConfig,
    read: Mutex<Option<Read>>,
}

/// What is looked at of a token; whether it is genuine is the sink's business.
#[derive(Deserialize)]
struct Claims {
    exp: Option<u64>,
    #[serde(default)]
    aud: Audience,
}

/// RFC 7519 section 4.1.3: one text, or a list.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
    #[default]
    None,
}

impl Token {
    pub(super) fn new(config: TokenConfig) -> Self {
        Self { config, read: Mutex::new(None) }
    }

    /// The value of `Authorization`; `None` if no token is there and none need be.
    pub(super) fn header(&self, now: SystemTime) -> Result<Option<HeaderValue>, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |read: &&Read| {
            let ends = read.expires.and_then(|expires| expires.checked_sub(BEFORE_EXPIRY));
            read.at.elapsed() < AGE && ends.is_none_or(|ends| now < ends)
        };
        if let Some(read) = read.as_ref().filter(fresh) {
            return Ok(Some(read.header.clone()));
        }
        *read = self.load()?;
        Ok(read.as_ref().map(|read| read.header.clone()))
    }

    /// The sink did not want it: whether there is another one now.
    pub(super) fn refused(&self) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(new) = self.load() else { return false };
        let text = |read: &Option<Read>| read.as_ref().map(|read| read.header.clone());
        let changed = text(&read) != text(&new);
        *read = new;
        changed
    }

    fn load(&self) -> Result<Option<Read>, String> {
        let path = self.config.file.display();
        let text = match fs::read_to_string(&self.config.file) {
            Ok(text) => text,
            Err(error) if self.config.optional && error.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(format!("token file {path}: {error}")),
        };
        let text = text.trim();
        let header = HeaderValue::from_str(&format!("Bearer {text}"));
        let Ok(mut header) = header else {
            return Err(format!("token file {path}: holds no token"));
        };
        header.set_sensitive(true);
        let claims = claims(text);
        if let (Some(wanted), Some(claims)) = (&self.config.audience, &claims)
            && !claims.aud.includes(wanted)
        {
            return Err(format!("token file {path}: the token is not for {wanted:?}"));
        }
        let expires = claims.and_then(|claims| claims.exp).map(Duration::from_secs);
        let expires = expires.and_then(|since| UNIX_EPOCH.checked_add(since));
        Ok(Some(Read { header, at: Instant::now(), expires }))
    }
}

impl Audience {
    fn includes(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == wanted),
            Self::None => false,
        }
    }
}

/// Of a JSON Web Token; other tokens are opaque.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn token(file: PathBuf) -> Token {
        let audience = Some("broker".to_owned());
        Token::new(TokenConfig { file, optional: false, audience })
    }

    fn jwt(exp: u64, aud: &str) -> String {
        let payload = format!(r#"{{"exp":{exp},"aud":{aud}}}"#);
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_read_again_before_it_expires_and_when_it_was_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, format!("{}\n", jwt(1_000, r#""broker""#))).unwrap();
        let token = token(file.clone());
        let first = token.header(at(0)).unwrap().unwrap();
        assert!(first.is_sensitive() && first.to_str().unwrap().starts_with("Bearer e30."));
        fs::write(&file, jwt(9_000, r#"["a","broker"]"#)).unwrap();
        assert_eq!(token.header(at(939)).unwrap().unwrap(), first);
        let second = token.header(at(940)).unwrap().unwrap();
        assert_ne!(second, first);
        assert!(!token.refused(), "it is still the same");
        fs::write(&file, jwt(9_001, r#""broker""#)).unwrap();
        assert!(token.refused());
        assert_ne!(token.header(at(941)).unwrap().unwrap(), second);
    }

    #[test]
    fn a_token_for_somebody_else_is_not_sent_and_a_message_never_shows_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, jwt(1_000, r#""other""#)).unwrap();
        let message = token(file.clone()).header(at(0)).unwrap_err();
        assert!(message.contains("is not for \"broker\"") && !message.contains("e30"), "{message}");
        fs::write(&file, "secret\u{1}").unwrap();
        let message = token(file).header(at(0)).unwrap_err();
        assert!(message.contains("holds no token") && !message.contains("secret"), "{message}");
    }

    #[test]
    fn a_missing_file_matters_only_if_it_was_asked_for() {
        let missing = |optional| {
            let file = "/nowhere/token".into();
            Token::new(TokenConfig { file, optional, audience: None }).header(at(0))
        };
        assert_eq!(missing(true), Ok(None));
        assert!(missing(false).unwrap_err().contains("/nowhere/token"));
    }
}
