-- +goose Up
CREATE INDEX certificate_by_age ON certificate (not_before, id) WHERE claim = '';

-- +goose Down
DROP INDEX certificate_by_age;
