//! Shares.

use async_trait::async_trait;
use culvert_broker_wire::{AccessPolicy, Audience, Timestamp};

use super::pages::Wanted;
use super::policy;
use super::pool::{Row, Transaction};
use super::statement::{Columns, Sql, Value, broken};
use super::{Backend, StoreError};
use crate::store::{
    Access, Cursor, LookUp, NewShare, Page, PageRequest, Published, Share, ShareChanges, Shares,
};

/// A share's columns. The users whom it names come as one text, in netstrings, because both databases
/// concatenate alike.
macro_rules! columns {
    () => {
        "s.id, s.token_hash, s.token_sealed, s.owner_user_id, s.result_id, s.title, s.description, \
         s.created_at, s.downloads, s.published_at, s.updated_at, s.revoked_at, s.version, s.audience, \
         s.team_id, s.institution_id, s.permissions, s.expires_at, s.max_downloads, \
         CASE WHEN s.audience = 'users' THEN ( \
             SELECT string_agg(octet_length(n.user_id) || ':' || n.user_id, '' ORDER BY n.position) \
             FROM share_users n WHERE n.share_id = s.id) END"
    };
}

/// What a share's policy says about a moment, `$now`.
macro_rules! holds {
    ($now:literal) => {
        concat!(
            "(s.expires_at IS NULL OR s.expires_at > ",
            $now,
            ") AND (s.max_downloads IS NULL OR s.downloads < s.max_downloads)"
        )
    };
}

/// The hot path: the whole decision in one statement, each part of it by an index. Between the two parts are
/// the look-ups: number, token, viewer, moment.
pub(super) const LOOK_UP: [&str; 2] = [
    concat!(
        "SELECT ",
        columns!(),
        ", q.column1, COALESCE(s.owner_user_id = q.column3, FALSE), ",
        holds!("q.column4"),
        " AND CASE s.audience \
             WHEN 'public' THEN TRUE \
             WHEN 'institution' THEN q.column3 IS NOT NULL \
             WHEN 'team' THEN EXISTS ( \
                 SELECT 1 FROM team_members m WHERE m.team_id = s.team_id AND m.user_id = q.column3) \
             ELSE EXISTS (SELECT 1 FROM share_users n WHERE n.share_id = s.id AND n.user_id = q.column3) END \
         FROM ("
    ),
    // Not `JOIN`: SQLite would go through all shares and look for each among these.
    ") AS q CROSS JOIN shared_results s WHERE s.token_hash = q.column2 AND s.revoked_at IS NULL",
];

/// One part of [`SHARED_WITH`]: the newest shares of one kind of audience.
macro_rules! newest {
    ($from:literal, $that:literal) => {
        concat!(
            "SELECT * FROM (SELECT s.id FROM ",
            $from,
            " WHERE ",
            $that,
            " AND s.revoked_at IS NULL AND s.owner_user_id <> $1 AND ",
            holds!("$2"),
            " AND (s.published_at, s.id) < ($3, $4) ORDER BY s.published_at DESC, s.id DESC LIMIT $5) "
        )
    };
}

/// Each kind of audience by an index of its own, so that a user with few shares costs little among many.
pub(super) const SHARED_WITH: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM shared_results s WHERE s.id IN (",
    newest!("shared_results s", "s.audience = 'institution'"),
    "AS i UNION ",
    newest!(
        "team_members m JOIN shared_results s ON s.team_id = m.team_id",
        "m.user_id = $1 AND s.audience = 'team'"
    ),
    "AS t UNION ",
    newest!(
        "share_users n JOIN shared_results s ON s.id = n.share_id",
        "n.user_id = $1 AND s.audience = 'users'"
    ),
    "AS u) ORDER BY s.published_at DESC, s.id DESC LIMIT $5"
);

