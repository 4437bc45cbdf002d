package live

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"flotilla/internal/aws/flotilla"
)

var aggregates = []string{"avg", "min", "max", "sum", "count", "last", "p95"}

// bucket gathers the points of one series and stretch of time.
type bucket struct {
	count         int64
	min, max, sum float64
	last          any
	values        []float64 // for p95 alone
}

func (b *bucket) add(value any, number float64, keep bool) {
	if b.count == 0 || number < b.min {
		b.min = number
	}
	if b.count == 0 || number > b.max {
		b.max = number
	}
	b.count++
	b.sum += number
	b.last = value
	if keep {
		b.values = append(b.values, number)
	}
}

// result is the aggregate as its type and text.
func (b *bucket) result(aggregate string) (kind, value string) {
	switch aggregate {
	case "count":
		return text(b.count)
	case "last":
		return text(b.last)
	case "avg":
		return text(b.sum / float64(b.count))
	case "min":
		return text(b.min)
	case "max":
		return text(b.max)
	case "sum":
		return text(b.sum)
	default: // p95: the smallest value that 95 % of all are not above
		slices.Sort(b.values)
		return text(b.values[int(math.Ceil(0.95*float64(len(b.values))))-1])
	}
}

// gathered is a series with its buckets, by their begin.
type gathered struct {
	series
	buckets map[int64]*bucket
}

// aggregated serves SearchTelemetry with an aggregate. Numbers are aggregated as DOUBLE, truth values as 0 and 1;
// texts have count and last only, and are left out by the others.
func (s *Store) aggregated(ctx context.Context, in *flotilla.SearchTelemetryRequest, f filter, from, until int64) (*flotilla.SearchTelemetryResponse, error) {
	aggregate, width := *in.Aggregate, int64(0)
	if !slices.Contains(aggregates, aggregate) {
		return nil, invalid("aggregate %q is none of avg, min, max, sum, count, last and p95", aggregate)
	}
	if in.NextToken != nil {
		return nil, invalid("nextToken: aggregates come in one page")
	}
	if in.BucketSeconds != nil {
		if *in.BucketSeconds < 1 || *in.BucketSeconds > 366*24*3600 {
			return nil, invalid("bucketSeconds is 1 to %d", 366*24*3600)
		}
		width = *in.BucketSeconds * int64(time.Second)
	}
	found := map[string]*gathered{}
	scanned, rows := 0, 0
	err := s.visit(from, until, false, func(d *day) (bool, error) {
		list, err := d.find(ctx, f)
		for i := 0; i < len(list) && err == nil; i++ {
			g := found[list[i].key()]
			if g == nil {
				g = &gathered{list[i], map[int64]*bucket{}}
				found[list[i].key()] = g
			}
			err = d.points(ctx, list[i].id, from, until, maxScanned-scanned+1, func(at int64, value any) bool {
				scanned++
				number, ok := numeric(value)
				if !ok && aggregate != "count" && aggregate != "last" {
					return scanned <= maxScanned
				}
				begin := from
				if width > 0 {
					begin = at - at%width
				}
				b := g.buckets[begin]
				if b == nil {
					b = &bucket{}
					g.buckets[begin] = b
					rows++
				}
				b.add(value, number, aggregate == "p95")
				return scanned <= maxScanned && rows <= maxRows
			})
			if err == nil && (scanned > maxScanned || rows > maxRows) {
				err = invalid("the aggregation is over more than %d points or has more than %d results: ask for less time, fewer series or larger buckets", maxScanned, maxRows)
			}
		}
		return true, err
	})
	if err != nil {
		return nil, err
	}
	out := &flotilla.SearchTelemetryResponse{Points: []*flotilla.TelemetryPoint{}}
	for _, g := range slices.SortedFunc(maps.Values(found), func(a, b *gathered) int { return cmp.Compare(a.key(), b.key()) }) {
		for _, begin := range slices.Sorted(maps.Keys(g.buckets)) {
			b := g.buckets[begin]
			p := g.point()
			kind, v := b.result(aggregate)
			p.Time, p.Type, p.Value, p.Count = &begin, &kind, &v, &b.count
			out.Points = append(out.Points, p)
		}
	}
	return out, nil
}

// numeric is a stored value as a number.
func numeric(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case []byte:
		if len(v) == 1 && v[0] == 1 {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}
