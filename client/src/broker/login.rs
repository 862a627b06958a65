//! Logs in with the institution's password by OPAQUE (RFC 9807), in which it never leaves this process.
//!
//! The broker proves that it knows what belongs to the password before anything is sent that depends on it:
//! one that only pretends to be a broker gets a blinded message, from which nothing can be guessed. Members
//! of an institution all know its password, so it does not tell a member's machine from the broker; whoever
//! pins the broker's key after the first login ([`InstitutionLogin::finish`] gives it) is told when it is
//! another one.

use culvert_broker_wire::login::{OpaqueFinish, OpaqueStart, OpaqueStarted, SessionGiven};
use culvert_broker_wire::opaque::{CONTEXT, Random, Suite, device_challenge, stretching};
use data_encoding::BASE64URL_NOPAD;
use opaque_ke::{ClientLogin, ClientLoginFinishParameters, CredentialResponse};
use zeroize::Zeroizing;

use super::api::BrokerApi;
use super::credentials::prove_device;
use super::error::SyncError;
use super::logins::Login;
use crate::identity::Identity;

/// A login with the institution's password that waits for the broker's answer.
pub struct InstitutionLogin {
    state: ClientLogin<Suite>,
    password: Zeroizing<String>,
}

/// Why a login with the institution's password did not come about. Nothing that passwords could be tried
/// against has left this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InstitutionLoginError {
    /// The password is another one than the broker's, or it is no broker.
    #[error("the broker does not know this password; check it, and that this is the right broker")]
    Password,
    /// The broker knows the password and has another key than the pinned one.
    #[error("the broker's key is another one than it was; ask its operator before you go on")]
    OtherKey,
    /// The answer is none.
    #[error("the broker's answer to the login is malformed")]
    Malformed,
}

/// For whom a login is finished, and what it must lead to.
#[derive(Debug, Clone, Copy)]
pub struct Admission<'a> {
    /// Who wants to come in.
    pub user_id: &'a str,
    /// The broker's host, as it was dialled.
    pub host: &'a str,
    /// The device that the user id is, or will be, bound to.
    pub device: &'a Identity,
    /// What the device is called in lists.
    pub device_name: Option<&'a str>,
    /// The broker's key from an earlier login.
    pub pinned: Option<&'a str>,
}

impl InstitutionLogin {
    /// Begins: the message for `POST /api/auth/opaque/start`. It says nothing about the password, and never
    /// the same twice.
    ///
    /// # Errors
    /// The password cannot be used, which happens with a probability that never comes true.
    pub fn start(password: &str) -> Result<(Self, OpaqueStart), InstitutionLoginError> {
        let started = ClientLogin::<Suite>::start(&mut Random, password.as_bytes())
            .map_err(|_| InstitutionLoginError::Password)?;
        let credential_request = BASE64URL_NOPAD.encode(&started.message.serialize());
        let login = Self { state: started.state, password: Zeroizing::new(password.to_owned()) };
        Ok((login, OpaqueStart { credential_request }))
    }

    /// Goes on with the broker's answer: the message for `POST /api/auth/opaque/finish`, and the broker's
    /// key. Computes Argon2id: some ten milliseconds and 19 MiB, so not on an event loop.
    ///
    /// # Errors
    /// See [`InstitutionLoginError`]; nothing is to be sent then.
    pub fn finish(
        self,
        answer: &OpaqueStarted,
        admission: Admission<'_>,
    ) -> Result<(OpaqueFinish, String), InstitutionLoginError> {
        let Admission { user_id, host, device, device_name, pinned } = admission;
        let bytes = BASE64URL_NOPAD
            .decode(answer.credential_response.as_bytes())
            .map_err(|_| InstitutionLoginError::Malformed)?;
        let response =
            CredentialResponse::<Suite>::deserialize(&bytes).map_err(|_| InstitutionLoginError::Malformed)?;
        let stretching = stretching();
        let parameters = ClientLoginFinishParameters {
            context: Some(CONTEXT),
            ksf: Some(&stretching),
            ..Default::default()
        };
        let finished = self
            .state
            .finish(&mut Random, self.password.as_bytes(), response, parameters)
            .map_err(|_| InstitutionLoginError::Password)?;
        let key = BASE64URL_NOPAD.encode(&finished.server_s_pk.serialize());
        if pinned.is_some_and(|pinned| pinned != key) {
            return Err(InstitutionLoginError::OtherKey);
        }
        let challenge = device_challenge(&finished.session_key, &answer.login_id, user_id);
        let request = OpaqueFinish {
            login_id: answer.login_id.clone(),
            user_id: user_id.to_owned(),
            credential_finalization: BASE64URL_NOPAD.encode(&finished.message.serialize()),
            device: prove_device(device, user_id, host, &challenge),
            device_name: device_name.map(str::to_owned),
        };
        Ok((request, key))
    }
}

impl BrokerApi {
    /// Logs in with the institution's password, which binds a free user id to this device, and gives the
    /// broker's key, to be pinned in later logins. A device that is bound needs no password any more:
    /// [`BrokerApi::login_device`].
    ///
    /// # Errors
    /// The password is wrong, the broker has another key than the pinned one, refuses, or cannot be asked.
    pub async fn login_institution(
        &self,
        user_id: &str,
        password: &str,
        device: &Identity,
        device_name: Option<&str>,
        pinned: Option<&str>,
    ) -> Result<(Login, String), SyncError> {
        let (login, request) = InstitutionLogin::start(password)?;
        let answer: OpaqueStarted = self.http().post("/api/auth/opaque/start", None, &request).await?;
        let (user, host, device) = (user_id.to_owned(), self.host().to_owned(), device.clone());
        let (device_name, pinned) = (device_name.map(str::to_owned), pinned.map(str::to_owned));
        let finished = tokio::task::spawn_blocking(move || {
            let admission = Admission {
                user_id: &user,
                host: &host,
                device: &device,
                device_name: device_name.as_deref(),
                pinned: pinned.as_deref(),
            };
            login.finish(&answer, admission)
        });
        let (request, key) = finished.await.map_err(|error| SyncError::Protocol(error.to_string()))??;
        let given: SessionGiven = self.http().post("/api/auth/opaque/finish", None, &request).await?;
        Ok((self.login(given), key))
    }
}

