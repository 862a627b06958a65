-- What the broker keeps. Ids are compared byte by byte, hence COLLATE "C": lists continue in the order of
-- bytes, in this database as in SQLite. Time always comes from the broker, never from now().

-- The first DDALAB broker made two tables whose names are used below, with tokens as they are and nobody who
-- could be asked for them. They are kept under other names, for whoever wants to look something up.
ALTER TABLE IF EXISTS shared_results RENAME TO ddalab_shared_results;
ALTER INDEX IF EXISTS shared_results_pkey RENAME TO ddalab_shared_results_pkey;
ALTER TABLE IF EXISTS user_backups RENAME TO ddalab_user_backups;
ALTER INDEX IF EXISTS user_backups_pkey RENAME TO ddalab_user_backups_pkey;

CREATE TABLE users (
    id            text COLLATE "C" NOT NULL,
    role          text NOT NULL,
    status        text NOT NULL,
    password_hash text,
    created_at    timestamptz NOT NULL,
    last_seen     timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_role CHECK (role IN ('user', 'admin')),
    CONSTRAINT users_status CHECK (status IN ('active', 'suspended'))
);
CREATE INDEX users_newest ON users (created_at DESC, id DESC);

-- A revoked device stays, so that its key is never bound again.
CREATE TABLE devices (
    key          bytea NOT NULL,
    user_id      text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    added_at     timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    CONSTRAINT devices_pkey PRIMARY KEY (key),
    CONSTRAINT devices_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT devices_key CHECK (octet_length(key) = 32)
);
CREATE INDEX devices_of_user ON devices (user_id);

-- Only the hash of a session's token is kept.
CREATE TABLE sessions (
    hash       bytea NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    device     bytea,
    way        text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (hash),
    CONSTRAINT sessions_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT sessions_hash CHECK (octet_length(hash) = 32),
    CONSTRAINT sessions_way CHECK (way IN ('institution', 'account', 'device', 'credential', 'operator'))
);
CREATE INDEX sessions_of_user ON sessions (user_id);
CREATE INDEX sessions_ending ON sessions (expires_at);

CREATE TABLE teams (
    id         text COLLATE "C" NOT NULL,
    name       text NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    version    bigint NOT NULL,
    CONSTRAINT teams_pkey PRIMARY KEY (id)
);
CREATE INDEX teams_newest ON teams (created_at DESC, id DESC);

CREATE TABLE team_members (
    team_id  text COLLATE "C" NOT NULL,
    user_id  text COLLATE "C" NOT NULL,
    role     text NOT NULL,
    added_at timestamptz NOT NULL,
    CONSTRAINT team_members_pkey PRIMARY KEY (team_id, user_id),
    CONSTRAINT team_members_team FOREIGN KEY (team_id) REFERENCES teams (id) ON DELETE CASCADE,
    CONSTRAINT team_members_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT team_members_role CHECK (role IN ('member', 'admin'))
);
CREATE INDEX team_members_of_user ON team_members (user_id, team_id);
CREATE INDEX team_members_newest ON team_members (team_id, added_at DESC, user_id DESC);

-- Only the hash of a share's token is kept, and the token itself sealed with a key that is not here.
-- A share outlives its owner and its team, revoked, so that nobody else takes over its token.
CREATE TABLE shared_results (
    id             text COLLATE "C" NOT NULL,
    token_hash     bytea NOT NULL,
    token_sealed   bytea NOT NULL,
    owner_user_id  text COLLATE "C" NOT NULL,
    result_id      text NOT NULL,
    title          text NOT NULL,
    description    text,
    created_at     timestamptz NOT NULL,
    audience       text NOT NULL,
    team_id        text COLLATE "C",
    institution_id text,
    permissions    bigint NOT NULL,
    expires_at     timestamptz,
    max_downloads  bigint,
    downloads      bigint NOT NULL,
    published_at   timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    revoked_at     timestamptz,
    version        bigint NOT NULL,
    CONSTRAINT shared_results_pkey PRIMARY KEY (id),
    CONSTRAINT shared_results_token UNIQUE (token_hash),
    CONSTRAINT shared_results_hash CHECK (octet_length(token_hash) = 32),
    CONSTRAINT shared_results_audience CHECK (audience IN ('public', 'team', 'users', 'institution')),
    CONSTRAINT shared_results_team CHECK ((audience = 'team') = (team_id IS NOT NULL)),
    CONSTRAINT shared_results_institution CHECK (institution_id IS NULL OR audience = 'institution'),
    -- One bit each: 1 view, 2 download, 4 reshare.
    CONSTRAINT shared_results_permissions CHECK (permissions BETWEEN 0 AND 7),
    CONSTRAINT shared_results_downloads CHECK (downloads >= 0)
);
CREATE INDEX shared_results_of_owner ON shared_results (owner_user_id, published_at DESC, id DESC)
    WHERE revoked_at IS NULL;
