-- +goose Up
CREATE TABLE job (
    job_id           TEXT    NOT NULL PRIMARY KEY,
    definition       TEXT    NOT NULL,         -- JSON, type definition of internal/jobs
    status           TEXT    NOT NULL,         -- SCHEDULED | IN_PROGRESS | CANCELED | COMPLETED | DELETION_IN_PROGRESS
    target_selection TEXT    NOT NULL,         -- SNAPSHOT | CONTINUOUS
    namespace        TEXT    NOT NULL,
    created          BIGINT  NOT NULL,         -- ms
    modified         BIGINT  NOT NULL,         -- ms
    completed        BIGINT,                   -- ms
    force_canceled   BOOLEAN NOT NULL,
    reason_code      TEXT,
    comment          TEXT,
    pace_minute      BIGINT  NOT NULL,         -- rollout.Pace
    pace_released    BIGINT  NOT NULL
);
CREATE INDEX job_by_status ON job (status, job_id);

-- The things and thing groups that a job is for.
CREATE TABLE job_target (
    job_id   TEXT    NOT NULL,
    target   TEXT    NOT NULL,                 -- ARN
    position TEXT    NOT NULL,                 -- page token: how far its things are in job_waiting
    expanded BOOLEAN NOT NULL,                 -- all are
    PRIMARY KEY (job_id, target)
) /*WITHOUT ROWID*/;
CREATE INDEX job_target_by_target ON job_target (target, job_id);

-- Things that the rollout has not come to.
CREATE TABLE job_waiting (
    job_id TEXT NOT NULL,
    thing  TEXT NOT NULL,
    PRIMARY KEY (job_id, thing)
) /*WITHOUT ROWID*/;

CREATE TABLE job_execution (
    thing          TEXT    NOT NULL,
    job_id         TEXT    NOT NULL,
    number         BIGINT  NOT NULL,           -- 1, one more for each retry
    latest         BOOLEAN NOT NULL,           -- no retry has followed
    status         TEXT    NOT NULL,
    version        BIGINT  NOT NULL,
    queued         BIGINT  NOT NULL,           -- ms
    started        BIGINT,                     -- ms
    modified       BIGINT  NOT NULL,           -- ms
    details        TEXT    NOT NULL,           -- JSON object, statusDetails
    force_canceled BOOLEAN NOT NULL,
    job_deadline   BIGINT,                     -- ms, of inProgressTimeoutInMinutes
    step_deadline  BIGINT,                     -- ms, of stepTimeoutInMinutes
    due            BIGINT,                     -- the earlier of the two
    PRIMARY KEY (thing, job_id, number)
);
CREATE INDEX job_execution_by_job ON job_execution (job_id, thing) WHERE latest;
CREATE INDEX job_execution_by_status ON job_execution (job_id, status, thing) WHERE latest;
CREATE INDEX job_execution_pending ON job_execution (thing, queued, job_id) WHERE status IN ('QUEUED', 'IN_PROGRESS');
CREATE INDEX job_execution_due ON job_execution (due) WHERE due IS NOT NULL;

-- How many latest executions of a job have a status.
CREATE TABLE job_count (
    job_id TEXT   NOT NULL,
    status TEXT   NOT NULL,
    n      BIGINT NOT NULL,
    PRIMARY KEY (job_id, status)
) /*WITHOUT ROWID*/;

-- +goose Down
DROP TABLE job_count;
DROP TABLE job_execution;
DROP TABLE job_waiting;
DROP TABLE job_target;
DROP TABLE job;