#[cfg(test)]
mod tests {
    use culvert_broker_wire::opaque::INSTITUTION;
    use opaque_ke::{
        ClientRegistration, ClientRegistrationFinishParameters, CredentialFinalization, CredentialRequest,
        ServerLogin, ServerLoginParameters, ServerRegistration, ServerSetup,
    };

    use super::*;

    /// A broker that knows a password, or only pretends to.
    struct Broker {
        setup: ServerSetup<Suite>,
        file: Option<ServerRegistration<Suite>>,
    }

    impl Broker {
        fn that_knows(password: &str) -> Self {
            let setup = ServerSetup::<Suite>::new(&mut Random);
            let begun = ClientRegistration::<Suite>::start(&mut Random, password.as_bytes()).unwrap();
            let answer = ServerRegistration::<Suite>::start(&setup, begun.message, INSTITUTION).unwrap();
            let parameters = ClientRegistrationFinishParameters::default();
            let upload =
                begun.state.finish(&mut Random, password.as_bytes(), answer.message, parameters).unwrap();
            Self { setup, file: Some(ServerRegistration::finish(upload.message)) }
        }

        fn key(&self) -> String {
            BASE64URL_NOPAD.encode(&self.setup.keypair().public().serialize())
        }

        fn answer(&self, request: &OpaqueStart) -> (ServerLogin<Suite>, OpaqueStarted) {
            let bytes = BASE64URL_NOPAD.decode(request.credential_request.as_bytes()).unwrap();
            let request = CredentialRequest::<Suite>::deserialize(&bytes).unwrap();
            let file = self.file.clone();
            let started =
                ServerLogin::start(&mut Random, &self.setup, file, request, INSTITUTION, parameters())
                    .unwrap();
            let credential_response = BASE64URL_NOPAD.encode(&started.message.serialize());
            (started.state, OpaqueStarted { login_id: "login".to_owned(), credential_response })
        }
    }

    fn parameters() -> ServerLoginParameters<'static, 'static> {
        ServerLoginParameters { context: Some(CONTEXT), ..Default::default() }
    }

    fn alice<'a>(device: &'a Identity, pinned: Option<&'a str>) -> Admission<'a> {
        Admission { user_id: "alice", host: "broker.example", device, device_name: None, pinned }
    }

    #[test]
    fn both_sides_of_a_login_agree_on_what_the_device_signs() {
        let (broker, device) = (Broker::that_knows("open sesame"), Identity::from_seed(&[7; 32]));
        let key = broker.key();
        let (login, request) = InstitutionLogin::start("open sesame").unwrap();
        let (state, answer) = broker.answer(&request);
        let (finish, seen) = login.finish(&answer, alice(&device, Some(&key))).unwrap();
        assert_eq!(seen, key);
        let bytes = BASE64URL_NOPAD.decode(finish.credential_finalization.as_bytes()).unwrap();
        let message = CredentialFinalization::<Suite>::deserialize(&bytes).unwrap();
        let session_key = state.finish(message, parameters()).unwrap().session_key;
        assert_eq!(finish.device.challenge, device_challenge(&session_key, "login", "alice"));
        assert!(finish.device.is_signed_for("alice") && !finish.device.is_signed_for("bob"));
    }

    #[test]
    fn a_false_broker_gets_nothing_to_guess_at_and_the_login_ends_there() {
        let device = Identity::from_seed(&[7; 32]);
        let (one, two) = (InstitutionLogin::start("pw").unwrap().1, InstitutionLogin::start("pw").unwrap().1);
        assert_ne!(one, two, "the first message must not depend on the password alone");
        let ignorant = Broker { setup: ServerSetup::new(&mut Random), file: None };
        for broker in [Broker::that_knows("another password"), ignorant] {
            let (login, request) = InstitutionLogin::start("open sesame").unwrap();
            let (_, answer) = broker.answer(&request);
            assert_eq!(
                login.finish(&answer, alice(&device, None)).unwrap_err(),
                InstitutionLoginError::Password
            );
        }
    }

    #[test]
    fn a_broker_with_the_right_password_and_another_key_than_the_pinned_one_is_refused() {
        let device = Identity::from_seed(&[7; 32]);
        let (right, other) = (Broker::that_knows("open sesame"), Broker::that_knows("open sesame"));
        let (login, request) = InstitutionLogin::start("open sesame").unwrap();
        let (_, answer) = other.answer(&request);
        let refused = login.finish(&answer, alice(&device, Some(&right.key()))).unwrap_err();
        assert_eq!(refused, InstitutionLoginError::OtherKey);
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        let device = Identity::from_seed(&[7; 32]);
        for text in ["", "!", "AAAA"] {
            let (login, _) = InstitutionLogin::start("open sesame").unwrap();
            let answer = OpaqueStarted { login_id: String::new(), credential_response: text.to_owned() };
            let refused = login.finish(&answer, alice(&device, None)).unwrap_err();
            assert_eq!(refused, InstitutionLoginError::Malformed, "{text}");
        }
    }
}
