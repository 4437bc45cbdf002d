-- +goose Up
-- What became of requests to be provisioned, for the operator; --provision.explain-records bounds it. Each of the
-- four keys is '' when there is none.
CREATE TABLE provisioning_attempt (
    id             BIGINT  NOT NULL PRIMARY KEY, -- in the order of time
    failed         BOOLEAN NOT NULL,
    client_id      TEXT    NOT NULL,
    certificate_id TEXT    NOT NULL,
    thing          TEXT    NOT NULL,
    serial         TEXT    NOT NULL,             -- the value of the parameter that is called so
    detail         TEXT    NOT NULL              -- JSON: the shape ProvisioningAttempt of the operator's API
);
CREATE INDEX provisioning_attempt_failed ON provisioning_attempt (id) WHERE failed;
CREATE INDEX provisioning_attempt_by_client ON provisioning_attempt (client_id, id) WHERE client_id <> '';
CREATE INDEX provisioning_attempt_by_certificate ON provisioning_attempt (certificate_id, id) WHERE certificate_id <> '';
CREATE INDEX provisioning_attempt_by_thing ON provisioning_attempt (thing, id) WHERE thing <> '';
CREATE INDEX provisioning_attempt_by_serial ON provisioning_attempt (serial, id) WHERE serial <> '';

-- Who was given the token, for the operator alone.
ALTER TABLE ownership_token ADD COLUMN client_id TEXT NOT NULL DEFAULT '';
ALTER TABLE ownership_token ADD COLUMN with_csr BOOLEAN NOT NULL DEFAULT FALSE;

-- Bulk registration. A node works at a task while it holds the lease, and counts each line in the transaction that
-- registers it.
CREATE TABLE registration_task (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    template_body TEXT   NOT NULL,
    bucket        TEXT   NOT NULL,
    object_key    TEXT   NOT NULL,
    role_arn      TEXT   NOT NULL,
    status        TEXT   NOT NULL,             -- InProgress | Completed | Failed | Cancelled | Cancelling
    message       TEXT   NOT NULL,
    created       BIGINT NOT NULL,
    modified      BIGINT NOT NULL,
    succeeded     BIGINT NOT NULL,             -- lines
    failed        BIGINT NOT NULL,
    size_bytes    BIGINT NOT NULL,             -- of the input; -1 = not known yet
    version       TEXT   NOT NULL,             -- of the input, as the object store has it
    done_bytes    BIGINT NOT NULL,             -- of the input: all lines before are done
    done_lines    BIGINT NOT NULL,
    holder        TEXT   NOT NULL,             -- '' = no node works at it
    held_until    BIGINT NOT NULL,
    report_key    BYTEA  NOT NULL              -- signs links to the reports
);
CREATE INDEX registration_task_open ON registration_task (id) WHERE status IN ('InProgress', 'Cancelling');

-- One row a line that was tried; it is what keeps a line from being registered twice.
CREATE TABLE registration_line (
    task   TEXT    NOT NULL,
    line   BIGINT  NOT NULL,                   -- from 1
    failed BOOLEAN NOT NULL,
    report TEXT    NOT NULL,                   -- a line of the report RESULTS or ERRORS: JSON
    PRIMARY KEY (task, line)
) /*WITHOUT ROWID*/;
CREATE INDEX registration_line_failed ON registration_line (task, line) WHERE failed;

-- +goose Down
DROP TABLE registration_line;
DROP TABLE registration_task;
ALTER TABLE ownership_token DROP COLUMN with_csr;
ALTER TABLE ownership_token DROP COLUMN client_id;
DROP TABLE provisioning_attempt;
