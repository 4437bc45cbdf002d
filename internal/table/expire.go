package table

import (
	"context"
	"database/sql"
	"math"
	"time"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/store"
)

const sweepRows = 500 // in one transaction

// UpdateTimeToLive names the attribute that holds when an item ends, in seconds, or none. It returns when that holds
// for all items that are there.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateTimeToLive.html
func (t *Tables) UpdateTimeToLive(ctx context.Context, in *dynamodb.UpdateTimeToLiveInput) (*dynamodb.UpdateTimeToLiveOutput, error) {
	spec := in.TimeToLiveSpecification
	at := key{[]byte{}, []byte{}}
	for more := true; more; {
		err := t.write(ctx, in.TableName, func(tx store.Tx, one *table) (err error) {
			if len(at.hash) == 0 {
				if spec.Enabled {
					one.TTL = spec.AttributeName
				} else if one.TTL == spec.AttributeName {
					one.TTL = ""
				} else {
					return invalid("TimeToLive is already disabled")
				}
				if err := one.save(tx); err != nil {
					return err
				}
			}
			at, more, err = one.expireAgain(tx, at)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return &dynamodb.UpdateTimeToLiveOutput{TimeToLiveSpecification: spec}, nil
}

// expireAgain sets when the items after a key end, for some of them.
func (t *table) expireAgain(tx store.Tx, at key) (last key, more bool, err error) {
	rows, err := tx.Query(`SELECT hash_key, range_key, item FROM dynamo_item WHERE table_id = $1 AND (hash_key, range_key) > ($2, $3)
		ORDER BY hash_key, range_key LIMIT $4`, t.id, at.hash, at.rng, sweepRows)
	if err != nil {
		return at, false, err
	}
	type change struct {
		key
		expires any
	}
	var changes []change
	for rows.Next() {
		var c change
		var text string
		if err := rows.Scan(&c.hash, &c.rng, &text); err != nil {
			_ = rows.Close()
			return at, false, err
		}
		item, err := decode(text)
		if err != nil {
			_ = rows.Close()
			return at, false, err
		}
		c.expires = t.expires(item)
		changes = append(changes, c)
	}
	_ = rows.Close()
	if err := rows.Err(); err != nil {
		return at, false, err
	}
	for _, c := range changes {
		at = c.key
		if _, err := tx.Exec(`UPDATE dynamo_item SET expires = $4 WHERE table_id = $1 AND hash_key = $2 AND range_key = $3`, t.id, c.hash, c.rng, c.expires); err != nil {
			return at, false, err
		}
	}
	return at, len(changes) == sweepRows, nil
}

// DescribeTimeToLive tells the attribute that holds when an item ends.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_DescribeTimeToLive.html
func (t *Tables) DescribeTimeToLive(ctx context.Context, in *dynamodb.DescribeTimeToLiveInput) (*dynamodb.DescribeTimeToLiveOutput, error) {
	d := &dynamodb.TimeToLiveDescription{TimeToLiveStatus: new(dynamodb.TimeToLiveStatusDisabled)}
	err := t.read(ctx, in.TableName, func(_ store.Tx, one *table) error {
		if one.TTL != "" {
			d.TimeToLiveStatus, d.AttributeName = new(dynamodb.TimeToLiveStatusEnabled), &one.TTL
		}
		return nil
	})
	return &dynamodb.DescribeTimeToLiveOutput{TimeToLiveDescription: d}, err
}

// Run deletes what has expired, and the items of tables that were deleted, until ctx ends.
func (t *Tables) Run(ctx context.Context) {
	t.DB.Lead(ctx, "table", func(ctx context.Context) {
		tick := time.NewTicker(t.cfg.Sweep)
		defer tick.Stop()
		for {
			if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
				t.Log.Warn("expired items can't be deleted", "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// Sweep deletes what has expired, and the items of tables that were deleted.
func (t *Tables) Sweep(ctx context.Context) error {
	if err := t.sweep(ctx, `expires IS NOT NULL AND expires <= $1`, t.Now().Unix()); err != nil {
		return err
	}
	for id := int64(math.MinInt64); ; {
		found, orphan, err := t.nextTable(ctx, id)
		if err != nil || !found.Valid {
			return err
		}
		id = found.Int64
		if orphan {
			if err := t.sweep(ctx, `table_id = $1`, id); err != nil {
				return err
			}
		}
	}
}

// nextTable gives the id after another that items have, by their index, and whether its table is gone.
func (t *Tables) nextTable(ctx context.Context, after int64) (id sql.NullInt64, orphan bool, err error) {
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if err := tx.QueryRow(`SELECT MIN(table_id) FROM dynamo_item WHERE table_id > $1`, after).Scan(&id); err != nil || !id.Valid {
			return err
		}
		var n int64
		err := tx.QueryRow(`SELECT COUNT(*) FROM dynamo_table WHERE id = $1`, id.Int64).Scan(&n)
		orphan = n == 0
		return err
	})
	return id, orphan, err
}

// sweep deletes the items that a condition holds for, some at a time; it writes only when there are any.
func (t *Tables) sweep(ctx context.Context, where string, arg int64) error {
	for {
		var any int64
		err := t.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
			return tx.QueryRow(`SELECT COUNT(*) FROM (SELECT 1 FROM dynamo_item WHERE `+where+` LIMIT 1) AS found`, arg).Scan(&any)
		})
		if err != nil || any == 0 {
			return err
		}
		err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`DELETE FROM dynamo_item WHERE (table_id, hash_key, range_key) IN
				(SELECT table_id, hash_key, range_key FROM dynamo_item WHERE `+where+` LIMIT $2)`, arg, sweepRows)
			return err
		})
		if err != nil {
			return err
		}
	}
}
