-- +goose Up
CREATE TABLE policy (
    name            TEXT   NOT NULL PRIMARY KEY,
    default_version BIGINT NOT NULL,
    last_version    BIGINT NOT NULL,          -- numbers are not used again
    created         BIGINT NOT NULL,
    modified        BIGINT NOT NULL,
    generation      TEXT   NOT NULL
) /*WITHOUT ROWID*/;
CREATE INDEX policy_by_created ON policy (created, name);

CREATE TABLE policy_version (
    policy     TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    document   TEXT   NOT NULL,               -- as it was given
    created    BIGINT NOT NULL,
    generation TEXT   NOT NULL,
    PRIMARY KEY (policy, version)
);

-- target is the ARN of a certificate or of a thing group.
CREATE TABLE policy_attachment (
    target  TEXT   NOT NULL,
    policy  TEXT   NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (target, policy)
) /*WITHOUT ROWID*/;
CREATE INDEX policy_attachment_by_policy ON policy_attachment (policy, target);

-- +goose Down
DROP TABLE policy_attachment;
DROP TABLE policy_version;
DROP TABLE policy;
