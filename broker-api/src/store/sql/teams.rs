//! Teams and their members.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::pages::Wanted;
use super::pool::{Row, Transaction};
use super::statement::{Columns, Sql};
use super::{Backend, StoreError};
use crate::store::{Cursor, DeletedTeam, Member, NewTeam, Page, PageRequest, Team, TeamRole, Teams};

macro_rules! columns {
    () => {
        "t.id, t.name, t.created_by, t.created_at, t.version"
    };
}

const LAST_ADMIN: &str = "a team with members needs an admin: name another one first";

fn read(columns: &mut Columns<'_>) -> Result<Team, StoreError> {
    Ok(Team {
        id: columns.text()?,
        name: columns.text()?,
        created_by: columns.text()?,
        created_at: columns.at()?,
        version: columns.number()?,
    })
}

fn team(row: &Row) -> Result<Team, StoreError> {
    read(&mut Columns::of(row))
}

fn team_and_role(row: &Row) -> Result<(Team, TeamRole), StoreError> {
    let mut columns = Columns::of(row);
    Ok((read(&mut columns)?, columns.name(TeamRole::named)?))
}

fn member(row: &Row) -> Result<Member, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Member { user: columns.text()?, role: columns.name(TeamRole::named)?, added_at: columns.at()? })
}

fn place(team: &Team) -> Cursor {
    Cursor { at: team.created_at, id: team.id.clone() }
}

#[async_trait]
impl Teams for Backend {
    async fn create_team(&self, new: NewTeam, now: Timestamp) -> Result<Team, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = create(&mut transaction, new, now).await;
        transaction.end(outcome).await
    }

    async fn team(&self, id: &str) -> Result<Option<Team>, StoreError> {
        let sql = Sql::new(concat!("SELECT ", columns!(), " FROM teams t WHERE t.id = $1")).bind(id);
        self.pool.first(&sql).await?.as_ref().map(team).transpose()
    }

    async fn teams(&self, page: PageRequest) -> Result<Page<Team>, StoreError> {
        let wanted = Wanted::of(page);
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            " FROM teams t WHERE (t.created_at, t.id) < ($1, $2) ORDER BY t.created_at DESC, t.id DESC LIMIT $3"
        ));
        let rows = self.pool.all(&sql.bind(wanted.at).bind(wanted.id.clone()).bind(wanted.rows)).await?;
        wanted.page(&rows, team, place)
    }

    async fn teams_of(&self, user: &str, page: PageRequest) -> Result<Page<(Team, TeamRole)>, StoreError> {
        let wanted = Wanted::of(page);
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            ", m.role FROM team_members m JOIN teams t ON t.id = m.team_id \
              WHERE m.user_id = $1 AND (t.created_at, t.id) < ($2, $3) \
              ORDER BY t.created_at DESC, t.id DESC LIMIT $4"
        ));
        let sql = sql.bind(user).bind(wanted.at).bind(wanted.id.clone()).bind(wanted.rows);
        let rows = self.pool.all(&sql).await?;
        wanted.page(&rows, team_and_role, |(team, _)| place(team))
    }

    async fn rename_team(
        &self,
        id: &str,
        name: &str,
        version: Option<i64>,
    ) -> Result<Option<Team>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = rename(&mut transaction, id, name, version).await;
        transaction.end(outcome).await
    }

    async fn delete_team(
        &self,
        id: &str,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<DeletedTeam>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = delete(&mut transaction, id, version, now).await;
        transaction.end(outcome).await
    }

    async fn role_in(&self, team: &str, user: &str) -> Result<Option<TeamRole>, StoreError> {
        let sql = Sql::new("SELECT role FROM team_members WHERE team_id = $1 AND user_id = $2");
        let row = self.pool.first(&sql.bind(team).bind(user)).await?;
        row.map(|row| Columns::of(&row).name(TeamRole::named)).transpose()
    }

    async fn members(&self, team: &str, page: PageRequest) -> Result<Page<Member>, StoreError> {
        let wanted = Wanted::of(page);
        let sql = Sql::new(
            "SELECT user_id, role, added_at FROM team_members \
             WHERE team_id = $1 AND (added_at, user_id) < ($2, $3) ORDER BY added_at DESC, user_id DESC LIMIT $4",
        );
        let sql = sql.bind(team).bind(wanted.at).bind(wanted.id.clone()).bind(wanted.rows);
        let rows = self.pool.all(&sql).await?;
        wanted.page(&rows, member, |member| Cursor { at: member.added_at, id: member.user.clone() })
    }

    async fn put_member(
        &self,
        team: &str,
        user: &str,
        role: TeamRole,
        now: Timestamp,
    ) -> Result<Option<Member>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = put_member(&mut transaction, team, user, role, now).await;
        transaction.end(outcome).await
    }

    async fn remove_member(&self, team: &str, user: &str) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = remove_member(&mut transaction, team, user).await;
        transaction.end(outcome).await
    }
}

async fn create(transaction: &mut Transaction, new: NewTeam, now: Timestamp) -> Result<Team, StoreError> {
    let sql =
        Sql::new("INSERT INTO teams (id, name, created_by, created_at, version) VALUES ($1, $2, $3, $4, 1)");
    transaction.change(&sql.bind(&new.id).bind(&new.name).bind(&new.created_by).bind(now)).await?;
    add(transaction, &new.id, &new.created_by, TeamRole::Admin, now).await?;
    Ok(Team { id: new.id, name: new.name, created_by: new.created_by, created_at: now, version: 1 })
}

