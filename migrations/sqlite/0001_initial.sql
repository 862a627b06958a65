-- What the broker keeps, as in ../postgres, which has the comments. Moments are microseconds since 1970; text
-- is compared byte by byte here anyway. STRICT tables hold what their columns say, as in Postgres.

CREATE TABLE users (
    id            text NOT NULL,
    role          text NOT NULL,
    status        text NOT NULL,
    password_hash text,
    created_at    integer NOT NULL,
    last_seen     integer,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_role CHECK (role IN ('user', 'admin')),
    CONSTRAINT users_status CHECK (status IN ('active', 'suspended'))
) STRICT;
CREATE INDEX users_newest ON users (created_at DESC, id DESC);

CREATE TABLE devices (
    key          blob NOT NULL,
    user_id      text NOT NULL,
    name         text NOT NULL,
    added_at     integer NOT NULL,
    last_used_at integer,
    revoked_at   integer,
    CONSTRAINT devices_pkey PRIMARY KEY (key),
    CONSTRAINT devices_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT devices_key CHECK (length(key) = 32)
) STRICT;
CREATE INDEX devices_of_user ON devices (user_id);

CREATE TABLE sessions (
    hash       blob NOT NULL,
    user_id    text NOT NULL,
    device     blob,
    way        text NOT NULL,
    created_at integer NOT NULL,
    expires_at integer NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (hash),
    CONSTRAINT sessions_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT sessions_hash CHECK (length(hash) = 32),
    CONSTRAINT sessions_way CHECK (way IN ('institution', 'account', 'device', 'credential', 'operator'))
) STRICT;
CREATE INDEX sessions_of_user ON sessions (user_id);
CREATE INDEX sessions_ending ON sessions (expires_at);

CREATE TABLE teams (
    id         text NOT NULL,
    name       text NOT NULL,
    created_by text NOT NULL,
    created_at integer NOT NULL,
    version    integer NOT NULL,
    CONSTRAINT teams_pkey PRIMARY KEY (id)
) STRICT;
CREATE INDEX teams_newest ON teams (created_at DESC, id DESC);

CREATE TABLE team_members (
    team_id  text NOT NULL,
    user_id  text NOT NULL,
    role     text NOT NULL,
    added_at integer NOT NULL,
    CONSTRAINT team_members_pkey PRIMARY KEY (team_id, user_id),
    CONSTRAINT team_members_team FOREIGN KEY (team_id) REFERENCES teams (id) ON DELETE CASCADE,
    CONSTRAINT team_members_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT team_members_role CHECK (role IN ('member', 'admin'))
) STRICT;
CREATE INDEX team_members_of_user ON team_members (user_id, team_id);
CREATE INDEX team_members_newest ON team_members (team_id, added_at DESC, user_id DESC);

CREATE TABLE shared_results (
    id             text NOT NULL,
    token_hash     blob NOT NULL,
    token_sealed   blob NOT NULL,
    owner_user_id  text NOT NULL,
    result_id      text NOT NULL,
    title          text NOT NULL,
    description    text,
    created_at     integer NOT NULL,
    audience       text NOT NULL,
    team_id        text,
    institution_id text,
    permissions    integer NOT NULL,
    expires_at     integer,
    max_downloads  integer,
    downloads      integer NOT NULL,
    published_at   integer NOT NULL,
    updated_at     integer NOT NULL,
    revoked_at     integer,
    version        integer NOT NULL,
    CONSTRAINT shared_results_pkey PRIMARY KEY (id),
    CONSTRAINT shared_results_token UNIQUE (token_hash),
    CONSTRAINT shared_results_hash CHECK (length(token_hash) = 32),
    CONSTRAINT shared_results_audience CHECK (audience IN ('public', 'team', 'users', 'institution')),
    CONSTRAINT shared_results_team CHECK ((audience = 'team') = (team_id IS NOT NULL)),
    CONSTRAINT shared_results_institution CHECK (institution_id IS NULL OR audience = 'institution'),
    CONSTRAINT shared_results_permissions CHECK (permissions BETWEEN 0 AND 7),
    CONSTRAINT shared_results_downloads CHECK (downloads >= 0)
) STRICT;
CREATE INDEX shared_results_of_owner ON shared_results (owner_user_id, published_at DESC, id DESC)
    WHERE revoked_at IS NULL;
CREATE INDEX shared_results_of_team ON shared_results (team_id, published_at DESC, id DESC)
    WHERE revoked_at IS NULL AND team_id IS NOT NULL;
CREATE INDEX shared_results_of_institution ON shared_results (published_at DESC, id DESC)
    WHERE revoked_at IS NULL AND audience = 'institution';

