//! Teams and their members.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::{Page, PageRequest, Share, StoreError};

/// What a member may do in a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeamRole {
    /// Share with it and see what is shared with it.
    Member,
    /// Also rename it, delete it, and choose its members.
    Admin,
}

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Its id: chosen by whoever made it, or random.
    pub id: String,
    /// For people.
    pub name: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// Counts up with every change of the team itself.
    pub version: i64,
}

/// A team to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTeam {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// Who makes it, and is its first admin.
    pub created_by: String,
}

/// A member of a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: String,
    /// What they may do.
    pub role: TeamRole,
    /// Since when.
    pub added_at: Timestamp,
}

/// What went with a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedTeam {
    /// Who was in it.
    pub members: Vec<String>,
    /// The shares that were revoked, as they were before.
    pub shares: Vec<Share>,
}

/// Teams and their members.
#[async_trait]
pub trait Teams: Send + Sync {
    /// Makes a team with its maker as admin; a conflict if the id is taken.
    async fn create_team(&self, team: NewTeam, now: Timestamp) -> Result<Team, StoreError>;
    /// The team with this id.
    async fn team(&self, id: &str) -> Result<Option<Team>, StoreError>;
    /// All teams.
    async fn teams(&self, page: PageRequest) -> Result<Page<Team>, StoreError>;
    /// The teams that a user is in, with their role.
    async fn teams_of(&self, user: &str, page: PageRequest) -> Result<Page<(Team, TeamRole)>, StoreError>;
    /// Renames a team; `None` if there is none, a conflict if `version` is given and not its version.
    async fn rename_team(
        &self,
        id: &str,
        name: &str,
        version: Option<i64>,
    ) -> Result<Option<Team>, StoreError>;
    /// Deletes a team and revokes the shares whose audience it is; `None` if there is none, a conflict if
    /// `version` is given and not its version.
    async fn delete_team(
        &self,
        id: &str,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<DeletedTeam>, StoreError>;
    /// A user's role in a team.
    async fn role_in(&self, team: &str, user: &str) -> Result<Option<TeamRole>, StoreError>;
    /// The members of a team.
    async fn members(&self, team: &str, page: PageRequest) -> Result<Page<Member>, StoreError>;
    /// Adds a member or changes their role. `None` if there is no such team or user; a conflict if it would
    /// take the last admin.
    async fn put_member(
        &self,
        team: &str,
        user: &str,
        role: TeamRole,
        now: Timestamp,
    ) -> Result<Option<Member>, StoreError>;
    /// Removes a member; false if they were none, a conflict if they are the last admin of others.
    async fn remove_member(&self, team: &str, user: &str) -> Result<bool, StoreError>;
}
