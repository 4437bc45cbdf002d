package telemetry

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// Columns that describe the message.
const (
	idColumn       = "flotilla_id"
	partColumn     = "flotilla_part"
	ruleColumn     = "flotilla_rule"
	topicColumn    = "flotilla_topic"
	clientColumn   = "flotilla_client_id"
	receivedColumn = "flotilla_received"
)

// rowGroupRows bounds the memory of writer and readers.
const rowGroupRows = 64 << 10

var zstdCodec = zstd.Codec{Level: zstd.SpeedDefault}

type parsedRow struct {
	cells []cell
	rest  string
	raw   bool
}

// writeParquet writes one file with the rows; it has the columns that are declared,
// and those of the rows.
func writeParquet(w io.Writer, rows []Row, declared schema) error {
	cols := declared.columns()
	parsed := make([]parsedRow, len(rows))
	anyRest, anyRaw := false, false
	for i := range rows {
		p := &parsed[i]
		p.cells, p.rest, p.raw = cols.row(rows[i].Payload)
		anyRest, anyRaw = anyRest || p.rest != "", anyRaw || p.raw
	}
	exactWidening(cols, parsed)

	names, kinds := slices.Clone(cols.names), slices.Clone(cols.kinds)
	if anyRest {
		names, kinds = append(names, restColumn), append(kinds, kindText)
	}
	if anyRaw {
		names, kinds = append(names, payloadColumn), append(kinds, kindRaw)
	}
	group := groupOf(names, kinds)
	schema := parquet.NewSchema("message", group)
	at := func(name string) int {
		leaf, ok := schema.Lookup(name)
		if !ok {
			panic("telemetry: column " + name + " is not in its own schema")
		}
		return leaf.ColumnIndex
	}
	positions := make([]int, len(cols.names))
	for i, name := range cols.names {
		positions[i] = at(name)
	}
	fixed := map[string]int{}
	for _, n := range ownColumns {
		fixed[n] = at(n)
	}

	pw := newParquetWriter(w, schema)
	width := len(group)
	const chunk = 256
	buf := make([]parquet.Row, 0, chunk)
	for i := range rows {
		r, p := &rows[i], &parsed[i]
		row := make(parquet.Row, width)
		for c := range row {
			row[c] = parquet.NullValue().Level(0, 0, c)
		}
		required := func(name string, v parquet.Value) { row[fixed[name]] = v.Level(0, 0, fixed[name]) }
		optional := func(c int, v parquet.Value) { row[c] = v.Level(0, 1, c) }
		required(idColumn, parquet.Int64Value(r.ID))
		required(partColumn, parquet.Int32Value(r.Part))
		required(ruleColumn, text(r.Rule))
		required(topicColumn, text(r.Topic))
		required(receivedColumn, parquet.Int64Value(r.Received.UnixMilli()))
		if r.ClientID != "" {
			optional(fixed[clientColumn], text(r.ClientID))
		}
		if p.rest != "" {
			optional(at(restColumn), text(p.rest))
		}
		if p.raw {
			optional(at(payloadColumn), parquet.ByteArrayValue(r.Payload))
		}
		for _, c := range p.cells {
			optional(positions[c.column], c.value(cols.kinds[c.column]))
		}
		if buf = append(buf, row); len(buf) == chunk || i == len(rows)-1 {
			if _, err := pw.WriteRows(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return pw.Close()
}

// ownColumns are the columns that each file has.
var ownColumns = []string{idColumn, partColumn, ruleColumn, topicColumn, clientColumn, receivedColumn}

// groupOf gives the schema of a file with these columns beside those of the description.
func groupOf(names []string, kinds []kind) parquet.Group {
	group := parquet.Group{
		idColumn:       parquet.Int(64),
		partColumn:     parquet.Int(32),
		ruleColumn:     parquet.Encoded(parquet.String(), &parquet.RLEDictionary),
		topicColumn:    parquet.Encoded(parquet.String(), &parquet.RLEDictionary),
		clientColumn:   parquet.Optional(parquet.Encoded(parquet.String(), &parquet.RLEDictionary)),
		receivedColumn: parquet.Timestamp(parquet.Millisecond),
	}
	for i, name := range names {
		group[name] = parquet.Optional(leaf(kinds[i]))
	}
	return group
}

func newParquetWriter(w io.Writer, schema *parquet.Schema) *parquet.GenericWriter[any] {
	return parquet.NewGenericWriter[any](w, schema, parquet.Compression(&zstdCodec), parquet.MaxRowsPerRowGroup(rowGroupRows),
		parquet.CreatedBy("flotilla", "1", ""))
}

func text(s string) parquet.Value { return parquet.ByteArrayValue([]byte(s)) }

func leaf(k kind) parquet.Node {
	switch k {
	case kindBool:
		return parquet.Leaf(parquet.BooleanType)
	case kindInt:
		return parquet.Int(64)
	case kindDouble:
		return parquet.Leaf(parquet.DoubleType)
	case kindRaw:
		return parquet.Leaf(parquet.ByteArrayType)
	}
	return parquet.String()
}

// exactWidening makes a column text where a whole number in it would lose digits
// as a DOUBLE.
func exactWidening(cols *columns, rows []parsedRow) {
	if !slices.Contains(cols.kinds, kindDouble) {
		return
	}
	for i := range rows {
		for _, c := range rows[i].cells {
			if c.kind != kindInt || cols.kinds[c.column] != kindDouble {
				continue
			}
			n, _ := strconv.ParseInt(c.text, 10, 64)
			if n > 1<<53 || n < -(1<<53) {
				cols.kinds[c.column] = kindText
			}
		}
	}
}

// value is the cell as a value of a column that holds its kind.
func (c cell) value(k kind) parquet.Value {
	switch k {
	case kindBool:
		return parquet.BooleanValue(c.text == "true")
	case kindInt:
		n, _ := strconv.ParseInt(c.text, 10, 64) // classify has parsed it
		return parquet.Int64Value(n)
	case kindDouble:
		f, _ := strconv.ParseFloat(c.text, 64)
		return parquet.DoubleValue(f)
	}
	return text(c.text)
}

// parquetIDs calls add for each row's identity.
func parquetIDs(f *os.File, add func(rowID)) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	pf, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return err
	}
	idLeaf, ok := pf.Schema().Lookup(idColumn)
	partLeaf, ok2 := pf.Schema().Lookup(partColumn)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no column %s", f.Name(), idColumn)
	}
	for _, g := range pf.RowGroups() {
		ids, err := int64s(g.ColumnChunks()[idLeaf.ColumnIndex])
		if err != nil {
			return err
		}
		parts, err := int64s(g.ColumnChunks()[partLeaf.ColumnIndex])
		if err != nil {
			return err
		}
		if len(ids) != len(parts) {
			return fmt.Errorf("%s is damaged", f.Name())
		}
		for i := range ids {
			add(rowID{ids[i], int32(parts[i])})
		}
	}
	return nil
}

func int64s(chunk parquet.ColumnChunk) (out []int64, err error) {
	err = values(chunk, func(v parquet.Value) {
		if v.Kind() == parquet.Int32 {
			out = append(out, int64(v.Int32()))
		} else {
			out = append(out, v.Int64())
		}
	})
	return out, err
}

// values calls fn for each value of a column, null ones too; fn must not keep it.
func values(chunk parquet.ColumnChunk, fn func(parquet.Value)) error {
	pages := chunk.Pages()
	defer pages.Close()
	var buf [512]parquet.Value
	for {
		page, err := pages.ReadPage()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		values := page.Values()
		for {
			n, err := values.ReadValues(buf[:])
			for _, v := range buf[:n] {
				fn(v)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				parquet.Release(page)
				return err
			}
		}
		parquet.Release(page)
	}
}
