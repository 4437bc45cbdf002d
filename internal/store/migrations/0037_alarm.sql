-- +goose Up

-- Alarms whose state cloudwatchAlarm actions of topic rules set.
CREATE TABLE alarm (
    name    TEXT   NOT NULL PRIMARY KEY,
    state   TEXT   NOT NULL,                  -- OK, ALARM, INSUFFICIENT_DATA
    reason  TEXT   NOT NULL,
    rule    TEXT   NOT NULL,                  -- that set it last
    updated BIGINT NOT NULL,                  -- ms, when its message was received
    changed BIGINT NOT NULL                   -- ms, updated of the first message with this state
);

-- +goose Down
DROP TABLE alarm;
