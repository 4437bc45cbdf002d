-- +goose Up
-- Identities of the API, and the IAM policies that they have. The identity admin is built in and has no row.
CREATE TABLE api_identity (
    name    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tags    TEXT   NOT NULL,                  -- JSON object of strings
    created BIGINT NOT NULL
) /*WITHOUT ROWID*/;

CREATE TABLE api_identity_policy (
    identity TEXT COLLATE "C" NOT NULL,
    name     TEXT COLLATE "C" NOT NULL,
    document TEXT NOT NULL,                   -- '' for a managed policy of that name
    PRIMARY KEY (identity, name)
) /*WITHOUT ROWID*/;

ALTER TABLE access_key ADD COLUMN expires BIGINT NOT NULL DEFAULT 0;   -- when it becomes inactive by itself; 0 = never
ALTER TABLE access_key ADD COLUMN last_used BIGINT NOT NULL DEFAULT 0; -- to the minute or so; 0 = not known

-- The log of changes: one chain of records for each node.
CREATE TABLE audit_record (
    node TEXT COLLATE "C" NOT NULL,
    seq  BIGINT NOT NULL,                     -- from 1, without gaps
    time BIGINT NOT NULL,
    body TEXT   NOT NULL,                     -- JSON, as it was hashed
    hash BYTEA  NOT NULL,                     -- SHA-256 of the previous hash, node, seq, time and body
    PRIMARY KEY (node, seq)
) /*WITHOUT ROWID*/;

-- Signed states of the chains: that the chain of a node had a hash at a record.
CREATE TABLE audit_head (
    node      TEXT COLLATE "C" NOT NULL,
    seq       BIGINT  NOT NULL,
    trimmed   BOOLEAN NOT NULL,               -- what is up to seq was deleted because of its age or for want of space
    time      BIGINT  NOT NULL,
    hash      BYTEA   NOT NULL,
    key       BYTEA   NOT NULL,               -- Ed25519 public key of the node
    signature BYTEA   NOT NULL,
    PRIMARY KEY (node, seq, trimmed)
) /*WITHOUT ROWID*/;

-- +goose Down
DROP TABLE audit_head;
DROP TABLE audit_record;
ALTER TABLE access_key DROP COLUMN last_used;
ALTER TABLE access_key DROP COLUMN expires;
DROP TABLE api_identity_policy;
DROP TABLE api_identity;