CREATE TABLE share_users (
    share_id text NOT NULL,
    user_id  text NOT NULL,
    position integer NOT NULL,
    CONSTRAINT share_users_pkey PRIMARY KEY (share_id, user_id),
    CONSTRAINT share_users_share FOREIGN KEY (share_id) REFERENCES shared_results (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX share_users_of_user ON share_users (user_id, share_id);

CREATE TABLE backup_versions (
    user_id text NOT NULL,
    last    integer NOT NULL,
    CONSTRAINT backup_versions_pkey PRIMARY KEY (user_id),
    CONSTRAINT backup_versions_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) STRICT;

CREATE TABLE user_backups (
    id         text NOT NULL,
    user_id    text NOT NULL,
    version    integer,
    state_hash text,
    size_bytes integer,
    created_at integer NOT NULL,
    CONSTRAINT user_backups_pkey PRIMARY KEY (id),
    CONSTRAINT user_backups_version UNIQUE (user_id, version),
    CONSTRAINT user_backups_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT user_backups_whole CHECK (version IS NULL OR (state_hash IS NOT NULL AND size_bytes IS NOT NULL))
) STRICT;
CREATE INDEX user_backups_unfinished ON user_backups (created_at) WHERE version IS NULL;

CREATE TABLE backup_chunks (
    backup_id text NOT NULL,
    position  integer NOT NULL,
    bytes     blob NOT NULL,
    CONSTRAINT backup_chunks_pkey PRIMARY KEY (backup_id, position),
    CONSTRAINT backup_chunks_backup FOREIGN KEY (backup_id) REFERENCES user_backups (id) ON DELETE CASCADE
) STRICT;

CREATE TABLE api_credentials (
    api_key      text NOT NULL,
    user_id      text NOT NULL,
    name         text NOT NULL,
    created_at   integer NOT NULL,
    last_used_at integer,
    revoked_at   integer,
    CONSTRAINT api_credentials_pkey PRIMARY KEY (api_key),
    CONSTRAINT api_credentials_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX api_credentials_of_user ON api_credentials (user_id, created_at DESC, api_key DESC)
    WHERE revoked_at IS NULL;

CREATE TABLE api_secrets (
    id         text NOT NULL,
    api_key    text NOT NULL,
    sealed     blob NOT NULL,
    created_at integer NOT NULL,
    expires_at integer,
    CONSTRAINT api_secrets_pkey PRIMARY KEY (id),
    CONSTRAINT api_secrets_credential FOREIGN KEY (api_key) REFERENCES api_credentials (api_key) ON DELETE CASCADE
) STRICT;
CREATE INDEX api_secrets_of_credential ON api_secrets (api_key);

CREATE TABLE signing_keys (
    kid         text NOT NULL,
    public      blob NOT NULL,
    sealed      blob NOT NULL,
    created_at  integer NOT NULL,
    active_from integer NOT NULL,
    retires_at  integer NOT NULL,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
) STRICT;

CREATE TABLE secrets (
    name  text NOT NULL,
    value blob NOT NULL,
    CONSTRAINT secrets_pkey PRIMARY KEY (name)
) STRICT;

CREATE TABLE horizons (
    name  text NOT NULL,
    value integer NOT NULL,
    CONSTRAINT horizons_pkey PRIMARY KEY (name)
) STRICT;

CREATE TABLE idempotency_keys (
    user_id    text NOT NULL,
    key        text NOT NULL,
    request    blob NOT NULL,
    claimed_at integer NOT NULL,
    kept_until integer NOT NULL,
    status     integer,
    headers    text,
    body       blob,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key)
) STRICT;
CREATE INDEX idempotency_keys_ending ON idempotency_keys (kept_until);

CREATE TABLE audit_log (
    id      integer NOT NULL,
    at      integer NOT NULL,
    actor   text,
    action  text NOT NULL,
    subject text,
    outcome text NOT NULL,
    source  text,
    detail  text NOT NULL,
    CONSTRAINT audit_log_pkey PRIMARY KEY (id AUTOINCREMENT),
    CONSTRAINT audit_log_outcome CHECK (outcome IN ('done', 'denied'))
) STRICT;
CREATE INDEX audit_log_of_actor ON audit_log (actor, id);
CREATE INDEX audit_log_of_subject ON audit_log (subject, id);
CREATE INDEX audit_log_of_action ON audit_log (action, id);
CREATE INDEX audit_log_at ON audit_log (at);

CREATE TRIGGER audit_log_append_only_update BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_log_append_only_delete BEFORE DELETE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_log_append_only_replace BEFORE INSERT ON audit_log
    WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
