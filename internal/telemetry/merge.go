package telemetry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"

	"github.com/parquet-go/parquet-go"
)

// source is one Parquet file that is read whole.
type source struct {
	file  *os.File
	pf    *parquet.File
	names []string
	kinds []kind
}

func openSource(root *os.Root, name string) (s *source, err error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	pf, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s = &source{file: f, pf: pf}
	for _, c := range pf.Schema().Columns() {
		if len(c) != 1 {
			return nil, fmt.Errorf("%s: column %v is nested", name, c)
		}
		leaf, _ := pf.Schema().Lookup(c...)
		s.names = append(s.names, c[0])
		s.kinds = append(s.kinds, kindOf(c[0], leaf.Node))
	}
	return s, nil
}

func kindOf(name string, n parquet.Node) kind {
	switch n.Type().Kind() {
	case parquet.Boolean:
		return kindBool
	case parquet.Int32, parquet.Int64:
		return kindInt
	case parquet.Double:
		return kindDouble
	}
	if name == payloadColumn {
		return kindRaw
	}
	return kindText
}

// mergeParquet writes the rows of files, each once, with the columns of all of them.
func (a *Archive) mergeParquet(w io.Writer, dir string, names []string) (err error) {
	cols := &columns{index: map[string]int{}}
	inexact := map[string]bool{} // whole numbers that a DOUBLE does not hold
	for _, name := range names {
		s, err := openSource(a.root, path.Join(dir, name))
		if err != nil {
			return err
		}
		err = s.widen(cols, inexact)
		if err := errors.Join(err, s.file.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name := range inexact {
		if i := cols.index[name]; cols.kinds[i] == kindDouble {
			cols.kinds[i] = kindText
		}
	}
	schema := parquet.NewSchema("message", groupOf(cols.names, cols.kinds))
	pw := newParquetWriter(w, schema)
	seen := map[rowID]bool{}
	for _, name := range names {
		s, err := openSource(a.root, path.Join(dir, name))
		if err != nil {
			return err
		}
		err = s.copyRows(pw, schema, cols, seen)
		if err := errors.Join(err, s.file.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return pw.Close()
}

// widen adds the columns of the file to those of the merged one.
func (s *source) widen(cols *columns, inexact map[string]bool) error {
	for c, name := range s.names {
		if slices.Contains(ownColumns, name) {
			continue
		}
		i, ok := cols.index[name]
		if !ok {
			i = len(cols.names)
			cols.index[name] = i
			cols.names, cols.kinds = append(cols.names, name), append(cols.kinds, kindNone)
		}
		cols.kinds[i] = widen(cols.kinds[i], s.kinds[c])
		if s.kinds[c] != kindInt || inexact[name] {
			continue
		}
		for _, g := range s.pf.RowGroups() {
			err := values(g.ColumnChunks()[c], func(v parquet.Value) {
				if n := v.Int64(); !v.IsNull() && (n > 1<<53 || n < -(1<<53)) {
					inexact[name] = true
				}
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *source) copyRows(pw *parquet.GenericWriter[any], schema *parquet.Schema, cols *columns, seen map[rowID]bool) error {
	to := make([]int, len(s.names))
	as := make([]kind, len(s.names)) // kindNone: as it is
	var id, part int
	for c, name := range s.names {
		leaf, ok := schema.Lookup(name)
		if !ok {
			return fmt.Errorf("column %s is new", name)
		}
		to[c] = leaf.ColumnIndex
		if i, ok := cols.index[name]; ok && cols.kinds[i] != s.kinds[c] {
			as[c] = cols.kinds[i]
		}
		switch name {
		case idColumn:
			id = c
		case partColumn:
			part = c
		}
	}
	width := len(schema.Columns())
	in, out := make([]parquet.Row, 256), make([]parquet.Row, 0, 256)
	for _, g := range s.pf.RowGroups() {
		rows := g.Rows()
		for {
			n, err := rows.ReadRows(in)
			out = out[:0]
			for _, r := range in[:n] {
				key := rowID{r[id].Int64(), r[part].Int32()}
				if seen[key] {
					continue
				}
				seen[key] = true
				row := make(parquet.Row, width)
				for c := range row {
					row[c] = parquet.NullValue().Level(0, 0, c)
				}
				for _, v := range r {
					c := v.Column()
					row[to[c]] = converted(v, as[c]).Level(0, v.DefinitionLevel(), to[c])
				}
				out = append(out, row)
			}
			if _, werr := pw.WriteRows(out); werr != nil {
				return errors.Join(werr, rows.Close())
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return errors.Join(err, rows.Close())
			}
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	return nil
}

// converted is a value of a column that was widened to k.
func converted(v parquet.Value, k kind) parquet.Value {
	if v.IsNull() || k == kindNone {
		return v
	}
	if k == kindDouble { // of whole numbers alone
		return parquet.DoubleValue(float64(v.Int64()))
	}
	switch v.Kind() {
	case parquet.Boolean:
		return text(strconv.FormatBool(v.Boolean()))
	case parquet.Int64:
		return text(strconv.FormatInt(v.Int64(), 10))
	case parquet.Double:
		return text(strconv.FormatFloat(v.Double(), 'g', -1, 64))
	}
	return v
}