CREATE INDEX shared_results_of_team ON shared_results (team_id, published_at DESC, id DESC)
    WHERE revoked_at IS NULL AND team_id IS NOT NULL;
CREATE INDEX shared_results_of_institution ON shared_results (published_at DESC, id DESC)
    WHERE revoked_at IS NULL AND audience = 'institution';

-- Whom a share with audience 'users' names. They need not be users yet.
CREATE TABLE share_users (
    share_id text COLLATE "C" NOT NULL,
    user_id  text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT share_users_pkey PRIMARY KEY (share_id, user_id),
    CONSTRAINT share_users_share FOREIGN KEY (share_id) REFERENCES shared_results (id) ON DELETE CASCADE
);
CREATE INDEX share_users_of_user ON share_users (user_id, share_id);

-- The next version of each user's backup; it survives the deletion of the backups.
CREATE TABLE backup_versions (
    user_id text COLLATE "C" NOT NULL,
    last    bigint NOT NULL,
    CONSTRAINT backup_versions_pkey PRIMARY KEY (user_id),
    CONSTRAINT backup_versions_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

-- A backup without a version is being uploaded, or its upload broke off: nobody sees it.
CREATE TABLE user_backups (
    id         text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    version    bigint,
    state_hash text,
    size_bytes bigint,
    created_at timestamptz NOT NULL,
    CONSTRAINT user_backups_pkey PRIMARY KEY (id),
    CONSTRAINT user_backups_version UNIQUE (user_id, version),
    CONSTRAINT user_backups_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT user_backups_whole CHECK (version IS NULL OR (state_hash IS NOT NULL AND size_bytes IS NOT NULL))
);
CREATE INDEX user_backups_unfinished ON user_backups (created_at) WHERE version IS NULL;

CREATE TABLE backup_chunks (
    backup_id text COLLATE "C" NOT NULL,
    position  bigint NOT NULL,
    bytes     bytea NOT NULL,
    CONSTRAINT backup_chunks_pkey PRIMARY KEY (backup_id, position),
    CONSTRAINT backup_chunks_backup FOREIGN KEY (backup_id) REFERENCES user_backups (id) ON DELETE CASCADE
);
-- Clients encrypt what they store: it does not get smaller.
ALTER TABLE backup_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE api_credentials (
    api_key      text COLLATE "C" NOT NULL,
    user_id      text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    CONSTRAINT api_credentials_pkey PRIMARY KEY (api_key),
    CONSTRAINT api_credentials_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX api_credentials_of_user ON api_credentials (user_id, created_at DESC, api_key DESC)
    WHERE revoked_at IS NULL;

CREATE TABLE api_secrets (
    id         text COLLATE "C" NOT NULL,
    api_key    text COLLATE "C" NOT NULL,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    CONSTRAINT api_secrets_pkey PRIMARY KEY (id),
    CONSTRAINT api_secrets_credential FOREIGN KEY (api_key) REFERENCES api_credentials (api_key) ON DELETE CASCADE
);
CREATE INDEX api_secrets_of_credential ON api_secrets (api_key);

CREATE TABLE signing_keys (
    kid         text COLLATE "C" NOT NULL,
    public      bytea NOT NULL,
    sealed      bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    active_from timestamptz NOT NULL,
    retires_at  timestamptz NOT NULL,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
);

-- Values sealed with the data key.
CREATE TABLE secrets (
    name  text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    CONSTRAINT secrets_pkey PRIMARY KEY (name)
);

-- Numbers that only grow.
CREATE TABLE horizons (
    name  text COLLATE "C" NOT NULL,
    value bigint NOT NULL,
    CONSTRAINT horizons_pkey PRIMARY KEY (name)
);

-- Answers that are given again to a repeated request; without a status, the request is under way.
CREATE TABLE idempotency_keys (
    user_id    text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    request    bytea NOT NULL,
    claimed_at timestamptz NOT NULL,
    kept_until timestamptz NOT NULL,
    status     bigint,
    headers    text,
    body       bytea,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_ending ON idempotency_keys (kept_until);

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL,
    actor   text COLLATE "C",
    action  text NOT NULL,
    subject text COLLATE "C",
    outcome text NOT NULL,
    source  text,
    -- A JSON object.
    detail  text NOT NULL,
    CONSTRAINT audit_log_pkey PRIMARY KEY (id),
    CONSTRAINT audit_log_outcome CHECK (outcome IN ('done', 'denied'))
);
CREATE INDEX audit_log_of_actor ON audit_log (actor, id);
CREATE INDEX audit_log_of_subject ON audit_log (subject, id);
CREATE INDEX audit_log_of_action ON audit_log (action, id);
-- Entries lie in the order of their time, which is all that such an index needs.
CREATE INDEX audit_log_at ON audit_log USING brin (at) WITH (pages_per_range = 32);

CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
