-- +goose Up
-- A client id that is connected, or has a session, or was connected within the last hour.
CREATE TABLE mqtt_session (
    client_id      TEXT   NOT NULL PRIMARY KEY,
    number         BIGINT NOT NULL,           -- of the session in the tables below; 0 = nothing is kept beyond the connection
    principal      TEXT   NOT NULL,
    protocol       BIGINT NOT NULL,           -- MQTT protocol level: 4, 5
    expiry_seconds BIGINT NOT NULL,           -- 0 = ends with the connection, 4294967295 = never
    node           TEXT   NOT NULL,           -- that holds the connection; '' = none
    epoch          BIGINT NOT NULL,           -- number of the connection; rises
    connected      BIGINT NOT NULL,
    disconnected   BIGINT NOT NULL,           -- 0 while connected
    principal_since BIGINT NOT NULL,          -- messages up to this id were queued for another principal
    expires        BIGINT,                    -- when the row ends; NULL while connected, or never
    will           BYTEA,                     -- message, form in internal/gateway/codec; NULL = none, or no longer owed
    will_delay     BIGINT NOT NULL,           -- milliseconds
    will_due       BIGINT                     -- when the will is to be published (again); NULL while connected
)/*WITHOUT ROWID*/;
CREATE UNIQUE INDEX mqtt_session_number ON mqtt_session (number) WHERE number <> 0;
CREATE INDEX mqtt_session_node ON mqtt_session (node) WHERE node <> '';
CREATE INDEX mqtt_session_expires ON mqtt_session (expires) WHERE expires IS NOT NULL;
CREATE INDEX mqtt_session_will ON mqtt_session (will_due) WHERE will_due IS NOT NULL;

CREATE TABLE mqtt_subscription (
    session     BIGINT NOT NULL,
    filter      TEXT   NOT NULL,              -- as in SUBSCRIBE, $share/ included
    options     BIGINT NOT NULL,              -- the byte of SUBSCRIBE: QoS, no local, retain as published, retain handling
    share_group BIGINT NOT NULL,              -- mqtt_share.number; 0 = not shared
    PRIMARY KEY (session, filter)
)/*WITHOUT ROWID*/;
CREATE INDEX mqtt_subscription_share ON mqtt_subscription (share_group) WHERE share_group <> 0;

-- Shared subscriptions with members that have persistent sessions.
CREATE TABLE mqtt_share (
    filter TEXT   NOT NULL PRIMARY KEY,       -- $share/name/filter
    number BIGINT NOT NULL UNIQUE
)/*WITHOUT ROWID*/;

-- Messages owed to sessions, and to groups without a connected member.
CREATE TABLE mqtt_queue (
    session BIGINT NOT NULL,                  -- mqtt_session.number or mqtt_share.number
    id      BIGINT NOT NULL,                  -- of the message; ascending
    share   BIGINT NOT NULL,                  -- the group that it came through; 0 = none
    options BIGINT NOT NULL,                  -- 1 = retain as published
    size    BIGINT NOT NULL,                  -- bytes that it counts in its queue
    expires BIGINT,                           -- when the message expires; NULL = never
    body    BYTEA,                            -- form in internal/gateway/codec; NULL = in mqtt_body
    PRIMARY KEY (session, id)
)/*WITHOUT ROWID*/;
CREATE INDEX mqtt_queue_expires ON mqtt_queue (expires) WHERE expires IS NOT NULL;
CREATE INDEX mqtt_queue_shared_body ON mqtt_queue (id) WHERE body IS NULL;

-- Bodies that several queues share.
CREATE TABLE mqtt_body (
    id   BIGINT NOT NULL PRIMARY KEY,
    body BYTEA  NOT NULL
)/*WITHOUT ROWID*/;

CREATE TABLE mqtt_retained (
    topic      TEXT   NOT NULL PRIMARY KEY,
    qos        BIGINT NOT NULL,
    size       BIGINT NOT NULL,               -- of the payload
    modified   BIGINT NOT NULL,
    expires    BIGINT,                        -- NULL = never
    publisher  TEXT   NOT NULL,               -- principal id; '' = the service
    body       BYTEA  NOT NULL                -- form in internal/gateway/codec
);
CREATE INDEX mqtt_retained_expires ON mqtt_retained (expires) WHERE expires IS NOT NULL;

-- +goose Down
DROP TABLE mqtt_retained;
DROP TABLE mqtt_body;
DROP TABLE mqtt_queue;
DROP TABLE mqtt_share;
DROP TABLE mqtt_subscription;
DROP TABLE mqtt_session;
