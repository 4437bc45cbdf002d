-- +goose Up

-- Messages of which a client that is not connected needs only the last: see mqtt.Message.Place.
ALTER TABLE mqtt_queue ADD COLUMN topic TEXT;
ALTER TABLE mqtt_queue ADD COLUMN place BIGINT;
CREATE INDEX mqtt_queue_place ON mqtt_queue (session, topic, place) WHERE topic IS NOT NULL;

-- +goose Down
DROP INDEX mqtt_queue_place;
ALTER TABLE mqtt_queue DROP COLUMN place;
ALTER TABLE mqtt_queue DROP COLUMN topic;