#[async_trait]
impl Shares for Backend {
    async fn publish(&self, share: NewShare, now: Timestamp) -> Result<Published, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = publish(&mut transaction, share, now).await;
        transaction.end(outcome).await
    }

    async fn look_up_all(
        &self,
        look_ups: &[LookUp],
        now: Timestamp,
    ) -> Result<Vec<Option<Access>>, StoreError> {
        if look_ups.is_empty() {
            return Ok(Vec::new());
        }
        let [head, tail] = LOOK_UP;
        let rows = (0_i64..).zip(look_ups).map(|(number, LookUp { token_hash, viewer })| {
            [number.into(), token_hash.into(), viewer.as_deref().into(), now.into()]
        });
        let mut found = vec![None; look_ups.len()];
        for row in self.pool.all(&Sql::rows(head, rows, tail)).await? {
            let mut columns = Columns::of(&row);
            let share = read(&mut columns)?;
            let number: usize = columns.count()?;
            let access = match (columns.flag()?, columns.flag()?) {
                (true, _) => Access::Owner(share),
                (false, true) => Access::Granted(share),
                (false, false) => Access::Denied(share),
            };
            *found.get_mut(number).ok_or_else(|| broken("a look-up that nobody asked for"))? = Some(access);
        }
        Ok(found)
    }

    async fn share(&self, owner: &str, id: &str) -> Result<Option<Share>, StoreError> {
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            " FROM shared_results s WHERE s.id = $2 AND s.owner_user_id = $1 AND s.revoked_at IS NULL"
        ));
        self.pool.first(&sql.bind(owner).bind(id)).await?.as_ref().map(share).transpose()
    }

    async fn shares_of(&self, owner: &str, page: PageRequest) -> Result<Page<Share>, StoreError> {
        let wanted = Wanted::of(page);
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            " FROM shared_results s WHERE s.owner_user_id = $1 AND s.revoked_at IS NULL \
              AND (s.published_at, s.id) < ($2, $3) ORDER BY s.published_at DESC, s.id DESC LIMIT $4"
        ));
        let sql = sql.bind(owner).bind(wanted.at).bind(wanted.id.clone()).bind(wanted.rows);
        let rows = self.pool.all(&sql).await?;
        wanted.page(&rows, share, place)
    }

    async fn shared_with(
        &self,
        user: &str,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<Share>, StoreError> {
        let wanted = Wanted::of(page);
        let sql = Sql::new(SHARED_WITH).bind(user).bind(now);
        let sql = sql.bind(wanted.at).bind(wanted.id.clone()).bind(wanted.rows);
        let rows = self.pool.all(&sql).await?;
        wanted.page(&rows, share, place)
    }

    async fn change_share(
        &self,
        owner: &str,
        token_hash: &[u8; 32],
        changes: ShareChanges,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<(Share, Share)>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = change(&mut transaction, owner, token_hash, changes, version, now).await;
        transaction.end(outcome).await
    }

    async fn revoke(
        &self,
        owner: &str,
        token_hash: &[u8; 32],
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Share>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = revoke(&mut transaction, owner, token_hash, version, now).await;
        transaction.end(outcome).await
    }

    async fn count_download(&self, share_id: &str) -> Result<bool, StoreError> {
        let sql = Sql::new(
            "UPDATE shared_results SET downloads = downloads + 1 WHERE id = $1 AND revoked_at IS NULL \
             AND (max_downloads IS NULL OR downloads < max_downloads)",
        );
        Ok(self.pool.change(&sql.bind(share_id)).await? > 0)
    }
}

fn share(row: &Row) -> Result<Share, StoreError> {
    read(&mut Columns::of(row))
}

fn place(share: &Share) -> Cursor {
    Cursor { at: share.published_at, id: share.id.clone() }
}

fn read(columns: &mut Columns<'_>) -> Result<Share, StoreError> {
    Ok(Share {
        id: columns.text()?,
        token_hash: columns.bytes32()?,
        token_sealed: columns.bytes()?,
        owner: columns.text()?,
        result_id: columns.text()?,
        title: columns.text()?,
        description: columns.text_or_none()?,
        created_at: columns.at()?,
        downloads: columns.count()?,
        published_at: columns.at()?,
        updated_at: columns.at()?,
        revoked_at: columns.at_or_none()?,
        version: columns.number()?,
        policy: policy::read(columns)?,
    })
}

