-- +goose Up
CREATE TABLE provisioning_template (
    name            TEXT    NOT NULL PRIMARY KEY,
    type            TEXT    NOT NULL,         -- FLEET_PROVISIONING | JITP
    description     TEXT    NOT NULL,
    enabled         BOOLEAN NOT NULL,
    role_arn        TEXT    NOT NULL,
    hook_arn        TEXT    NOT NULL,         -- '' = no pre-provisioning hook
    default_version BIGINT  NOT NULL,
    last_version    BIGINT  NOT NULL,         -- numbers are not used again
    created         BIGINT  NOT NULL,
    modified        BIGINT  NOT NULL
);

CREATE TABLE provisioning_template_version (
    template TEXT   NOT NULL,
    version  BIGINT NOT NULL,
    body     TEXT   NOT NULL,
    created  BIGINT NOT NULL,
    PRIMARY KEY (template, version)
);

-- Proofs that a client was given a certificate. hash is the lower-case hex SHA-256 of the token.
CREATE TABLE ownership_token (
    hash           TEXT   NOT NULL PRIMARY KEY,
    certificate_id TEXT   NOT NULL,
    principal_id   TEXT   NOT NULL,           -- who asked for the certificate, and may use the token
    connection_id  TEXT   NOT NULL,           -- on which it was asked for; no other has this id
    expires        BIGINT NOT NULL
) /*WITHOUT ROWID*/;
CREATE INDEX ownership_token_by_expiry ON ownership_token (expires);

-- +goose Down
DROP TABLE ownership_token;
DROP TABLE provisioning_template_version;
DROP TABLE provisioning_template;
