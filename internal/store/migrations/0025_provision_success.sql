-- +goose Up
-- Attempts that ended well, some in a row and without an index: there may be hundreds a second, and they are looked for
-- seldom. Those of provisioning_attempt failed.
CREATE TABLE provisioning_success (
    id       BIGINT NOT NULL PRIMARY KEY,  -- in the order of time
    attempts BIGINT NOT NULL,              -- how many
    detail   TEXT   NOT NULL               -- JSON: a list of the shape ProvisioningAttempt of the operator's API
);

-- +goose Down
DROP TABLE provisioning_success;
