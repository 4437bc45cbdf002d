-- +goose Up
CREATE TABLE authorizer (
    name             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    function_arn     TEXT    NOT NULL,
    token_key_name   TEXT    NOT NULL,        -- '' = none
    signing_keys     TEXT    NOT NULL,        -- JSON: {"key name": "PEM"}
    signing_disabled BOOLEAN NOT NULL,
    status           TEXT    NOT NULL,        -- ACTIVE | INACTIVE
    caching          BOOLEAN NOT NULL,        -- of answers, for HTTP
    created          BIGINT  NOT NULL,
    modified         BIGINT  NOT NULL
) /*WITHOUT ROWID*/;

-- At most one row, with id 1: the authorizer of requests that name none.
CREATE TABLE authorizer_default (
    id   BIGINT NOT NULL PRIMARY KEY,
    name TEXT   NOT NULL
);

-- +goose Down
DROP TABLE authorizer_default;
DROP TABLE authorizer;
