package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// SchemaName is the file of a stream's directory that declares its columns: a JSON
// object of the names of columns and their types, BOOLEAN, BIGINT, DOUBLE or VARCHAR.
const SchemaName = "_schema.json"

const maxSchema = 1 << 20

// ErrSchema is in the chain of errors about a row that does not fit the declared
// columns of its stream.
var ErrSchema = errors.New("the message does not fit " + SchemaName)

// schema holds the declared columns of a stream.
type schema map[string]kind

// columns gives the columns of a file before any row is seen.
func (s schema) columns() *columns {
	c := &columns{index: map[string]int{}}
	for _, name := range slices.Sorted(mapKeys(s)) {
		c.index[name] = len(c.names)
		c.names, c.kinds = append(c.names, name), append(c.kinds, s[name])
	}
	return c
}

var declarable = map[string]kind{"BOOLEAN": kindBool, "BIGINT": kindInt, "DOUBLE": kindDouble, "VARCHAR": kindText}

// readSchema returns nil when the stream declares no columns.
func (a *Archive) readSchema(stream string) (schema, error) {
	name := path.Join(stream, SchemaName)
	f, err := a.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSchema))
	if err != nil {
		return nil, fmt.Errorf("telemetry: %s: %w", name, err)
	}
	s, err := parseSchema(b)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %s: %w", name, err)
	}
	return s, nil
}

func parseSchema(b []byte) (schema, error) {
	var types map[string]string
	if err := json.Unmarshal(b, &types); err != nil {
		return nil, err
	}
	if len(types) == 0 || len(types) > maxColumns {
		return nil, fmt.Errorf("%d columns, want 1 to %d", len(types), maxColumns)
	}
	s := schema{}
	for name, t := range types {
		k, ok := declarable[t]
		if !ok {
			return nil, fmt.Errorf("column %q: %q is none of BOOLEAN, BIGINT, DOUBLE and VARCHAR", name, t)
		}
		if name == "" || strings.HasPrefix(name, ownPrefix) {
			return nil, fmt.Errorf("column %q: a name is not empty and does not begin with %s", name, ownPrefix)
		}
		s[name] = k
	}
	return s, nil
}

// Fit returns how many of the rows, from the first on, fit the columns that the stream
// declares, and an ErrSchema about the one after them; all when it declares none. A row
// fits when its payload is a JSON object each of whose members is declared and has a
// value of that type, or null: whole numbers are DOUBLE too where that loses no digit;
// arrays, empty and deep objects, and numbers that neither number type holds are VARCHAR,
// as JSON text. Members may be missing.
func (a *Archive) Fit(stream string, rows []Row) (int, error) {
	if err := CheckStream(stream); err != nil {
		return 0, err
	}
	s, err := a.readSchema(stream)
	if err != nil {
		return 0, err
	}
	if s == nil {
		return len(rows), nil
	}
	for i := range rows {
		if err := s.fits(rows[i].Payload); err != nil {
			return i, err
		}
	}
	return len(rows), nil
}

func (s schema) fits(payload []byte) error {
	cols := &columns{index: map[string]int{}}
	cells, rest, raw := cols.row(payload)
	if raw {
		return fmt.Errorf("%w: it is not JSON", ErrSchema)
	}
	if rest != "" {
		return fmt.Errorf("%w: it has more than %d members", ErrSchema, maxColumns)
	}
	for _, c := range cells {
		name := cols.names[c.column]
		want, declared := s[name]
		switch {
		case name == valueColumn:
			return fmt.Errorf("%w: it is not a JSON object", ErrSchema)
		case !declared:
			return fmt.Errorf("%w: column %q is not declared", ErrSchema, name)
		case c.kind == want || c.kind == kindInt && want == kindDouble && exact(c.text):
		default:
			return fmt.Errorf("%w: column %q is %s", ErrSchema, name, want)
		}
	}
	return nil
}

// exact tells whether a DOUBLE holds a whole number without loss.
func exact(text string) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	return err == nil && n <= 1<<53 && n >= -(1<<53)
}

func (k kind) String() string {
	for name, d := range declarable {
		if d == k {
			return name
		}
	}
	return "BLOB"
}
