-- +goose Up
CREATE TABLE topic_rule (
    name     TEXT    NOT NULL PRIMARY KEY,
    created  BIGINT  NOT NULL,
    disabled BOOLEAN NOT NULL,
    payload  TEXT    NOT NULL                 -- TopicRulePayload, JSON as on the wire
) /*WITHOUT ROWID*/;

-- An action outlives its rule for as long as the outbox holds rows for it.
CREATE TABLE topic_rule_action (
    id           BIGINT NOT NULL PRIMARY KEY,
    rule         TEXT   NOT NULL,
    position     BIGINT NOT NULL,             -- in the rule's actions; -1 = the error action
    definition   TEXT   NOT NULL,             -- Action, JSON as on the wire
    error_action BIGINT NOT NULL,             -- the action that takes what fails; 0 = none
    retired      BIGINT NOT NULL              -- when the rule ceased to have it; 0 = it has it
) /*WITHOUT ROWID*/;
CREATE INDEX topic_rule_action_by_rule ON topic_rule_action (rule);

-- What rules owe to their actions. A writer is one run of a node's engine; ids rise
-- within a writer in the order of commits.
CREATE TABLE outbox (
    action BIGINT NOT NULL,
    writer BIGINT NOT NULL,
    id     BIGINT NOT NULL,
    body   BYTEA  NOT NULL,                   -- form in internal/rules/entry.go
    PRIMARY KEY (action, writer, id)
) /*WITHOUT ROWID*/;

-- Who executes the rows of a writer: the node that keeps the beat rising.
CREATE TABLE outbox_writer (
    id   BIGINT NOT NULL PRIMARY KEY,
    node TEXT   NOT NULL,
    beat BIGINT NOT NULL
) /*WITHOUT ROWID*/;

-- +goose Down
DROP TABLE outbox_writer;
DROP TABLE outbox;
DROP TABLE topic_rule_action;
DROP TABLE topic_rule;