async fn add(
    transaction: &mut Transaction,
    team: &str,
    user: &str,
    role: TeamRole,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = Sql::new("INSERT INTO team_members (team_id, user_id, role, added_at) VALUES ($1, $2, $3, $4)");
    transaction.change(&sql.bind(team).bind(user).bind(role.name()).bind(now)).await.map(drop)
}

async fn rename(
    transaction: &mut Transaction,
    id: &str,
    name: &str,
    version: Option<i64>,
) -> Result<Option<Team>, StoreError> {
    let sql = Sql::new(locking!(
        concat!("SELECT ", columns!(), " FROM teams t WHERE t.id = $1"),
        "FOR NO KEY UPDATE"
    ));
    let Some(row) = transaction.first(&sql.bind(id)).await? else { return Ok(None) };
    let before = team(&row)?;
    if version.is_some_and(|version| version != before.version) {
        return Err(StoreError::Conflict("the team has changed meanwhile"));
    }
    if before.name == name {
        return Ok(Some(before));
    }
    let after = Team { name: name.to_owned(), version: before.version + 1, ..before };
    let sql = Sql::new("UPDATE teams SET name = $2, version = $3 WHERE id = $1");
    transaction.change(&sql.bind(id).bind(name).bind(after.version)).await?;
    Ok(Some(after))
}

/// Locks the team before its shares, as whoever names it in a policy does. Its members go by the foreign key.
async fn delete(
    transaction: &mut Transaction,
    id: &str,
    version: Option<i64>,
    now: Timestamp,
) -> Result<Option<DeletedTeam>, StoreError> {
    let sql = Sql::new(locking!("SELECT version FROM teams WHERE id = $1", "FOR UPDATE"));
    let Some(row) = transaction.first(&sql.bind(id)).await? else { return Ok(None) };
    let found = Columns::of(&row).number()?;
    if version.is_some_and(|version| version != found) {
        return Err(StoreError::Conflict("the team has changed meanwhile"));
    }
    let sql = Sql::new("SELECT user_id FROM team_members WHERE team_id = $1 ORDER BY user_id");
    let members = transaction.all(&sql.bind(id)).await?;
    let members = members.iter().map(|row| Columns::of(row).text()).collect::<Result<_, _>>()?;
    let shares = super::shares::revoke_those_of_team(transaction, id, now).await?;
    transaction.change(&Sql::new("DELETE FROM teams WHERE id = $1").bind(id)).await?;
    Ok(Some(DeletedTeam { members, shares }))
}

/// The role of a member of a team that stays locked: of two changes to its members, one comes first. `None`
/// if there is no such team.
async fn lock(
    transaction: &mut Transaction,
    team: &str,
    user: &str,
) -> Result<Option<Option<Member>>, StoreError> {
    let sql = Sql::new(locking!("SELECT 1 FROM teams WHERE id = $1", "FOR NO KEY UPDATE")).bind(team);
    if transaction.first(&sql).await?.is_none() {
        return Ok(None);
    }
    let sql =
        Sql::new("SELECT user_id, role, added_at FROM team_members WHERE team_id = $1 AND user_id = $2");
    let row = transaction.first(&sql.bind(team).bind(user)).await?;
    Ok(Some(row.as_ref().map(member).transpose()?))
}

/// Whether the team has a member of this role beside this one.
async fn has_other(
    transaction: &mut Transaction,
    team: &str,
    user: &str,
    role: Option<TeamRole>,
) -> Result<bool, StoreError> {
    let sql = Sql::new(
        "SELECT EXISTS (SELECT 1 FROM team_members \
         WHERE team_id = $1 AND user_id <> $2 AND role = COALESCE($3, role))",
    );
    let row = transaction.first(&sql.bind(team).bind(user).bind(role.map(TeamRole::name))).await?;
    Ok(row.map(|row| Columns::of(&row).flag()).transpose()?.unwrap_or_default())
}

async fn put_member(
    transaction: &mut Transaction,
    team: &str,
    user: &str,
    role: TeamRole,
    now: Timestamp,
) -> Result<Option<Member>, StoreError> {
    let Some(before) = lock(transaction, team, user).await? else { return Ok(None) };
    let Some(before) = before else {
        let sql = Sql::new(locking!("SELECT 1 FROM users WHERE id = $1", "FOR KEY SHARE")).bind(user);
        if transaction.first(&sql).await?.is_none() {
            return Ok(None);
        }
        add(transaction, team, user, role, now).await?;
        return Ok(Some(Member { user: user.to_owned(), role, added_at: now }));
    };
    let steps_down = before.role == TeamRole::Admin && role != TeamRole::Admin;
    if steps_down && !has_other(transaction, team, user, Some(TeamRole::Admin)).await? {
        return Err(StoreError::Conflict(LAST_ADMIN));
    }
    let sql = Sql::new("UPDATE team_members SET role = $3 WHERE team_id = $1 AND user_id = $2");
    transaction.change(&sql.bind(team).bind(user).bind(role.name())).await?;
    Ok(Some(Member { role, ..before }))
}

async fn remove_member(transaction: &mut Transaction, team: &str, user: &str) -> Result<bool, StoreError> {
    let Some(Some(before)) = lock(transaction, team, user).await? else { return Ok(false) };
    if before.role == TeamRole::Admin
        && has_other(transaction, team, user, None).await?
        && !has_other(transaction, team, user, Some(TeamRole::Admin)).await?
    {
        return Err(StoreError::Conflict(LAST_ADMIN));
    }
    let sql = Sql::new("DELETE FROM team_members WHERE team_id = $1 AND user_id = $2");
    Ok(transaction.change(&sql.bind(team).bind(user)).await? > 0)
}
