package query_test

import (
	"fmt"
	"slices"
	"testing"

	"flotilla/internal/index/query"
)

// Of a document with too many values the same are found each time, and those that are desired of a thing whatever it reports.
func TestTooManyLeaves(t *testing.T) {
	reported := map[string]any{}
	for i := range 200 {
		reported[fmt.Sprint("v", i)] = float64(i)
	}
	shadow := map[string]any{"desired": map[string]any{"quarantine": true}, "reported": reported, "version": 5.0}
	var first []string
	for range 20 {
		d, whole := query.Leaves(nil, "shadow", shadow, 100)
		if whole || len(d) != 100 {
			t.Fatalf("%d values, whole: %v", len(d), whole)
		}
		var fields []string
		for _, v := range d {
			fields = append(fields, v.Field)
		}
		if !slices.Contains(fields, "shadow.desired.quarantine") {
			t.Error("what is desired is not among them")
		}
		if first == nil {
			first = fields
		}
		if !slices.Equal(fields, first) {
			t.Error("others than before")
		}
	}
}
