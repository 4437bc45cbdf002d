-- +goose Up

-- Certificate authorities that are registered. id is the lower-case hex SHA-256 of the DER encoding, subject that of
-- the DER encoding of the subject: a certificate names its issuer by the same.
CREATE TABLE ca_certificate (
    id                TEXT    NOT NULL PRIMARY KEY,
    der               BYTEA   NOT NULL,
    subject           TEXT    NOT NULL,
    status            TEXT    NOT NULL,         -- ACTIVE | INACTIVE
    mode              TEXT    NOT NULL,         -- DEFAULT | SNI_ONLY
    auto_registration BOOLEAN NOT NULL,
    configured        BOOLEAN NOT NULL,         -- has a registrationConfig, which is the next three
    template_body     TEXT    NOT NULL,
    template_name     TEXT    NOT NULL,
    role_arn          TEXT    NOT NULL,
    not_before        BIGINT  NOT NULL,
    not_after         BIGINT  NOT NULL,
    created           BIGINT  NOT NULL,
    modified          BIGINT  NOT NULL,
    revision          BIGINT  NOT NULL,         -- customerVersion
    generation        TEXT    NOT NULL
);
CREATE INDEX ca_certificate_by_created ON ca_certificate (created, id);
CREATE INDEX ca_certificate_by_subject ON ca_certificate (subject);

CREATE INDEX certificate_by_ca ON certificate (ca_id, created, id) WHERE ca_id <> '';

-- The code that a verification certificate has as its common name; at most one row.
CREATE TABLE registration_code (
    account TEXT   NOT NULL PRIMARY KEY,
    code    TEXT   NOT NULL,
    created BIGINT NOT NULL
);

-- +goose Down
DROP TABLE registration_code;
DROP INDEX certificate_by_ca;
DROP TABLE ca_certificate;
