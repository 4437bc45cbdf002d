package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Query asks for rows of a stream, or for numbers about them.
type Query struct {
	Stream string
	// Select are columns; all when empty, unless there are aggregates.
	Select []string
	// Where is a condition such as "temperature > 20 AND site = 'berlin'".
	Where string
	// Since and Until bound the time at which the broker accepted a message, until
	// exclusive; zero: unbounded.
	Since, Until time.Time
	// Aggregates are count, count:COLUMN, sum:, avg:, min: and max:COLUMN; the form
	// avg(COLUMN) is taken too.
	Aggregates []string
	// By are columns that rows are grouped by; Every, unless 0, groups by time too:
	// the column flotilla_received of a result is the start of its interval.
	By    []string
	Every time.Duration
	// Limit is the most rows of the result; 0: all.
	Limit int
}

// ErrQuery is what is wrong with a Query, for its author.
var ErrQuery = errors.New("query")

// maxGroups bounds the memory of a query with groups.
const maxGroups = 1_000_000

var errLimit = errors.New("limit reached")

// Run reads the archive in dir and calls header once, then row for each row of the
// result; neither keeps what it gets. Values are nil, bool, int64, float64, string,
// or time.Time in the column flotilla_received. Groups are in order of their values,
// rows in that of partitions and files. It may run beside a server that writes.
func (q Query) Run(ctx context.Context, dir string, header func(columns []string) error, row func(values []any) error) error {
	if err := CheckStream(q.Stream); err != nil {
		return fmt.Errorf("%w: %w", ErrQuery, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("telemetry: archive: %w", err)
	}
	defer root.Close()
	if _, err := root.Stat(q.Stream); err != nil {
		return fmt.Errorf("telemetry: there is no stream %s: %w", q.Stream, err)
	}
	s := &scanner{root: root, since: math.MinInt64, until: math.MaxInt64}
	if !q.Since.IsZero() {
		s.since = q.Since.UnixMilli()
	}
	if !q.Until.IsZero() {
		s.until = q.Until.UnixMilli()
	}
	place := func(name string) int {
		i := slices.Index(s.columns, name)
		if i < 0 {
			i = len(s.columns)
			s.columns = append(s.columns, name)
		}
		return i
	}
	keep := condition(func([]any) truth { return isTrue })
	if q.Where != "" {
		if keep, err = parseFilter(q.Where, place); err != nil {
			return fmt.Errorf("%w: %w", ErrQuery, err)
		}
	}
	if len(q.Aggregates) > 0 || len(q.By) > 0 || q.Every != 0 {
		return q.aggregate(ctx, s, place, keep, header, row)
	}
	names := q.Select
	if len(names) == 0 {
		if names, err = allColumns(ctx, root, q.Stream); err != nil {
			return fmt.Errorf("telemetry: %w", err)
		}
	}
	places := make([]int, len(names))
	for i, name := range names {
		places[i] = place(name)
	}
	if err := header(names); err != nil {
		return err
	}
	out, n := make([]any, len(names)), 0
	s.fn = func(r []any) error {
		if keep(r) != isTrue {
			return nil
		}
		for i, p := range places {
			out[i] = shown(names[i], r[p])
		}
		if err := row(out); err != nil {
			return err
		}
		if n++; n == q.Limit {
			return errLimit
		}
		return nil
	}
	if err := s.stream(ctx, q.Stream); err != nil && !errors.Is(err, errLimit) {
		return err
	}
	return nil
}

// shown is a value as results have it.
func shown(column string, v any) any {
	if ms, ok := v.(int64); ok && column == receivedColumn {
		return time.UnixMilli(ms).UTC()
	}
	return v
}

// aggregator is one number of a group.
type aggregator struct {
	function, column string
	at               int
}

type tally struct {
	n        int64
	numbers  int64
	ints     int64
	sum      float64
	double   bool
	min, max any
}

func (t *tally) add(v any) {
	switch x := v.(type) {
	case nil:
		return
	case int64:
		sum := t.ints + x
		if (sum > t.ints) != (x > 0) && x != 0 {
			t.double = true // does not fit
		}
		t.ints, t.sum, t.numbers = sum, t.sum+float64(x), t.numbers+1
	case float64:
		t.sum, t.double, t.numbers = t.sum+x, true, t.numbers+1
	}
	t.n++
	if c, ok := compare(v, t.min); t.min == nil || ok && c < 0 {
		t.min = v
	}
	if c, ok := compare(v, t.max); t.max == nil || ok && c > 0 {
		t.max = v
	}
}

func (t *tally) result(function string) any {
	switch {
	case function == "count":
		return t.n
	case function == "min":
		return t.min
	case function == "max":
		return t.max
	case t.numbers == 0:
		return nil
	case function == "avg":
		return t.sum / float64(t.numbers)
	case t.double:
		return t.sum
	}
	return t.ints
}

type group struct {
	key     []any
	tallies []tally
}

func parseAggregate(text string) (a aggregator, err error) {
	function, column, _ := strings.Cut(text, ":")
	if f, rest, ok := strings.Cut(text, "("); ok && strings.HasSuffix(rest, ")") {
		function, column = f, strings.TrimSpace(strings.TrimSuffix(rest, ")"))
	}
	a.function, a.column = strings.ToLower(strings.TrimSpace(function)), column
	switch {
	case a.function == "count" && (column == "" || column == "*"):
		a.column = idColumn
	case !slices.Contains([]string{"count", "sum", "avg", "min", "max"}, a.function) || column == "":
		return a, fmt.Errorf("%w: the aggregate %q is not count, count:COLUMN, sum:COLUMN, avg:COLUMN, min:COLUMN or max:COLUMN", ErrQuery, text)
	}
	return a, nil
}

func (q Query) aggregate(ctx context.Context, s *scanner, place func(string) int, keep condition, header func([]string) error, row func([]any) error) error {
	if len(q.Select) > 0 {
		return fmt.Errorf("%w: columns are selected, or rows are grouped by them, not both", ErrQuery)
	}
	if q.Every < 0 || q.Every != 0 && q.Every < time.Millisecond {
		return fmt.Errorf("%w: an interval has at least 1ms", ErrQuery)
	}
	if len(q.Aggregates) == 0 {
		q.Aggregates = []string{"count"}
	}
	by := q.By
	if q.Every > 0 {
		by = append([]string{receivedColumn}, by...)
	}
	names, keys := slices.Clone(by), make([]int, len(by))
	for i, name := range by {
		keys[i] = place(name)
	}
	numbers := make([]aggregator, len(q.Aggregates))
	for i, text := range q.Aggregates {
		a, err := parseAggregate(text)
		if err != nil {
			return err
		}
		a.at = place(a.column)
		numbers[i], names = a, append(names, text)
	}
	groups := map[string]*group{}
	var order []*group
	s.fn = func(r []any) error {
		if keep(r) != isTrue {
			return nil
		}
		g, err := q.group(groups, &order, keys, r)
		if err != nil {
			return err
		}
		if g.tallies == nil {
			g.tallies = make([]tally, len(numbers))
		}
		for i, a := range numbers {
			g.tallies[i].add(r[a.at])
		}
		return nil
	}
	if err := s.stream(ctx, q.Stream); err != nil {
		return err
	}
	if len(order) == 0 && len(by) == 0 {
		order = []*group{{tallies: make([]tally, len(numbers))}}
	}
	slices.SortStableFunc(order, func(a, b *group) int { return compareKeys(a.key, b.key) })
	if err := header(names); err != nil {
		return err
	}
	out := make([]any, len(names))
	for n, g := range order {
		if q.Limit > 0 && n == q.Limit {
			break
		}
		for i, v := range g.key {
			out[i] = shown(by[i], v)
		}
		for i, a := range numbers {
			v := g.tallies[i].result(a.function)
			if a.function == "min" || a.function == "max" {
				v = shown(a.column, v)
			}
			out[len(by)+i] = v
		}
		if err := row(out); err != nil {
			return err
		}
	}
	return nil
}

// group finds the group of a row.
func (q Query) group(groups map[string]*group, order *[]*group, keys []int, r []any) (*group, error) {
	key := make([]any, len(keys))
	var text strings.Builder
	for i, p := range keys {
		key[i] = r[p]
		if ms, ok := r[p].(int64); ok && i == 0 && q.Every > 0 {
			every := q.Every.Milliseconds()
			key[i] = ms - ((ms%every)+every)%every
		}
		fmt.Fprintf(&text, "%T%q", key[i], fmt.Sprint(key[i]))
	}
	g := groups[text.String()]
	if g == nil {
		if len(groups) == maxGroups {
			return nil, fmt.Errorf("%w: more than %d groups", ErrQuery, maxGroups)
		}
		g = &group{key: key}
		groups[text.String()] = g
		*order = append(*order, g)
	}
	return g, nil
}

// compareKeys orders groups: nil first, then by type, then by value.
func compareKeys(a, b []any) int {
	for i := range a {
		c, ok := compare(a[i], b[i])
		if !ok {
			c = strings.Compare(fmt.Sprintf("%T", a[i]), fmt.Sprintf("%T", b[i]))
		}
		if c != 0 {
			return c
		}
	}
	return 0
}
