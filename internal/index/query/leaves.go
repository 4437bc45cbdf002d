package query

import (
	"encoding/json"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Text makes the value of a text. It counts as a number too when it reads as one, as attributes of things do.
func Text(field, s string) Value {
	v := Value{Field: field, Text: s, Number: math.NaN()}
	if f, ok := number(s); ok {
		v.Number = f
	}
	return v
}

// Leaves appends the values of a JSON document (as encoding/json decodes it, numbers as float64 or json.Number) under a
// field: members by their names with a dot before them, elements of arrays under the array's own name, null as nothing. It stops
// at max values and tells so: then they are the first by the names of members, the same each time, so that what a device
// reports without end comes after what is desired of it.
func Leaves(d Document, field string, doc any, max int) (_ Document, whole bool) {
	out, whole := leaves(d, field, doc, max, maps.Keys[map[string]any])
	if !whole {
		out, _ = leaves(d, field, doc, max, inOrder)
	}
	return out, whole
}

func inOrder(m map[string]any) iter.Seq[string] { return slices.Values(slices.Sorted(maps.Keys(m))) }

func leaves(d Document, field string, doc any, max int, keys func(map[string]any) iter.Seq[string]) (_ Document, whole bool) {
	if len(d) >= max {
		return d, false
	}
	switch x := doc.(type) {
	case map[string]any:
		for k := range keys(x) {
			var ok bool
			if d, ok = leaves(d, field+"."+k, x[k], max, keys); !ok {
				return d, false
			}
		}
	case []any:
		for _, v := range x {
			var ok bool
			if d, ok = leaves(d, field, v, max, keys); !ok {
				return d, false
			}
		}
	case string:
		return append(d, Text(field, x)), true
	case bool:
		return append(d, Value{Field: field, Kind: Boolean, Text: strconv.FormatBool(x), Number: math.NaN()}), true
	case float64:
		return append(d, Value{Field: field, Kind: Number, Text: strconv.FormatFloat(x, 'g', -1, 64), Number: x}), true
	case json.Number:
		f, _ := x.Float64()
		return append(d, Value{Field: field, Kind: Number, Text: x.String(), Number: f}), true
	}
	return d, true
}

// Location reads a location: "lat,lon", "POINT(lon lat)", {"lat":…,"lon":…} with AWS's spellings, or [lat,lon]. lonLat
// swaps the order of the first and the last.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/location-indexing-geoquery.html
func Location(v any, lonLat bool) (lat, lon float64, ok bool) {
	switch x := v.(type) {
	case string:
		s := strings.TrimSpace(x)
		if inner, is := strings.CutPrefix(strings.ToUpper(s), "POINT"); is {
			f := strings.Fields(strings.Trim(strings.TrimSpace(inner), "()"))
			if len(f) != 2 {
				return 0, 0, false
			}
			return pair(f[1], f[0], false)
		}
		a, b, found := strings.Cut(s, ",")
		if !found {
			return 0, 0, false
		}
		return pair(strings.TrimSpace(a), strings.TrimSpace(b), lonLat)
	case []any:
		if len(x) != 2 {
			return 0, 0, false
		}
		return pair(x[0], x[1], lonLat)
	case map[string]any:
		var la, lo any
		for _, k := range []string{"lat", "latitude"} {
			if v, has := x[k]; has {
				la = v
			}
		}
		for _, k := range []string{"lon", "long", "longitude"} {
			if v, has := x[k]; has {
				lo = v
			}
		}
		return pair(la, lo, false)
	}
	return 0, 0, false
}

func pair(a, b any, swap bool) (lat, lon float64, ok bool) {
	if swap {
		a, b = b, a
	}
	lat, ok1 := degrees(a, 90)
	lon, ok2 := degrees(b, 180)
	return lat, lon, ok1 && ok2
}

func degrees(v any, limit float64) (float64, bool) {
	f := math.NaN()
	switch x := v.(type) {
	case float64:
		f = x
	case json.Number:
		f, _ = x.Float64()
	case string:
		var ok bool
		if f, ok = number(x); !ok {
			return 0, false
		}
	}
	return f, math.Abs(f) <= limit
}
