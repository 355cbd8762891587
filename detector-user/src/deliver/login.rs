//! Who the agent is to a stream's servers: the files of its config, each named by its field. Secrets are
//! read when a connection is made and not kept, so that a changed one is used from the next one on.

use std::{fs, path::Path};

use super::sink::TargetError;
use crate::config::{Login, StreamConfig};

/// What the file holds, and its end of line not.
pub(super) fn secret(field: &'static str, path: &Path) -> Result<String, TargetError> {
    let text = read(field, path)?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        let what = format!("{field} {}", path.display());
        return Err(TargetError::Certificate { what, expected: "a secret; the file is empty" });
    }
    Ok(secret.to_owned())
}

pub(super) fn read(field: &'static str, path: &Path) -> Result<String, TargetError> {
    fs::read_to_string(path).map_err(|error| TargetError::ReadField {
        field,
        path: path.to_owned(),
        error,
    })
}

/// The libraries read certificates themselves, and know no fields.
pub(super) fn check_certificates(config: &StreamConfig) -> Result<(), TargetError> {
    let identity = config.identity.as_ref();
    let files = [
        ("tls.ca", config.ca.as_ref()),
        ("tls.cert", identity.map(|(cert, _)| cert)),
        ("tls.key", identity.map(|(_, key)| key)),
    ];
    files.into_iter().try_for_each(|(field, path)| match path {
        Some(path) => read(field, path).map(drop),
        None => Ok(()),
    })
}

/// For messages: which fields say who the agent is.
pub(super) fn fields(login: Option<&Login>) -> String {
    match login {
        None => "login (there is none)".to_owned(),
        Some(Login::User { user, password_file, .. }) => {
            format!("login.user {user:?}, login.passwordFile {}", password_file.display())
        }
        Some(Login::Credentials(path)) => format!("login.credentials {}", path.display()),
        Some(Login::Token(path)) => format!("login.tokenFile {}", path.display()),
    }
}
