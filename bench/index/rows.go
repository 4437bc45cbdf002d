package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

// rows are those of the index that a server would derive from these things, each of whose values is one word. They are
// kept to be inserted in the order of the keys: a server inserts them thing by thing, which takes far longer.
type rows struct {
	fields    map[string]int
	terms     [][]termRow // by field
	numbers   [][]numberRow
	locations []locationRow
}

type termRow struct {
	text     string
	document int32
	whole    bool
}

type numberRow struct {
	n        float64
	document int32
}

type locationRow struct {
	lat, lon float64
	document int32
}

func newRows() *rows { return &rows{fields: map[string]int{}} }

// add notes the rows of a thing and gives the content of its document.
func (r *rows) add(i int) ([]byte, error) {
	d, err := document(i)
	if err != nil {
		return nil, err
	}
	list := make([][3]any, len(d))
	number := int32(i + 1)
	for k, v := range d {
		f, known := r.fields[v.Field]
		if !known {
			f = len(r.fields)
			r.fields[v.Field], r.terms, r.numbers = f, append(r.terms, nil), append(r.numbers, nil)
		}
		if v.Located {
			list[k] = [3]any{v.Field, v.Lat, v.Lon}
			r.locations = append(r.locations, locationRow{v.Lat, v.Lon, number})
			continue
		}
		list[k] = [3]any{v.Field, v.Kind, v.Text}
		text := query.Fold(v.Text)
		r.terms[f] = append(r.terms[f], termRow{text[:min(len(text), 256)], number, true})
		if v.Kind == query.Number {
			r.terms[f] = append(r.terms[f], termRow{fmt.Sprintf("\x01%g", v.Number), number, false})
		}
		if v.Kind != query.Boolean && !math.IsNaN(v.Number) {
			r.numbers[f] = append(r.numbers[f], numberRow{v.Number, number})
		}
	}
	return json.Marshal(list)
}

// document is what the index has of a thing, in its order.
func document(i int) (query.Document, error) {
	var shadow map[string]any
	dec := json.NewDecoder(strings.NewReader(state(i)))
	dec.UseNumber()
	if err := dec.Decode(&shadow); err != nil {
		return nil, err
	}
	reported, _ := shadow["reported"].(map[string]any)
	desired, _ := shadow["desired"].(map[string]any)
	delta := map[string]any{}
	for k, v := range desired {
		if v != reported[k] {
			delta[k] = v
		}
	}
	if shadow["hasDelta"] = len(delta) > 0; len(delta) > 0 {
		shadow["delta"] = delta
	}
	shadow["version"] = json.Number("1")
	d := query.Document{query.Text("thingName", thing(i)), query.Text("thingId", thingID(i)), query.Text("attributes.model", model(i))}
	d, _ = query.Leaves(d, "registry.version", 1.0, 1000)
	d, _ = query.Leaves(d, "shadow", shadow, 1000)
	lat, lon, located := query.Location(reported["at"], false)
	if !located {
		return nil, fmt.Errorf("%s has no location", thing(i))
	}
	d = append(d, query.Value{Field: "shadow.reported.at", Located: true, Lat: lat, Lon: lon, Number: math.NaN()})
	slices.SortFunc(d, func(a, b query.Value) int {
		return cmp.Or(strings.Compare(a.Field, b.Field), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Text, b.Text))
	})
	return d, nil
}

// insert writes the rows, by field.
func (r *rows) insert(ctx context.Context, db *store.DB) error {
	for name, f := range r.fields {
		err := db.Write(ctx, func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`INSERT INTO index_field (number, kind, name) VALUES ($1, 0, $2)`, f+1, name)
			return err
		})
		if err != nil {
			return err
		}
	}
	for f, list := range r.terms {
		slices.SortFunc(list, func(a, b termRow) int {
			return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.document, b.document))
		})
		err := insert(ctx, db, "index_term (field, term, document, whole)", len(list), func(k int) ([]any, error) {
			return []any{f + 1, list[k].text, int64(list[k].document), list[k].whole}, nil
		})
		if err != nil {
			return err
		}
		r.terms[f] = nil
	}
	for f, list := range r.numbers {
		slices.SortFunc(list, func(a, b numberRow) int { return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(a.document, b.document)) })
		err := insert(ctx, db, "index_number (field, number, document)", len(list), func(k int) ([]any, error) {
			return []any{f + 1, list[k].n, int64(list[k].document)}, nil
		})
		if err != nil {
			return err
		}
		r.numbers[f] = nil
	}
	slices.SortFunc(r.locations, func(a, b locationRow) int {
		return cmp.Or(cmp.Compare(a.lat, b.lat), cmp.Compare(a.lon, b.lon), cmp.Compare(a.document, b.document))
	})
	at := r.fields["shadow.reported.at"] + 1
	err := insert(ctx, db, "index_location (field, lat, lon, document)", len(r.locations), func(k int) ([]any, error) {
		l := r.locations[k]
		return []any{at, l.lat, l.lon, int64(l.document)}, nil
	})
	if err != nil {
		return err
	}
	return insertSetting(ctx, db)
}
