//! How Postgres finds what the hot path asks for.

use culvert_broker_wire::Timestamp;
use culvert_testkit::postgres::PostgresServer;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::PostgresStore;
use super::dialect::{MIGRATIONS, Moment};
use super::shares::{LOOK_UP, SHARED_WITH};
use crate::config::{Limits, Timing};

const FILL: &str = "
    INSERT INTO users SELECT 'user ' || n, 'user', 'active', NULL, to_timestamp(n), NULL FROM generate_series(1, 2000) n;
    INSERT INTO teams SELECT 'team ' || n, 'x', 'user 1', to_timestamp(n), 1 FROM generate_series(1, 200) n;
    INSERT INTO team_members SELECT 'team ' || n % 200 + 1, 'user ' || n, 'member', to_timestamp(n)
        FROM generate_series(1, 2000) n;
    INSERT INTO shared_results SELECT 'share ' || n, sha256(n::text::bytea), '', 'user ' || n % 2000 + 1, 'r', 't', NULL,
        to_timestamp(n), (ARRAY['public', 'team', 'users', 'institution'])[n % 4 + 1],
        CASE n % 4 WHEN 1 THEN 'team ' || n % 200 + 1 END, NULL, 3, NULL, NULL, 0, to_timestamp(n), to_timestamp(n),
        NULL, 1 FROM generate_series(1, 20000) n;
    INSERT INTO share_users SELECT 'share ' || n, 'user ' || m * 20, m FROM generate_series(2, 20000, 4) n,
        generate_series(1, 4) m;
    ANALYZE";

#[tokio::test]
async fn what_the_hot_path_asks_for_is_found_by_indexes() {
    let server = PostgresServer::shared().await.unwrap();
    let url = server.create_database().await.unwrap();
    let patience = Timing::default().backend;
    let store = PostgresStore::connect(&url, Limits::default().database_connections, patience).unwrap();
    crate::store::Store::migrate(&store, None).await.unwrap();
    let mut wire = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut wire).await.unwrap();
    let now = Moment(Timestamp::from_unix_seconds(1_800_000_000));
    let [head, tail] = LOOK_UP;
    let two = format!("EXPLAIN {head}VALUES ($1, $2, $3, $4), ($5, $6, $7, $8){tail}");
    let mut look_up = sqlx::query(AssertSqlSafe(two));
    for number in 0..2_i64 {
        look_up = look_up.bind(number).bind(&[0_u8; 32][..]).bind("user 7").bind(now);
    }
    let shared_with = sqlx::query(AssertSqlSafe(format!("EXPLAIN {SHARED_WITH}")));
    let shared_with = shared_with.bind("user 7").bind(now).bind(now).bind("z").bind(51_i64);
    for statement in [look_up, shared_with] {
        let rows = statement.fetch_all(&mut wire).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("Index") && !plan.contains("Seq Scan"), "{plan}");
    }
}

#[test]
fn every_migration_of_the_folder_is_part_of_the_program() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/postgres");
    let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
    let mut files: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    files.sort();
    let known = MIGRATIONS.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql"));
    assert_eq!(files, known.collect::<Vec<_>>());
}