/// Writes down whom a policy names, in place of those whom it named.
async fn name_users(
    transaction: &mut Transaction,
    share: &str,
    policy: &AccessPolicy,
) -> Result<(), StoreError> {
    let Audience::Users { user_ids } = &policy.audience else { return Ok(()) };
    if user_ids.is_empty() {
        return Ok(());
    }
    let rows =
        (0_i64..).zip(user_ids).map(|(position, user)| [share.into(), user.into(), Value::from(position)]);
    let sql = Sql::rows("INSERT INTO share_users (share_id, user_id, position) ", rows, "");
    transaction.change(&sql).await.map(drop)
}

/// A team that a share is for must be there, and its owner in it, until the share is.
async fn check_team(
    transaction: &mut Transaction,
    owner: &str,
    policy: &AccessPolicy,
) -> Result<(), StoreError> {
    let Audience::Team { team_id } = &policy.audience else { return Ok(()) };
    let sql = Sql::new(locking!(
        "SELECT 1 FROM teams t JOIN team_members m ON m.team_id = t.id WHERE t.id = $1 AND m.user_id = $2",
        "FOR SHARE"
    ));
    match transaction.first(&sql.bind(team_id).bind(owner)).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::Conflict("there is no such team, or you are not in it")),
    }
}

async fn publish(
    transaction: &mut Transaction,
    new: NewShare,
    now: Timestamp,
) -> Result<Published, StoreError> {
    let policy = policy::normal(new.policy.clone());
    // The owner is locked against removal, which revokes the shares that it finds.
    let sql = Sql::new(locking!("SELECT 1 FROM users u WHERE u.id = $1", "FOR KEY SHARE")).bind(&new.owner);
    if transaction.first(&sql).await?.is_none() {
        return Err(StoreError::Conflict(super::errors::NO_USER));
    }
    check_team(transaction, &new.owner, &policy).await?;
    let sql = Sql::new(
        "INSERT INTO shared_results (id, token_hash, token_sealed, owner_user_id, result_id, title, description, \
             created_at, published_at, updated_at, audience, team_id, institution_id, permissions, expires_at, \
             max_downloads, downloads, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13, $14, $15, 0, 1) \
         ON CONFLICT (token_hash) DO NOTHING",
    );
    let sql = sql.bind(&new.id).bind(&new.token_hash).bind(&new.token_sealed).bind(&new.owner);
    let sql = sql.bind(&new.result_id).bind(&new.title).bind(new.description.as_deref());
    let sql = policy::bind(sql.bind(new.created_at).bind(now), &policy);
    if transaction.change(&sql).await? > 0 {
        name_users(transaction, &new.id, &policy).await?;
        return Ok(Published::New(Share {
            id: new.id,
            token_hash: new.token_hash,
            token_sealed: new.token_sealed,
            owner: new.owner,
            result_id: new.result_id,
            title: new.title,
            description: new.description,
            created_at: new.created_at,
            policy,
            downloads: 0,
            published_at: now,
            updated_at: now,
            revoked_at: None,
            version: 1,
        }));
    }
    let sql = Sql::new(locking!(
        concat!("SELECT ", columns!(), " FROM shared_results s WHERE s.token_hash = $1"),
        "FOR NO KEY UPDATE"
    ));
    let before = transaction.first(&sql.bind(&new.token_hash)).await?.as_ref().map(share).transpose()?;
    let before = before.ok_or_else(|| broken("a share that nobody removes is gone"))?;
    if before.owner != new.owner {
        return Err(StoreError::Conflict("the token is somebody else's"));
    }
    if before.revoked_at.is_some() {
        return Err(StoreError::Conflict("the share was revoked: publish it with a new token"));
    }
    let after = Share {
        result_id: new.result_id,
        title: new.title,
        description: new.description,
        created_at: new.created_at,
        policy,
        ..before.clone()
    };
    if after == before {
        return Ok(Published::Same(before));
    }
    let after = rewrite(transaction, after, &before, now).await?;
    Ok(Published::Changed { before: Box::new(before), after: Box::new(after) })
}

