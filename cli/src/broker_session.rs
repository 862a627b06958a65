//! Who the commands are at which broker: the last login, unless something else is typed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use culvert_client::broker::{
    BrokerApi, BrokerUrl, Credentials, ErrorCode, Login, Logins, SyncClient, SyncClientBuilder, SyncError,
};
use culvert_client::options::TicketSource;
use culvert_wire::{PeerId, TopicId};

use crate::broker_args::BrokerArgs;
use crate::failure::Code;
use crate::{folders, id};

/// A login that ends earlier than this is renewed.
const RENEW: Duration = Duration::from_secs(3600);
/// How long one answer of the broker may take.
const ANSWER: Duration = Duration::from_secs(20);

impl BrokerArgs {
    /// The login that these arguments mean. One that ends soon is renewed.
    pub(crate) async fn login(&self) -> Result<Login> {
        let logins = Logins::in_folder(folders::data()?)?;
        let login = match (&self.broker, &self.user) {
            (Some(broker), Some(user)) => logins.find(broker, user),
            (None, None) => logins.current(),
            (broker, user) => logins.latest(|login| {
                broker.as_ref().is_none_or(|broker| login.broker().is_ok_and(|url| url == *broker))
                    && user.as_ref().is_none_or(|user| login.user_id == *user)
            }),
        };
        let login =
            login.context("nobody is logged in there: run culvert login --broker URL --user NAME first");
        let login = login.map_err(|error| Code::Usage.with(error))?.clone();
        if login.ends_within(RENEW) { self.renew(login).await } else { Ok(login) }
    }

    /// Logs in anew with this machine's key, which `culvert login` has bound to the user.
    async fn renew(&self, login: Login) -> Result<Login> {
        let renewed = self.api(&login).await?.login_device(&login.user_id, &id::identity()?).await;
        match renewed {
            Ok(renewed) => {
                let renewed = Login { broker_key: login.broker_key, ..renewed };
                Logins::in_folder(folders::data()?)?.renew(renewed.clone())?;
                Ok(renewed)
            }
            Err(error) if login.is_over() => {
                let text =
                    format!("the login of {} is over ({error}): run culvert login again", login.user_id);
                Err(Code::Refused.because(text))
            }
            Err(error) => {
                tracing::debug!(%error, "the login could not be renewed and still holds");
                Ok(login)
            }
        }
    }

    async fn api(&self, login: &Login) -> Result<BrokerApi> {
        let options = self.network.options()?;
        let api = BrokerApi::new(login.broker()?, &options, self.allow_plain_text, ANSWER).await;
        api.map_err(|error| Code::Usage.with(error))
    }

    /// Tickets with which a key of that login's user may be in one topic. The login is renewed as often as that
    /// takes: who waits at a relay does so for longer than a session lasts.
    pub(crate) fn tickets(&self, login: &Login, peer: PeerId, topic: TopicId) -> Result<TicketSource> {
        let (broker, user) = (Some(login.broker()?), Some(login.user_id.clone()));
        let args = Arc::new(Self { broker, user, ..self.clone() });
        Ok(Arc::new(move || {
            let args = Arc::clone(&args);
            Box::pin(async move {
                let login = args.login().await?;
                let api = args.api(&login).await?;
                match api.relay_ticket(&login, peer, vec![topic]).await {
                    // It was ended before its time.
                    Err(error) if error.code() == Some(ErrorCode::AuthRequired) => {
                        Ok(api.relay_ticket(&args.renew(login).await?, peer, vec![topic]).await?)
                    }
                    given => Ok(given?),
                }
            })
        }))
    }

    /// A client of that login, to be added to. It shows this machine's key whenever it connects, because a session
    /// may end while a command lasts.
    pub(crate) fn builder(&self, login: &Login) -> Result<SyncClientBuilder> {
        Ok(SyncClient::builder(&login.broker_url, &login.user_id)
            .credentials(Credentials::Device(id::identity()?))
            .network(self.network.options()?)
            .allow_plain_text(self.allow_plain_text)
            .folder(folders::data()?.join("broker"))
            .answer_within(ANSWER))
    }

    /// A client that is connected.
    pub(crate) async fn connect(&self) -> Result<SyncClient> {
        self.connect_as(&self.login().await?).await
    }

    /// The same of a login that is known already.
    pub(crate) async fn connect_as(&self, login: &Login) -> Result<SyncClient> {
        let broker = login.broker()?;
        self.builder(login)?.connect().await.map_err(|error| failed(error, &broker))
    }
}

/// What the broker refused, with the exit code of a refusal, and what to do about it.
pub(crate) fn failed(error: SyncError, broker: &BrokerUrl) -> anyhow::Error {
    match error.code() {
        Some(ErrorCode::AuthRequired | ErrorCode::AuthFailed) => {
            let text = format!("{broker} does not let you in ({error}): run culvert login again");
            Code::Refused.because(text)
        }
        Some(
            ErrorCode::Unavailable | ErrorCode::RateLimited | ErrorCode::Internal | ErrorCode::ServerFull,
        ) => anyhow::Error::new(error),
        Some(_) => Code::Refused.with(error),
        None => anyhow::Error::new(error).context(format!("cannot use the broker at {broker}")),
    }
}
