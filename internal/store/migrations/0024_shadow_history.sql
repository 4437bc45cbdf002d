-- +goose Up
ALTER TABLE shadow ADD COLUMN changes BIGINT NOT NULL DEFAULT 0; -- how many entries its history had in all

-- What became of shadows: a ring of entries each.
CREATE TABLE shadow_history (
    thing     TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    slot      BIGINT NOT NULL,                -- number modulo the entries kept of a shadow
    number    BIGINT NOT NULL,                -- counts the shadow's entries
    version   BIGINT NOT NULL,
    time      BIGINT NOT NULL,
    operation TEXT   NOT NULL,                -- update, delete, restore
    principal TEXT   NOT NULL,                -- who did it: ARN, or kind and id; '' = the service
    client    TEXT   NOT NULL,                -- MQTT client id; '' = not by MQTT
    change    BYTEA,                          -- the state that was sent, JSON
    document  BYTEA,                          -- what came of it, as in shadow
    PRIMARY KEY (thing, name, slot)
);

-- +goose Down
DROP TABLE shadow_history;
ALTER TABLE shadow DROP COLUMN changes;
