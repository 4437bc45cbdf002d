package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/store"
	"flotilla/internal/table/number"
)

// attribute is one of a key.
type attribute struct{ Name, Type string }

// table is one as the store has it.
type table struct {
	name string
	id   int64

	Created     int64 // ms
	Hash, Range attribute
	OnDemand    bool
	Read, Write int64  // what was provisioned; it limits nothing
	TTL         string // the attribute; "" = none
	Protected   bool
}

func selectTable(tx store.Tx, name string) (*table, error) {
	t := &table{name: name}
	var text string
	err := tx.QueryRow(`SELECT id, description FROM dynamo_table WHERE name = $1`, name).Scan(&t.id, &text)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &dynamodb.ResourceNotFoundException{Message: "Requested resource not found: Table: " + name + " not found"}
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), t)
	}
	return t, err
}

func (t *table) save(tx store.Tx) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE dynamo_table SET description = $2 WHERE name = $1`, t.name, string(text))
	return err
}

// get is an item, nil when there is none.
func (t *table) get(tx store.Tx, k key) (Item, error) {
	var text string
	err := tx.QueryRow(`SELECT item FROM dynamo_item WHERE table_id = $1 AND hash_key = $2 AND range_key = $3`, t.id, k.hash, k.rng).Scan(&text)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decode(text)
}

func decode(text string) (Item, error) {
	var item Item
	if err := json.Unmarshal([]byte(text), &item); err != nil {
		return nil, fmt.Errorf("table: a stored item: %w", err)
	}
	return item, nil
}

// put stores an item in the place of the one with its key. The item must have been checked.
func (t *table) put(tx store.Tx, k key, item Item, size int) error {
	if size > maxItem {
		return invalid("Item size has exceeded the maximum allowed size")
	}
	text, err := json.Marshal(item)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO dynamo_item (table_id, hash_key, range_key, expires, size, item) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (table_id, hash_key, range_key) DO UPDATE SET expires = excluded.expires, size = excluded.size, item = excluded.item`,
		t.id, k.hash, k.rng, t.expires(item), size, string(text))
	return err
}

func (t *table) delete(tx store.Tx, k key) error {
	_, err := tx.Exec(`DELETE FROM dynamo_item WHERE table_id = $1 AND hash_key = $2 AND range_key = $3`, t.id, k.hash, k.rng)
	return err
}

// expires is when an item ends, in seconds; nil for never.
func (t *table) expires(item Item) any {
	v := item[t.TTL]
	if t.TTL == "" || v == nil || v.N == nil {
		return nil
	}
	n, err := number.Parse(*v.N)
	if err != nil {
		return nil
	}
	seconds, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || seconds <= 0 || seconds > 1<<40 {
		return nil
	}
	return int64(seconds)
}
