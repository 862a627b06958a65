//! The commands on a database of their own, parsed as an operator types them.

use std::sync::Arc;

use clap::Parser;
use culvert_wire::PeerId;

use super::*;
use crate::live::memory::MemoryLive;
use crate::store::sqlite::SqliteStore;
use crate::store::{AuditFilter, AuditLog as _, Device, Session, Sessions as _, Users as _, Way};

#[derive(Parser)]
struct Typed {
    #[command(subcommand)]
    command: AdminCommand,
}

/// An operator's desk.
struct Desk {
    store: SqliteStore,
    sealer: Sealer,
    clock: Clock,
    live: Arc<MemoryLive>,
    _folder: tempfile::TempDir,
}

impl Desk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("broker.db"), 2, Duration::from_secs(30)).unwrap();
        store.migrate(None).await.unwrap();
        let clock = Clock::manual(1_760_000_000);
        let sealer = Sealer::new(&[Secret::new(vec![7; 32])]).unwrap();
        Self { store, sealer, live: Arc::new(MemoryLive::new(clock.clone())), clock, _folder: folder }
    }

    /// What is printed; `password` is what is typed when asked.
    async fn types(&self, line: &str, password: &str) -> Result<String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let typed = Typed::try_parse_from(words)?;
        let office = Office {
            store: &self.store,
            sealer: &self.sealer,
            clock: &self.clock,
            live: Some(&*self.live),
            ticket: Duration::from_secs(3600),
        };
        execute(&typed.command, &office, &mut |_| Ok(Secret::new(password.to_owned()))).await
    }

    async fn done(&self, line: &str) -> String {
        self.types(line, "correct horse battery").await.unwrap_or_else(|error| panic!("{line}: {error:#}"))
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} --json")).await).unwrap()
    }

    async fn refused(&self, line: &str) -> String {
        format!("{:#}", self.types(line, "correct horse battery").await.expect_err(line))
    }

    async fn session(&self, user: &str) -> [u8; 32] {
        let now = Timestamp::from_unix_seconds(self.clock.unix_seconds());
        let session = Session {
            hash: rand::random(),
            user: user.to_owned(),
            device: None,
            way: Way::Account,
            created_at: now,
            expires_at: Timestamp::from_unix_seconds(now.unix_seconds() + 3600),
        };
        self.store.create_session(session.clone()).await.unwrap();
        session.hash
    }
}

#[tokio::test]
async fn an_operator_makes_the_first_administrator_and_every_change_is_written_down() {
    let desk = Desk::new().await;
    desk.done("user create alice --admin").await;
    assert!(desk.refused("user create alice").await.contains("already"));
    let shown = desk.json("user show alice").await;
    assert_eq!((&shown["role"], &shown["account"]), (&"admin".into(), &true.into()));
    let hash = desk.store.user("alice").await.unwrap().unwrap().password_hash.unwrap();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    for line in ["revoke-admin", "grant-admin", "suspend", "activate", "reset-password", "delete"] {
        desk.done(&format!("user {line} alice")).await;
    }
    for line in ["show", "suspend", "activate", "reset-password", "grant-admin", "delete"] {
        assert!(desk.refused(&format!("user {line} alice")).await.contains("there is no user"), "{line}");
    }
    let log = desk.json("audit --action user_changed").await;
    assert_eq!(log.as_array().unwrap().len(), 6);
    assert!(log.as_array().unwrap().iter().all(|entry| entry["detail"]["way"] == "operator"));
    assert!(desk.refused("audit --action nonsense").await.contains("share_requested"));
    assert!(desk.done("audit --limit 1").await.contains("user_changed"));
}

#[tokio::test]
async fn a_password_is_never_an_argument_and_a_made_up_one_is_printed_once() {
    let desk = Desk::new().await;
    assert!(desk.types("user create alice --password secret", "").await.is_err());
    assert!(desk.types("user create alice", "short").await.is_err());
    assert!(desk.store.user("alice").await.unwrap().is_none());
    let told = desk.done("user create alice --generate-password").await;
    let password = told.lines().find_map(|line| line.strip_prefix("password: ")).unwrap();
    assert!(password.len() >= 24, "{password}");
    assert!(!desk.done("audit").await.contains(password));
    assert!(!desk.done("user show alice").await.contains("argon2"));
}

#[tokio::test]
async fn suspending_ends_sessions_and_tells_brokers_and_relays() {
    let desk = Desk::new().await;
    desk.done("user create alice").await;
    let session = desk.session("alice").await;
    let now = Timestamp::from_unix_seconds(desk.clock.unix_seconds());
    let device = Device { key: PeerId([9; 32]), name: "laptop".into(), added_at: now, last_used_at: None };
    desk.store.add_device("alice", device).await.unwrap();
    let mut events = desk.live.events();
    assert!(desk.done("user suspend alice").await.contains("sessions ended: 1"));
    assert!(desk.store.session(&session, now).await.unwrap().is_none());
    assert_eq!(events.try_recv().unwrap(), Event::Sessions { user: "alice".into(), session: None });
    let filter = AuditFilter { action: Some(AuditAction::TicketRevoked), ..AuditFilter::default() };
    let page = PageRequest { after: None, limit: 10 };
    let told = desk.store.entries(filter, page).await.unwrap().items;
    assert_eq!(told[0].record.subject, Some(format!("peer {}", PeerId([9; 32]))));
    assert_eq!(told[0].record.detail["until"], 1_760_003_600);
}

#[tokio::test]
async fn credentials_show_their_secret_once_and_are_rotated_and_revoked() {
    let desk = Desk::new().await;
    desk.done("user create alice").await;
    assert!(desk.refused("credentials create bob --name CI").await.contains("there is no user"));
    let made = desk.json("credentials create alice --name CI").await;
    let (api_key, secret) = (made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap());
    assert!(api_key.starts_with("rpa_") && secret.starts_with("rps_") && secret.len() == 68);
    let rotated = desk.json(&format!("credentials rotate alice {api_key} --overlap 1h")).await;
    assert_ne!(rotated["api_secret"], made["api_secret"]);
    let again = desk.refused(&format!("credentials rotate alice {api_key}")).await;
    assert!(again.contains("two secrets"), "{again}");
    let list = desk.done("credentials list alice").await;
    assert!(list.contains(api_key) && !list.contains(secret), "{list}");
    assert!(desk.refused(&format!("credentials revoke bob {api_key}")).await.contains("no credential"));
    desk.done(&format!("credentials revoke alice {api_key}")).await;
    assert_eq!(desk.json("credentials list alice").await, Value::Array(Vec::new()));
    assert!(!desk.done("audit --limit 100").await.contains(secret));
}

#[tokio::test]
async fn teams_are_made_filled_and_deleted() {
    let desk = Desk::new().await;
    for user in ["alice", "bob"] {
        desk.done(&format!("user create {user}")).await;
    }
    assert!(desk.refused("team create Lab --owner carol").await.contains("there is no user"));
    desk.done("team create Lab --owner alice --id lab").await;
    assert!(desk.refused("team create Lab --owner alice --id lab").await.contains("already"));
    desk.done("team add lab bob").await;
    let members = desk.json("team members lab").await;
    assert_eq!(members.as_array().unwrap().len(), 2);
    assert!(desk.types("team remove lab alice", "").await.is_err(), "the last admin of others");
    desk.done("team add lab bob --role admin").await;
    desk.done("team remove lab alice").await;
    assert!(desk.done("team list").await.contains("lab"));
    desk.done("team delete lab").await;
    assert!(desk.refused("team members lab").await.contains("there is no team"));
}
