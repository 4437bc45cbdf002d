package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/shadow/doc"
	"flotilla/internal/store"
)

func thing(i int) string { return fmt.Sprintf("thing-%07d", i) }

func thingID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

func model(i int) string { return fmt.Sprint("pump-", mix(i, 30, 12)) }

// mix spreads i over 0..n-1, so that values that are next to each other in one field are not in another.
func mix(i, salt, n int) int {
	x := uint64(i)*0x9E3779B97F4A7C15 + uint64(salt)*0xD1B54A32D192ED03
	x ^= x >> 29
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 32
	return int(x % uint64(n))
}

// status is that of a thing; one in a hundred is at fault.
func status(i int) string {
	switch n := mix(i, 1, 100); {
	case n == 0:
		return "fault"
	case n < 30:
		return "idle"
	}
	return "running"
}

// state is that of a thing's shadow, about 1 KB of JSON.
func state(i int) string {
	hex := func(salt, digits int) string {
		var b strings.Builder
		for k := 0; b.Len() < digits; k++ {
			fmt.Fprintf(&b, "%08x", mix(i, salt*100+k, 1<<32))
		}
		return b.String()[:digits]
	}
	return fmt.Sprintf(`{"desired":{"firmware":"2.4.%d","interval":60},"reported":{"firmware":"2.4.%d","interval":%d,"status":"%s","battery":%d,`+
		`"uptime":%d,"site":"site-%d","serial":"SN-%07d","at":{"lat":%d.%03d,"lon":%d.%03d},`+
		`"sensor":{"model":"mk%d","calibrated":%t,"certificate":"%s"},"network":{"mac":"%s"},"boot":{"image":"%s","slot":"%s"}}}`,
		i%3, mix(i, 2, 3), []int{60, 30}[mix(i, 3, 2)], status(i), mix(i, 4, 101),
		mix(i, 9, 5_000_000), mix(i, 11, 1000), i, 35+mix(i, 12, 25), 1+mix(i, 13, 999), mix(i, 14, 50)-10, 1+mix(i, 15, 999),
		mix(i, 16, 9), mix(i, 17, 2) == 0, hex(19, 384), hex(23, 12), hex(26, 128), []string{"a", "b"}[mix(i, 27, 2)])
}

// fill makes things with shadows and, unless a server is to do that, the index of both.
func fill(ctx context.Context, cfg store.Config, n int, indexed bool) error {
	db, err := store.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	now := time.Now()
	rows := newRows()
	err = insert(ctx, db, "thing (name, id, type, billing, attributes, version, created)", n, func(i int) ([]any, error) {
		return []any{thing(i), thingID(i), "", "", fmt.Sprintf(`{"model":"%s"}`, model(i)), 1, now.UnixMilli()}, nil
	})
	if err != nil {
		return err
	}
	err = insert(ctx, db, "shadow (thing, name, version, document, modified)", n, func(i int) ([]any, error) {
		u, err := doc.ParseUpdate([]byte(`{"state":`+state(i)+`}`), now.Unix(), doc.Limits{Bytes: 8192, Depth: 8})
		if err != nil {
			return nil, err
		}
		out, err := doc.Apply(nil, 0, u, false)
		if err != nil {
			return nil, err
		}
		return []any{thing(i), "", 1, out.Stored, now.UnixMilli()}, nil
	})
	if err != nil || !indexed {
		return err
	}
	err = insert(ctx, db, "index_document (number, kind, name, content)", n, func(i int) ([]any, error) {
		content, err := rows.add(i)
		return []any{i + 1, 0, thing(i), content}, err
	})
	if err != nil {
		return err
	}
	return rows.insert(ctx, db)
}

// configuration says what is indexed.
func configuration() *iot.ThingIndexingConfiguration {
	return &iot.ThingIndexingConfiguration{
		ThingIndexingMode: iot.ThingIndexingModeRegistryAndShadow,
		Filter:            &iot.IndexingFilter{GeoLocations: []*iot.GeoLocationTarget{{Name: new("shadow.reported.at"), Order: new(iot.TargetFieldOrderLatLon)}}},
		CustomFields: []*iot.Field{
			{Name: new("shadow.reported.battery"), Type: new(iot.FieldTypeNumber)},
			{Name: new("shadow.reported.status"), Type: new(iot.FieldTypeString)},
		},
	}
}

// insertSetting has a server find the index built.
func insertSetting(ctx context.Context, db *store.DB) error {
	text, err := json.Marshal(configuration())
	if err != nil {
		return err
	}
	return db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO index_setting (kind, setting, generation, built, ready) VALUES (0, $1, 1, 1, TRUE)`, string(text))
		return err
	})
}

// insert fills a table with n rows. PostgreSQL takes many a statement, to save round trips; SQLite is faster by one.
func insert(ctx context.Context, db *store.DB, table string, n int, row func(int) ([]any, error)) error {
	batch, aStatement := 20_000, 1
	if db.Name() == "postgres" {
		aStatement = 500
	}
	for from := 0; from < n; from += batch {
		err := db.Write(ctx, func(_ context.Context, tx store.Tx) error {
			for at := from; at < min(n, from+batch); at += aStatement {
				var args []any
				count := 0
				for i := at; i < min(n, at+aStatement); i++ {
					r, err := row(i)
					if err != nil {
						return err
					}
					args, count = append(args, r...), count+1
				}
				if _, err := tx.Exec("INSERT INTO "+table+" VALUES "+marks(count, len(args)/count), args...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
	}
	return nil
}

// marks are the placeholders of rows.
func marks(rows, columns int) string {
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteString("(")
		case i%columns == 0:
			b.WriteString("),(")
		default:
			b.WriteString(",")
		}
		fmt.Fprint(&b, "$", i+1)
	}
	return b.String() + ")"
}