/// Writes a share as it is to be, over the one that is locked.
async fn rewrite(
    transaction: &mut Transaction,
    after: Share,
    before: &Share,
    now: Timestamp,
) -> Result<Share, StoreError> {
    let after = Share { updated_at: now, version: before.version + 1, ..after };
    let sql = Sql::new(
        "UPDATE shared_results SET result_id = $2, title = $3, description = $4, created_at = $5, updated_at = $6, \
             version = $7, audience = $8, team_id = $9, institution_id = $10, permissions = $11, expires_at = $12, \
             max_downloads = $13 WHERE id = $1",
    );
    let sql =
        sql.bind(&after.id).bind(&after.result_id).bind(&after.title).bind(after.description.as_deref());
    let sql = sql.bind(after.created_at).bind(after.updated_at).bind(after.version);
    transaction.change(&policy::bind(sql, &after.policy)).await?;
    if after.policy.audience != before.policy.audience {
        transaction.change(&Sql::new("DELETE FROM share_users WHERE share_id = $1").bind(&after.id)).await?;
        name_users(transaction, &after.id, &after.policy).await?;
    }
    Ok(after)
}

/// The owner's share, locked, in the version that is meant.
async fn owned(
    transaction: &mut Transaction,
    owner: &str,
    token_hash: &[u8; 32],
    version: Option<i64>,
) -> Result<Option<Share>, StoreError> {
    let sql = Sql::new(locking!(
        concat!(
            "SELECT ",
            columns!(),
            " FROM shared_results s WHERE s.token_hash = $1 AND s.owner_user_id = $2 AND s.revoked_at IS NULL"
        ),
        "FOR NO KEY UPDATE"
    ));
    let found =
        transaction.first(&sql.bind(token_hash).bind(owner)).await?.as_ref().map(share).transpose()?;
    match (&found, version) {
        (Some(share), Some(version)) if share.version != version => {
            Err(StoreError::Conflict("the share has changed meanwhile"))
        }
        _ => Ok(found),
    }
}

async fn change(
    transaction: &mut Transaction,
    owner: &str,
    token_hash: &[u8; 32],
    changes: ShareChanges,
    version: Option<i64>,
    now: Timestamp,
) -> Result<Option<(Share, Share)>, StoreError> {
    let policy = changes.policy.map(policy::normal);
    // Before the share is locked: whoever deletes a team locks it before its shares.
    let allowed = match &policy {
        Some(policy) => check_team(transaction, owner, policy).await,
        None => Ok(()),
    };
    let Some(before) = owned(transaction, owner, token_hash, version).await? else { return Ok(None) };
    allowed?;
    let mut after = before.clone();
    if let Some(title) = changes.title {
        after.title = title;
    }
    if let Some(description) = changes.description {
        after.description = description;
    }
    if let Some(policy) = policy {
        after.policy = policy;
    }
    if after != before {
        after = rewrite(transaction, after, &before, now).await?;
    }
    Ok(Some((before, after)))
}

/// Revokes the shares whose audience is a team; gives them as they were.
pub(super) async fn revoke_those_of_team(
    transaction: &mut Transaction,
    team: &str,
    now: Timestamp,
) -> Result<Vec<Share>, StoreError> {
    let sql = Sql::new(locking!(
        concat!(
            "SELECT ",
            columns!(),
            " FROM shared_results s WHERE s.team_id = $1 AND s.revoked_at IS NULL ORDER BY s.id"
        ),
        "FOR NO KEY UPDATE"
    ));
    let rows = transaction.all(&sql.bind(team)).await?;
    let shares = rows.iter().map(share).collect::<Result<_, _>>()?;
    let sql = Sql::new(
        "UPDATE shared_results SET revoked_at = $2, updated_at = $2, version = version + 1 \
         WHERE team_id = $1 AND revoked_at IS NULL",
    );
    transaction.change(&sql.bind(team).bind(now)).await?;
    Ok(shares)
}

async fn revoke(
    transaction: &mut Transaction,
    owner: &str,
    token_hash: &[u8; 32],
    version: Option<i64>,
    now: Timestamp,
) -> Result<Option<Share>, StoreError> {
    let Some(share) = owned(transaction, owner, token_hash, version).await? else { return Ok(None) };
    let revoked = Share { revoked_at: Some(now), updated_at: now, version: share.version + 1, ..share };
    let sql =
        Sql::new("UPDATE shared_results SET revoked_at = $2, updated_at = $2, version = $3 WHERE id = $1");
    transaction.change(&sql.bind(&revoked.id).bind(now).bind(revoked.version)).await?;
    Ok(Some(revoked))
}
