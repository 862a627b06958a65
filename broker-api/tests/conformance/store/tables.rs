//! The tables themselves, and what may stand in them.

use culvert_broker_api::seal::Sealer;
use culvert_broker_api::store::{
    Access, ApiSecret, AuditAction, AuditFilter, AuditRecord, Claim, Credential, Device, NewTeam, NewUser,
    Outcome, Session, ShareChanges, StoreError, TeamRole, Way,
};
use culvert_broker_wire::{AccessPolicy, Audience, ShareToken};
use culvert_service_kit::Secret;
use data_encoding::{BASE64, BASE64URL_NOPAD};

use super::stage::{Stage, at, backup, device, hash, hex, page, pieces, share, user};

pub(super) async fn replicas_that_migrate_at_once_all_succeed(stage: &Stage) {
    let empty = stage.empty().await;
    let replicas = [empty.replica(), empty.replica(), empty.replica(), empty.replica()];
    let outcomes = futures_util::future::join_all(replicas.iter().map(|store| store.migrate(None))).await;
    for outcome in outcomes {
        outcome.unwrap();
    }
    empty.store.check().await.unwrap();
    empty.store.migrate(None).await.unwrap();
    empty.store.admit(user("alice"), at(1)).await.unwrap();
}

pub(super) async fn a_database_without_tables_says_what_to_do(stage: &Stage) {
    stage.store.check().await.unwrap();
    let empty = stage.empty().await;
    let error = empty.store.check().await.unwrap_err();
    let StoreError::Broken(source) = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the tables have version 0 and must have 1: run `migrate`");
    // A newer program has made more tables: this one still works.
    stage
        .meddle(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                  SELECT 9999, description, success, checksum, execution_time FROM _sqlx_migrations",
        )
        .await
        .unwrap();
    stage.store.check().await.unwrap();
    stage.store.migrate(None).await.unwrap();
}

pub(super) async fn sql_in_every_string_is_only_text(stage: &Stage) {
    let store = &stage.store;
    for text in ["'; DROP TABLE users; --", "\" OR 1=1 --", "$1", "?1", "\\'", "%_", "x' || (SELECT 1) || '"]
    {
        let new = NewUser {
            password_hash: Some(text.to_owned()),
            device: Some(Device { name: text.to_owned(), ..device(1) }),
            ..user(text)
        };
        store.admit(new, at(1)).await.unwrap();
        let found = store.user(text).await.unwrap().unwrap();
        assert_eq!((found.id.as_str(), found.password_hash.as_deref()), (text, Some(text)));
        assert_eq!(store.devices(text).await.unwrap()[0].name, text);
        store
            .create_team(NewTeam { id: text.into(), name: text.into(), created_by: text.into() }, at(1))
            .await
            .unwrap();
        assert_eq!(store.team(text).await.unwrap().unwrap().name, text);
        assert_eq!(store.role_in(text, text).await.unwrap(), Some(TeamRole::Admin));
        store.rename_team(text, &format!("{text}!"), None).await.unwrap().unwrap();
        assert_eq!(store.teams_of(text, page(1)).await.unwrap().items[0].0.name, format!("{text}!"));

        let audience = Audience::Users { user_ids: vec![text.to_owned(), "bob".to_owned()] };
        let mut new = share(text, text, AccessPolicy::of(audience.clone()));
        (new.id, new.result_id, new.title) = (text.to_owned(), text.to_owned(), text.to_owned());
        new.description = Some(text.to_owned());
        store.publish(new, at(1)).await.unwrap();
        let found = store.share(text, text).await.unwrap().unwrap();
        assert_eq!((found.title.as_str(), found.description.as_deref()), (text, Some(text)));
        assert_eq!(found.policy.audience, audience);
        let looked_up = store.look_up(&hash(text), Some("bob"), at(2)).await.unwrap();
        assert!(matches!(looked_up, Some(Access::Granted(_))));
        let looked_up = store.look_up(&hash(text), Some(&format!("bob{text}")), at(2)).await.unwrap();
        assert!(matches!(looked_up, Some(Access::Denied(_))));
        let named = AccessPolicy::of(Audience::Institution { institution_id: Some(text.to_owned()) });
        let changes = ShareChanges { policy: Some(named.clone()), ..ShareChanges::default() };
        let changed = store.change_share(text, &hash(text), changes, None, at(2)).await.unwrap().unwrap();
        assert_eq!(changed.1.policy, named);

        let secret = ApiSecret { id: text.into(), sealed: text.into(), created_at: at(1), expires_at: None };
        let credential = Credential {
            api_key: text.to_owned(),
            user: text.to_owned(),
            name: text.to_owned(),
            created_at: at(1),
            last_used_at: None,
            secrets: vec![secret],
        };
        store.create_credential(credential.clone()).await.unwrap();
        assert_eq!(store.credential(text, at(1)).await.unwrap(), Some(credential));
        let put = store.put_backup(text, backup(pieces(b"state", 2)), at(1)).await;
        assert_eq!(put.unwrap().version, 1);
        assert_eq!(store.claim(text, text, &hash(text), at(1), at(2)).await.unwrap(), Claim::New);
        store.keep_secret(text, text.into()).await.unwrap();
        assert_eq!(store.secret(text).await.unwrap(), Some(text.into()));
        let filter = AuditFilter { actor: Some(text.to_owned()), ..AuditFilter::default() };
        assert_eq!(store.entries(filter, page(5)).await.unwrap().items, []);
        assert!(store.delete_user(text, at(3)).await.unwrap());
        assert!(store.delete_team(text, None, at(3)).await.unwrap().is_some());
    }
    store.check().await.unwrap();
}

