-- +goose Up

-- The row "root" is the root authority, "issuing" the one below it that signs certificates of devices, and others are
-- issuing authorities of before. private_key is empty when somebody else keeps the key. Until now the root signed all:
-- devices that trust such a root go on seeing server certificates that it has signed itself.
ALTER TABLE authority ADD COLUMN signs_servers BOOLEAN NOT NULL DEFAULT TRUE;

-- Who asked for the certificate over MQTT: the id of a principal; '' = nobody, or an API caller.
ALTER TABLE certificate ADD COLUMN requested_by TEXT NOT NULL DEFAULT '';
CREATE INDEX certificate_by_expiry ON certificate (not_after, id) WHERE claim = '';
CREATE INDEX certificate_revoked ON certificate (id) WHERE status = 'REVOKED';

-- Certificates that are revoked, also once they are deleted. issuer and serial are hex: the issuer's key id, as the
-- certificate has it, and the serial number.
CREATE TABLE revocation (
    certificate_id TEXT   NOT NULL PRIMARY KEY,
    issuer         TEXT   NOT NULL,
    serial         TEXT   NOT NULL,
    revoked        BIGINT NOT NULL,
    expires        BIGINT NOT NULL
);
CREATE INDEX revocation_by_issuer ON revocation (issuer, certificate_id);

-- The newest revocation list of each of our authorities, by its key id.
CREATE TABLE revocation_list (
    issuer TEXT    NOT NULL PRIMARY KEY,
    number BIGINT  NOT NULL,
    der    BYTEA   NOT NULL,
    issued BIGINT  NOT NULL,
    stale  BOOLEAN NOT NULL             -- a certificate was revoked since
);

-- Certificates that are to be replaced by others, which their devices ask for.
CREATE TABLE rotation (
    certificate_id TEXT   NOT NULL PRIMARY KEY,
    replaced_by    TEXT   NOT NULL,     -- '' = the new certificate has not connected yet
    requested      BIGINT NOT NULL,
    finished       BIGINT NOT NULL      -- 0 = not yet
);
CREATE INDEX rotation_open ON rotation (certificate_id) WHERE finished = 0;

CREATE TABLE certificate_provider (
    name     TEXT   NOT NULL PRIMARY KEY,
    function TEXT   NOT NULL,           -- ARN
    created  BIGINT NOT NULL,
    modified BIGINT NOT NULL
);

-- +goose Down
DROP TABLE certificate_provider;
DROP TABLE rotation;
DROP TABLE revocation_list;
DROP TABLE revocation;
DROP INDEX certificate_revoked;
DROP INDEX certificate_by_expiry;
ALTER TABLE certificate DROP COLUMN requested_by;
ALTER TABLE authority DROP COLUMN signs_servers;
