-- +goose Up
-- Access keys of the account. A signature can only be verified with the secret itself, so it is kept: sealed when
-- the installation has a passphrase.
CREATE TABLE access_key (
    id      TEXT    NOT NULL PRIMARY KEY,
    secret  BYTEA   NOT NULL,
    sealed  BOOLEAN NOT NULL,
    owner   TEXT    NOT NULL,                 -- name of the IAM user
    status  TEXT    NOT NULL,                 -- Active | Inactive
    created BIGINT  NOT NULL
) /*WITHOUT ROWID*/;
CREATE INDEX access_key_by_owner ON access_key (owner, created, id);

-- Settings of the account as a whole, each a JSON text.
CREATE TABLE account_setting (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) /*WITHOUT ROWID*/;

-- +goose Down
DROP TABLE account_setting;
DROP TABLE access_key;
