//! Whom what is given to: the one check before everything that leaves this machine.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_client::Connection;
use culvert_client::broker::handover::{self, GrantCheck, GrantRefusal};
use culvert_client::broker::{GrantClaims, Login, ShareChange, ShareEvent, SyncClient, SyncError};
use culvert_client::transfer::{Offer, SendError, Served, ignore};
use culvert_wire::PeerId;
use data_encoding::HEXLOWER;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::share::registry::{Registry, Shared};

/// Transfers at a time; more wait.
const MAX_TRANSFERS: usize = 16;
/// Shares whose revocation was heard that are remembered; grants end by themselves within minutes.
const MAX_REVOKED: usize = 10_000;

/// What is served, from where, and for whom.
pub(super) struct Desk {
    folder: PathBuf,
    login: Login,
    registry: Registry,
    grants: GrantCheck,
    client: Arc<SyncClient>,
    /// Hashes of the tokens of shares that were revoked somewhere else.
    revoked: Mutex<HashSet<String>>,
    transfers: Semaphore,
}

/// Something that may be given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) title: String,
    pub(super) paths: Vec<PathBuf>,
    /// To whom, as the broker knows them.
    pub(super) requester: Option<String>,
}

impl Desk {
    pub(super) fn new(folder: PathBuf, login: Login, registry: Registry, client: &Arc<SyncClient>) -> Self {
        Self {
            grants: GrantCheck::new(&login.user_id),
            folder,
            login,
            registry,
            client: Arc::clone(client),
            revoked: Mutex::default(),
            transfers: Semaphore::new(MAX_TRANSFERS),
        }
    }

    /// Fetches the broker's keys, so that grants can be checked while it is away.
    pub(super) async fn learn_keys(&self) -> Result<(), SyncError> {
        self.grants.refresh(&self.client).await
    }

    /// A share of this owner's has changed.
    pub(super) fn heard(&self, event: &ShareEvent) {
        if event.event == ShareChange::Revoked
            && let Some(Ok(token)) =
                event.share.token.as_deref().map(str::parse::<culvert_client::broker::ShareToken>)
        {
            let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
            if revoked.len() < MAX_REVOKED {
                revoked.insert(HEXLOWER.encode(&token.hash()));
            }
        }
    }

    /// Checks what a requester presents, who has proved to be `holder` if anybody.
    pub(super) async fn check(
        &self,
        grant: &str,
        holder: Option<&PeerId>,
    ) -> Result<(Allowed, GrantClaims), GrantRefusal> {
        let claims = self.grants.check(&self.client, grant, holder).await?;
        let shared = self.registry.list().map_err(|error| {
            tracing::warn!(%error, "what is shared cannot be read");
            GrantRefusal::Unavailable
        })?;
        let is_revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner).contains(&claims.share);
        if is_revoked {
            return Err(GrantRefusal::Gone);
        }
        let allowed = find(&shared, &self.login, &self.folder, &claims).ok_or(GrantRefusal::Gone)?;
        Ok((allowed, claims))
    }

    /// Gives out what is allowed, over a conversation.
    pub(super) async fn transfer(
        &self,
        allowed: &Allowed,
        connection: &mut dyn Connection,
        stop: &CancellationToken,
    ) -> Result<Served, SendError> {
        let _turn = self.transfers.acquire().await;
        let offer = Offer::paths(&allowed.paths, ignore());
        let offer = offer.map_err(|error| SendError::Unreadable(error.to_string()))?;
        offer.serve(connection, &ignore(), stop).await
    }

    /// A whole conversation with somebody whose key is proven: check, answer, transfer.
    pub(super) async fn converse(
        &self,
        connection: &mut dyn Connection,
        holder: &PeerId,
        stop: &CancellationToken,
        told: impl Fn(&str),
    ) {
        let grant = match handover::presented(connection).await {
            Ok(grant) => grant,
            Err(error) => return tracing::debug!(%error, "somebody came without a grant"),
        };
        let verdict = self.check(&grant, Some(holder)).await;
        let answered = handover::answer(connection, verdict.as_ref().map(|_| ())).await;
        match (verdict, answered) {
            (Ok((allowed, _)), Ok(())) => {
                let who = allowed.requester.as_deref().unwrap_or("Somebody").to_owned();
                told(&format!("{who} fetches {}.", allowed.title));
                match self.transfer(&allowed, connection, stop).await {
                    Ok(_) => {
                        told(&format!("{who} has {}.", allowed.title));
                        if let Err(error) = connection.close().await {
                            tracing::debug!(%error, "the conversation did not end in order");
                        }
                    }
                    Err(SendError::Cancelled) => {}
                    Err(error) => {
                        told(&format!("{who} does not have all of {} yet: {error}.", allowed.title));
                    }
                }
            }
            (Err(refusal), Ok(())) => {
                told(&format!("Refused {}: {refusal}.", holder.short()));
                if let Err(error) = connection.close().await {
                    tracing::debug!(%error, "the conversation did not end in order");
                }
            }
            (_, Err(error)) => tracing::debug!(%error, "a requester left before they were answered"),
        }
    }
}

