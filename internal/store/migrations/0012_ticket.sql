-- +goose Up
CREATE TABLE tls_ticket_key (
    period  BIGINT  NOT NULL PRIMARY KEY, -- its number, of twelve hours each since 1970: the tickets of that time are encrypted with it
    secret  BYTEA   NOT NULL,             -- 32 bytes, or these sealed
    sealed  BOOLEAN NOT NULL
) /*WITHOUT ROWID*/;

-- +goose Down
DROP TABLE tls_ticket_key;
