//! Streams: raw to checked.

use super::{Certificates, Reader};
use crate::{
    config::{
        Login, SaslMechanism, StreamAddress, StreamConfig, StreamProtocol,
        raw::{LoginSpec, SinkAddress, SinkSpec},
    },
    yaml::{Field, Problem},
};

impl Reader<'_> {
    pub(super) fn stream(
        &self,
        spec: &SinkSpec,
        url: &Field<SinkAddress>,
        address: &StreamAddress,
        problems: &mut Vec<Problem>,
    ) -> Option<StreamConfig> {
        let protocol = address.protocol;
        if !protocol.is_built_in() {
            let feature = protocol.name();
            problems.push(url.problem(format!(
                "needs a detector that was built with the feature \"{feature}\""
            )));
        }
        let mut stream = StreamConfig::of(address.clone());
        if let Some(field) = &spec.tls {
            let certificates = self.certificates(field.get()?, field, problems);
            stream.tls = true;
            Certificates { ca: stream.ca, identity: stream.identity } = certificates;
        }
        if let Some(field) = &spec.login {
            let login = self.login(field.get()?, protocol, stream.tls);
            stream.login = login.map_err(|why| problems.push(field.problem(why))).ok()?;
        }
        Some(stream)
    }

    /// `None` if a part of it was refused before.
    fn login(
        &self,
        spec: &LoginSpec,
        protocol: StreamProtocol,
        tls: bool,
    ) -> Result<Option<Login>, &'static str> {
        let user = spec.user.is_some() || spec.password_file.is_some();
        if spec.mechanism.is_some() && protocol != StreamProtocol::Kafka {
            return Err("has a mechanism, which needs a kafka url");
        }
        match (protocol, user, &spec.credentials, &spec.token_file) {
            (StreamProtocol::Kafka, _, Some(_), _) => Err("has credentials, which need a nats url"),
            (StreamProtocol::Kafka, _, None, Some(_)) => {
                Err("has a tokenFile, which needs a nats url")
            }
            (StreamProtocol::Nats, false, Some(_), None) => {
                Ok(self.path(&spec.credentials).map(Login::Credentials))
            }
            (StreamProtocol::Nats, false, None, Some(_)) => {
                Ok(self.path(&spec.token_file).map(Login::Token))
            }
            (StreamProtocol::Nats, _, Some(_), _) | (StreamProtocol::Nats, true, None, Some(_)) => {
                Err("has more than one of user, credentials and tokenFile; expected one of them")
            }
            (_, _, None, None) => self.user(spec, tls),
        }
    }

    fn user(&self, spec: &LoginSpec, tls: bool) -> Result<Option<Login>, &'static str> {
        let (Some(user), Some(_)) = (&spec.user, &spec.password_file) else {
            return Err(match spec.user.is_some() || spec.password_file.is_some() {
                true => "expected user and passwordFile",
                false => "is empty; expected user and passwordFile, or credentials or tokenFile",
            });
        };
        let mechanism =
            spec.mechanism.as_ref().map_or(Some(Default::default()), |it| it.get().copied());
        if mechanism == Some(SaslMechanism::Plain) && !tls {
            return Err(
                "mechanism PLAIN shows the password to the network; expected tls beside it",
            );
        }
        let parts = (user.get(), self.path(&spec.password_file), mechanism);
        let (Some(user), Some(password_file), Some(mechanism)) = parts else { return Ok(None) };
        Ok(Some(Login::User { user: user.clone(), password_file, mechanism }))
    }
}
