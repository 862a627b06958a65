//! The audit log: append-only, also for whoever has the database's password by accident.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::{Page, PageRequest, StoreError};

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// What was done, or tried.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AuditAction { $($(#[$doc])* $name),+ }

        impl AuditAction {
            /// Every action.
            pub const ALL: &'static [AuditAction] = &[$(Self::$name),+];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

actions! {
    /// A user id was bound for the first time.
    UserAdmitted = "user_admitted",
    /// Somebody proved who they are, or failed to.
    Login = "login",
    /// A session was ended.
    Logout = "logout",
    /// A user was changed or removed by an administrator.
    UserChanged = "user_changed",
    /// A device was bound.
    DeviceAdded = "device_added",
    /// A device was revoked.
    DeviceRevoked = "device_revoked",
    /// A share was published.
    SharePublished = "share_published",
    /// A share was changed.
    ShareChanged = "share_changed",
    /// A share was revoked.
    ShareRevoked = "share_revoked",
    /// A share was asked for: granted or denied.
    ShareRequested = "share_requested",
    /// A team was made, renamed or deleted.
    TeamChanged = "team_changed",
    /// A member was added, changed or removed.
    MemberChanged = "member_changed",
    /// A state was stored.
    BackupStored = "backup_stored",
    /// A state was read.
    BackupRead = "backup_read",
    /// States were removed.
    BackupDeleted = "backup_deleted",
    /// A credential was made, rotated or revoked.
    CredentialChanged = "credential_changed",
    /// A relay ticket was issued.
    TicketIssued = "ticket_issued",
    /// Tickets or peers were revoked at the relays.
    TicketRevoked = "ticket_revoked",
    /// A signing key was made or retired.
    KeyRotated = "key_rotated",
    /// The audit log was asked for by somebody who may not read it.
    AuditRead = "audit_read",
    /// A message or request claimed to be somebody else.
    IdentityMismatch = "identity_mismatch",
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Denied,
}

/// Something to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Who did it; `None` if that is not known.
    pub actor: Option<String>,
    /// What.
    pub action: AuditAction,
    /// To what: an id, never a token or a secret.
    pub subject: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Address it came from.
    pub source: Option<String>,
    /// Whatever else is worth knowing; an object.
    pub detail: serde_json::Value,
}

/// Something to be written down, and whether it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// What is written down.
    pub record: AuditRecord,
    /// Whether it is a grant that adds one to the downloads of the share that is its subject.
    pub counts: bool,
}

impl From<AuditRecord> for AuditLine {
    fn from(record: AuditRecord) -> Self {
        Self { record, counts: false }
    }
}

/// Something that was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number, as text; later entries have larger numbers.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub record: AuditRecord,
}

/// Which entries are wanted; `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// By whom.
    pub actor: Option<String>,
    /// What.
    pub action: Option<AuditAction>,
    /// To what.
    pub subject: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
}

/// The audit log.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Writes entries down, in this order, all or none. Whatever a stranger claimed can be written down: of an
    /// actor, a subject and a source the first 512 bytes, with a NUL replaced by U+FFFD.
    async fn append(&self, records: Vec<AuditRecord>, at: Timestamp) -> Result<(), StoreError> {
        self.append_lines(records.into_iter().map(AuditLine::from).collect(), at).await
    }
    /// The same, and in the same transaction counts the downloads of shares without a number of their own;
    /// shares that are gone are left out.
    async fn append_lines(&self, lines: Vec<AuditLine>, at: Timestamp) -> Result<(), StoreError>;
    /// Entries, newest first; only the id of a cursor counts.
    async fn entries(&self, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>, StoreError>;
}
