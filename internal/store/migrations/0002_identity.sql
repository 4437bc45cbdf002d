-- +goose Up

-- The authorities of this installation. private_key is PKCS #8 DER, sealed with the passphrase's key when sealed.
CREATE TABLE authority (
    name        TEXT    NOT NULL PRIMARY KEY,
    certificate BYTEA   NOT NULL,             -- DER
    private_key BYTEA   NOT NULL,
    sealed      BOOLEAN NOT NULL,
    created     BIGINT  NOT NULL
);

-- Certificates of devices. id is the lower-case hex SHA-256 of the DER encoding.
CREATE TABLE certificate (
    id            TEXT   NOT NULL PRIMARY KEY,
    der           BYTEA  NOT NULL,
    status        TEXT   NOT NULL,            -- as the API's CertificateStatus
    mode          TEXT   NOT NULL,            -- DEFAULT | SNI_ONLY
    ca_id         TEXT   NOT NULL,            -- '' = issued here, or registered without a CA
    not_before    BIGINT NOT NULL,
    not_after     BIGINT NOT NULL,
    created       BIGINT NOT NULL,
    modified      BIGINT NOT NULL,
    revision      BIGINT NOT NULL,            -- customerVersion
    generation    TEXT   NOT NULL,
    claim         TEXT   NOT NULL,            -- the provisioning template of a claim certificate; such are not listed
    pending_until BIGINT NOT NULL             -- deleted then unless its ownership token was used; 0 = kept
);
CREATE INDEX certificate_by_created ON certificate (created, id) WHERE claim = '';
CREATE INDEX certificate_pending ON certificate (pending_until) WHERE pending_until > 0;

-- +goose Down
DROP TABLE certificate;
DROP TABLE authority;
