//! The audit log.

use culvert_broker_api::store::{
    AuditAction, AuditFilter, AuditRecord, Cursor, Outcome, PageRequest, StoreError,
};
use serde_json::json;

use super::stage::{Stage, at, page};

pub(super) fn record(actor: &str, action: AuditAction, subject: &str) -> AuditRecord {
    AuditRecord {
        actor: Some(actor.to_owned()),
        action,
        subject: Some(subject.to_owned()),
        outcome: Outcome::Done,
        source: Some("192.0.2.1".to_owned()),
        detail: json!({"number": 1, "words": ["ä", "\u{0}"]}),
    }
}

pub(super) async fn entries_are_read_newest_first_and_by_what_they_say(stage: &Stage) {
    let store = &stage.store;
    store.append(vec![record("alice", AuditAction::Login, "alice")], at(1)).await.unwrap();
    let denied = AuditRecord {
        actor: None,
        subject: None,
        source: None,
        outcome: Outcome::Denied,
        detail: json!({}),
        ..record("", AuditAction::ShareRequested, "")
    };
    store.append(vec![record("bob", AuditAction::Login, "bob"), denied.clone()], at(2)).await.unwrap();
    store.append(vec![record("alice", AuditAction::ShareRevoked, "share")], at(3)).await.unwrap();
    store.append(vec![], at(4)).await.unwrap();

    let all = store.entries(AuditFilter::default(), page(10)).await.unwrap();
    let what: Vec<_> = all.items.iter().map(|entry| (entry.record.action.name(), entry.at)).collect();
    let expected = [("share_revoked", at(3)), ("share_requested", at(2)), ("login", at(2)), ("login", at(1))];
    assert_eq!((what.as_slice(), all.next), (expected.as_slice(), None));
    assert_eq!(all.items[1].record, denied);
    assert_eq!(all.items[3].record, record("alice", AuditAction::Login, "alice"));

    let by = |actor: Option<&str>, action, subject: Option<&str>, since| AuditFilter {
        actor: actor.map(str::to_owned),
        action,
        subject: subject.map(str::to_owned),
        since,
    };
    let filters = [
        (by(Some("alice"), None, None, None), 2),
        (by(None, Some(AuditAction::Login), None, None), 2),
        (by(None, None, Some("share"), None), 1),
        (by(None, None, None, Some(at(2))), 3),
        (by(Some("alice"), Some(AuditAction::Login), Some("alice"), Some(at(2))), 0),
    ];
    for (filter, count) in filters {
        let found = store.entries(filter.clone(), page(10)).await.unwrap().items.len();
        assert_eq!(found, count, "{filter:?}");
    }
    let first = store.entries(AuditFilter::default(), page(3)).await.unwrap();
    store.append(vec![record("carol", AuditAction::Login, "carol")], at(5)).await.unwrap();
    let rest = PageRequest { after: first.next, limit: 3 };
    let rest = store.entries(AuditFilter::default(), rest).await.unwrap();
    assert_eq!((rest.items.as_slice(), rest.next), (&all.items[3..], None));
    let odd = PageRequest { after: Some(Cursor { at: at(0), id: "x".to_owned() }), limit: 3 };
    assert!(matches!(store.entries(AuditFilter::default(), odd).await, Err(StoreError::Invalid(_))));

    let many: Vec<_> =
        (0..600).map(|number| record("busy", AuditAction::Login, &number.to_string())).collect();
    store.append(many, at(6)).await.unwrap();
    let many = store.entries(by(Some("busy"), None, None, None), page(1000)).await.unwrap().items;
    let order: Vec<_> = many.iter().rev().map(|entry| entry.record.subject.clone().unwrap()).collect();
    assert_eq!(order, (0..600).map(|number| number.to_string()).collect::<Vec<_>>());
}

pub(super) async fn the_audit_log_is_append_only(stage: &Stage) {
    stage.store.append(vec![record("alice", AuditAction::Login, "alice")], at(1)).await.unwrap();
    let changes = ["UPDATE audit_log SET actor = 'mallory'", "DELETE FROM audit_log"];
    let others: &[&str] = if stage.is_postgres() {
        &["TRUNCATE audit_log", "UPDATE audit_log SET actor = 'mallory' WHERE false"]
    } else {
        &["REPLACE INTO audit_log (id, at, action, outcome, detail) VALUES (1, 1, 'login', 'done', '{}')"]
    };
    for change in changes.iter().chain(others) {
        let refused = stage.meddle(change).await.unwrap_err();
        assert!(refused.to_string().contains("the audit log is append-only"), "{change}: {refused}");
    }
    let entries = stage.store.entries(AuditFilter::default(), page(10)).await.unwrap().items;
    assert_eq!(entries[0].record, record("alice", AuditAction::Login, "alice"));
}

pub(super) async fn whatever_a_stranger_claims_is_written_down(stage: &Stage) {
    let mut claimed = record("a\u{0}b", AuditAction::IdentityMismatch, &"ä".repeat(5000));
    claimed.source = Some("'); DROP TABLE audit_log; --".to_owned());
    stage.store.append(vec![claimed.clone()], at(1)).await.unwrap();
    stage.store.append(vec![claimed.clone(), claimed.clone()], at(1)).await.unwrap();
    let entries = stage.store.entries(AuditFilter::default(), page(10)).await.unwrap().items;
    assert_eq!(entries.len(), 3);
    for entry in entries {
        assert_eq!(entry.record.actor.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(entry.record.subject, Some("ä".repeat(256)));
        assert_eq!(
            (entry.record.source, entry.record.detail),
            (claimed.source.clone(), claimed.detail.clone())
        );
    }
}
