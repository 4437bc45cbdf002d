-- +goose Up

CREATE TABLE command (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    definition TEXT   NOT NULL,               -- JSON, CreateCommandRequest without tags
    deprecated BOOLEAN NOT NULL,
    deleting   BIGINT NOT NULL,               -- ms, since when it is to be deleted; 0 = it is not
    created    BIGINT NOT NULL,               -- ms
    modified   BIGINT NOT NULL                -- ms
);

CREATE TABLE command_execution (
    target     TEXT COLLATE "C" NOT NULL,     -- thing/NAME or client/ID
    id         TEXT COLLATE "C" NOT NULL,
    command    TEXT COLLATE "C" NOT NULL,
    status     TEXT   NOT NULL,
    reason     TEXT   NOT NULL,               -- JSON, StatusReason; '' = none
    result     TEXT   NOT NULL,               -- JSON, of CommandExecutionResult by name; '' = none
    parameters TEXT   NOT NULL,               -- JSON, of CommandParameterValue by name; '' = none
    timeout    BIGINT NOT NULL,               -- s
    due        BIGINT NOT NULL,               -- ms, when it times out; 0 = it does no longer
    final      BOOLEAN NOT NULL,              -- nothing changes its status any more
    token      TEXT   NOT NULL,               -- of the client that started it; '' = none
    created    BIGINT NOT NULL,               -- ms, as all times
    modified   BIGINT NOT NULL,
    started    BIGINT NOT NULL,               -- 0 = not yet
    completed  BIGINT NOT NULL,               -- 0 = not yet
    PRIMARY KEY (target, id)
);
CREATE INDEX command_execution_due ON command_execution (due) WHERE due > 0;
CREATE INDEX command_execution_created ON command_execution (created, target, id);
CREATE INDEX command_execution_of_command ON command_execution (command, created);
CREATE UNIQUE INDEX command_execution_token ON command_execution (token) WHERE token <> '';

-- +goose Down
DROP TABLE command_execution;
DROP TABLE command;