pub(super) async fn a_nul_character_is_refused_and_four_byte_characters_are_not(stage: &Stage) {
    let store = &stage.store;
    let nul = "a\u{0}b";
    let outcome = store.admit(user(nul), at(1)).await;
    assert!(matches!(outcome, Err(StoreError::Invalid(_))), "{outcome:?}");
    // Nor is it looked for: the two databases would disagree.
    assert!(matches!(store.user(nul).await, Err(StoreError::Invalid(_))));
    assert!(matches!(store.look_up(&hash("x"), Some(nul), at(1)).await, Err(StoreError::Invalid(_))));
    stage.admit(&["𝔞lice 🦀"]).await;
    let mut new = share("𝔞lice 🦀", "one", AccessPolicy::public());
    new.description = Some(nul.to_owned());
    assert!(matches!(store.publish(new.clone(), at(1)).await, Err(StoreError::Invalid(_))));
    new.description = Some("🦀".repeat(1024));
    store.publish(new.clone(), at(1)).await.unwrap();
    let found = store.share("𝔞lice 🦀", "id-one").await.unwrap().unwrap();
    assert_eq!(found.description, new.description);
    let users = AccessPolicy::of(Audience::Users { user_ids: vec![nul.to_owned()] });
    let changes = ShareChanges { policy: Some(users), ..ShareChanges::default() };
    let outcome = store.change_share("𝔞lice 🦀", &hash("one"), changes, None, at(2)).await;
    assert!(matches!(outcome, Err(StoreError::Invalid(_))));
    assert_eq!(store.share("𝔞lice 🦀", "id-one").await.unwrap(), Some(found), "nothing was done");
}

pub(super) async fn a_stolen_copy_of_the_database_yields_no_usable_token(stage: &Stage) {
    let store = &stage.store;
    let sealer = Sealer::new(&[Secret::new(vec![7; 32])]).unwrap();
    let token = ShareToken::generate();
    let (session, secret) = ("cst_8b1fYw0jT3qk5eXo2nVd7A", "rps_Zx81kQpW44mNcT2vRj0uLg");
    stage.admit(&["alice"]).await;
    let mut new = share("alice", "one", AccessPolicy::public());
    new.token_hash = token.hash();
    new.token_sealed = sealer.seal("share-token", token.as_str().as_bytes()).unwrap();
    store.publish(new, at(1)).await.unwrap();
    let kept = Session {
        hash: hash(session),
        user: "alice".to_owned(),
        device: None,
        way: Way::Account,
        created_at: at(1),
        expires_at: at(2),
    };
    store.create_session(kept).await.unwrap();
    let sealed = sealer.seal("api-secret", secret.as_bytes()).unwrap();
    let credential = Credential {
        api_key: "rpa_public".to_owned(),
        user: "alice".to_owned(),
        name: "script".to_owned(),
        created_at: at(1),
        last_used_at: None,
        secrets: vec![ApiSecret { id: "s1".to_owned(), sealed, created_at: at(1), expires_at: None }],
    };
    store.create_credential(credential).await.unwrap();
    let record = AuditRecord {
        actor: Some("alice".to_owned()),
        action: AuditAction::SharePublished,
        subject: Some("id-one".to_owned()),
        outcome: Outcome::Done,
        source: None,
        detail: serde_json::json!({}),
    };
    store.append(vec![record], at(1)).await.unwrap();

    let stolen = stage.stolen().await;
    let contains = |what: &[u8]| stolen.windows(what.len()).any(|window| window == what);
    assert!(contains(b"rpa_public") && contains(b"id-one"), "this is the database");
    for secret in [token.as_str(), session, secret] {
        let spelled = [
            secret.to_owned(),
            hex(secret.as_bytes()),
            BASE64.encode(secret.as_bytes()).trim_end_matches('=').to_owned(),
            BASE64URL_NOPAD.encode(secret.as_bytes()),
        ];
        for spelling in spelled {
            assert!(!contains(spelling.as_bytes()), "{spelling} is in the database");
        }
    }
    let random = BASE64URL_NOPAD.decode(token.as_str().as_bytes()).unwrap();
    assert!(!contains(&random) && !contains(hex(&random).as_bytes()));
}
