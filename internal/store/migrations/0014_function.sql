-- +goose Up
CREATE TABLE function (
    name          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created       BIGINT NOT NULL,
    last_version  BIGINT NOT NULL,            -- the number of the version that was published last; 0 = none
    settings      TEXT   NOT NULL             -- JSON: tags, permissions, concurrency, event invoke configurations
) /*WITHOUT ROWID*/;

CREATE TABLE function_version (
    name          TEXT COLLATE "C" NOT NULL,
    version       BIGINT NOT NULL,            -- 0 = $LATEST
    revision      TEXT   NOT NULL,
    modified      BIGINT NOT NULL,
    code_sha256   TEXT   NOT NULL,            -- of the zip, in hexadecimal
    code_size     BIGINT NOT NULL,            -- of the zip
    configuration TEXT   NOT NULL,            -- JSON
    PRIMARY KEY (name, version)
) /*WITHOUT ROWID*/;
CREATE INDEX function_version_by_code ON function_version (code_sha256);

-- The zips, in parts, so that no write takes long.
CREATE TABLE function_code (
    sha256 TEXT   NOT NULL,
    part   BIGINT NOT NULL,
    bytes  BYTEA  NOT NULL,
    PRIMARY KEY (sha256, part)
);

-- Asynchronous invocations that are owed.
CREATE TABLE function_event (
    id         BIGINT NOT NULL PRIMARY KEY,
    function   TEXT   NOT NULL,               -- name, or what configuration calls it
    target     TEXT   NOT NULL,               -- ARN or name, as it was called
    request_id TEXT   NOT NULL,
    payload    BYTEA  NOT NULL,
    created    BIGINT NOT NULL,
    failures   BIGINT NOT NULL,               -- attempts in which the function failed
    throttled  BIGINT NOT NULL,               -- attempts in which it was not reached
    due        BIGINT NOT NULL,               -- when it may be tried; while it is tried, when another node may
    node       TEXT   NOT NULL                -- who tries it
) /*WITHOUT ROWID*/;
CREATE INDEX function_event_due ON function_event (function, due);

-- +goose Down
DROP TABLE function_event;
DROP TABLE function_code;
DROP TABLE function_version;
DROP TABLE function;