/// What stands behind a grant: what was shared by `culvert share` from this folder, or the file in it that is
/// called like the result, for applications that publish themselves.
fn find(shared: &[Shared], login: &Login, folder: &Path, claims: &GrantClaims) -> Option<Allowed> {
    let requester = claims.sub.clone();
    let is_ours = |share: &&Shared| {
        share.result_id == claims.result_id
            && share.user_id == login.user_id
            && share.broker_url == login.broker_url
    };
    let mut known = shared.iter().filter(is_ours).peekable();
    if known.peek().is_some() {
        let share = known.find(|share| HEXLOWER.encode(&share.token.hash()) == claims.share)?;
        let inside =
            share.paths.iter().all(|path| path.canonicalize().is_ok_and(|path| path.starts_with(folder)));
        return inside.then(|| Allowed { title: share.title.clone(), paths: share.paths.clone(), requester });
    }
    let name = Path::new(&claims.result_id);
    let mut components = name.components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if !plain || claims.result_id.starts_with('.') {
        return None;
    }
    let path = [claims.result_id.clone(), format!("{}.json", claims.result_id)]
        .into_iter()
        .map(|name| folder.join(name))
        // A link that leads out of the folder is not what was meant to be shared.
        .find(|path| path.canonicalize().is_ok_and(|path| path.starts_with(folder)))?;
    Some(Allowed { title: claims.result_id.clone(), paths: vec![path], requester })
}

#[cfg(test)]
mod tests {
    use culvert_client::broker::ShareToken;

    use super::*;

    #[test]
    fn only_what_was_shared_from_the_folder_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap().join("served");
        std::fs::create_dir(&folder).unwrap();
        for name in ["served/a.txt", "served/result-123.json", "served/.hidden", "outside.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("outside.txt"), folder.join("leads-out")).unwrap();
        let login = Login {
            broker_url: "wss://b/ws".into(),
            user_id: "alice".into(),
            session_token: String::new(),
            expires_at: None,
            broker_key: None,
        };
        let token = ShareToken::generate();
        let shared = |result_id: &str, path: PathBuf| Shared {
            broker_url: login.broker_url.clone(),
            user_id: "alice".into(),
            result_id: result_id.into(),
            token: token.clone(),
            title: "t".into(),
            paths: vec![path],
        };
        let list = [shared("in", folder.join("a.txt")), shared("out", dir.path().join("outside.txt"))];
        let claims = |result_id: &str, share: &ShareToken| GrantClaims {
            iss: String::new(),
            aud: String::new(),
            sub: Some("bob".into()),
            cnf: None,
            owner: "alice".into(),
            result_id: result_id.into(),
            share: HEXLOWER.encode(&share.hash()),
            iat: 0,
            exp: 0,
            jti: String::new(),
        };
        let look =
            |result_id: &str, share: &ShareToken| find(&list, &login, &folder, &claims(result_id, share));
        assert_eq!(look("in", &token).unwrap().paths, [folder.join("a.txt")]);
        assert_eq!(look("in", &ShareToken::generate()), None, "another share of the same result");
        assert_eq!(look("out", &token), None, "a path outside of the folder");
        assert_eq!(look("result-123", &token).unwrap().paths, [folder.join("result-123.json")]);
        assert_eq!(look("a.txt", &token).unwrap().paths, [folder.join("a.txt")]);
        for bad in ["..", ".", "", "../outside.txt", "/etc/passwd", ".hidden", "leads-out", "none", "a/b"] {
            assert_eq!(look(bad, &token), None, "{bad}");
        }
        let other = Login { user_id: "carol".into(), ..login.clone() };
        assert_eq!(find(&list, &other, &folder, &claims("in", &token)), None, "of another user");
    }
}
