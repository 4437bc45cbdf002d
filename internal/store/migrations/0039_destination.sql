-- +goose Up

-- Where rules may send to outside of the deployment, once who is there has agreed.
CREATE TABLE topic_rule_destination (
    id        TEXT    NOT NULL PRIMARY KEY,
    kind      TEXT    NOT NULL,                -- http
    address   TEXT    NOT NULL,                -- http: the confirmation URL
    status    TEXT    NOT NULL,                -- TopicRuleDestinationStatus
    reason    TEXT    NOT NULL,                -- of the status; "" = none
    created   BIGINT  NOT NULL,
    updated   BIGINT  NOT NULL,
    token     TEXT    NOT NULL,                -- SHA-256 of the confirmation token, hexadecimal; "" = none is valid
    expires   BIGINT  NOT NULL,                -- of the token
    due       BOOLEAN NOT NULL                 -- a confirmation message is to be sent
) /*WITHOUT ROWID*/;
CREATE UNIQUE INDEX topic_rule_destination_address ON topic_rule_destination (kind, address);
CREATE INDEX topic_rule_destination_due ON topic_rule_destination (id) WHERE due;
CREATE INDEX topic_rule_destination_token ON topic_rule_destination (token) WHERE token <> '';

-- +goose Down
DROP TABLE topic_rule_destination;
