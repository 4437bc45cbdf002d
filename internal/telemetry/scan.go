package telemetry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
)

// scanner reads rows of a stream: of each the values of columns, in order.
type scanner struct {
	root         *os.Root
	columns      []string
	since, until int64 // ms, until exclusive
	fn           func(row []any) error
}

// openPartition opens the files that count, all before one of them is read.
func openPartition(root *os.Root, dir string) (files []*os.File, err error) {
	for range attempts {
		var names []string
		if names, _, err = current(root, dir); err != nil {
			return nil, err
		}
		for _, name := range names {
			var f *os.File
			if f, err = root.Open(path.Join(dir, name)); err != nil {
				break
			}
			files = append(files, f)
		}
		if err == nil {
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
		files = nil
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s changes too often", dir)
}

func (s *scanner) stream(ctx context.Context, stream string) error {
	return partitions(s.root, stream, func(dir string) error {
		if s.skips(dir) {
			return nil
		}
		files, err := openPartition(s.root, dir)
		if err != nil {
			return err
		}
		defer func() {
			for _, f := range files {
				f.Close()
			}
		}()
		for _, f := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.file(f); err != nil {
				return fmt.Errorf("%s: %w", path.Join(dir, path.Base(f.Name())), err)
			}
		}
		return nil
	})
}

// skips tells whether the directory is of a day that is out of the time range.
func (s *scanner) skips(dir string) bool {
	i := strings.LastIndex(dir, "year=")
	if i < 0 {
		return false
	}
	day, err := time.Parse("year=2006/month=01/day=02", dir[i:])
	return err == nil && (day.UnixMilli() >= s.until || day.Add(24*time.Hour).UnixMilli() <= s.since)
}

func (s *scanner) file(f *os.File) error {
	if strings.HasSuffix(f.Name(), "."+JSONLines) {
		return scanLines(bufio.NewReaderSize(f, 256<<10), s.line)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	pf, err := parquet.OpenFile(f, info.Size(), parquet.SkipBloomFilters(true))
	if err != nil {
		return err
	}
	for _, g := range pf.RowGroups() {
		if err := s.group(pf, g); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) group(pf *parquet.File, g parquet.RowGroup) error {
	leaf, ok := pf.Schema().Lookup(receivedColumn)
	if !ok {
		return fmt.Errorf("no column %s", receivedColumn)
	}
	if c, ok := g.ColumnChunks()[leaf.ColumnIndex].(*parquet.FileColumnChunk); ok {
		if lo, hi, ok := c.Bounds(); ok && (lo.Int64() >= s.until || hi.Int64() < s.since) {
			return nil
		}
	}
	received, err := int64s(g.ColumnChunks()[leaf.ColumnIndex])
	if err != nil {
		return err
	}
	cells := make([][]any, len(s.columns))
	for i, name := range s.columns {
		leaf, ok := pf.Schema().Lookup(name)
		if !ok {
			continue
		}
		column := make([]any, 0, len(received))
		err := values(g.ColumnChunks()[leaf.ColumnIndex], func(v parquet.Value) { column = append(column, plainValue(name, v)) })
		if err != nil {
			return err
		}
		if len(column) != len(received) {
			return fmt.Errorf("column %s has %d values, not %d", name, len(column), len(received))
		}
		cells[i] = column
	}
	row := make([]any, len(s.columns))
	for n, ms := range received {
		if ms < s.since || ms >= s.until {
			continue
		}
		for i := range row {
			row[i] = nil
			if cells[i] != nil {
				row[i] = cells[i][n]
			}
		}
		if err := s.fn(row); err != nil {
			return err
		}
	}
	return nil
}

func plainValue(name string, v parquet.Value) any {
	if v.IsNull() {
		return nil
	}
	switch v.Kind() {
	case parquet.Boolean:
		return v.Boolean()
	case parquet.Int32:
		return int64(v.Int32())
	case parquet.Int64:
		return v.Int64()
	case parquet.Double:
		return v.Double()
	}
	return string(v.ByteArray())
}

// line is one row of a file of JSON lines.
func (s *scanner) line(b []byte) error {
	l, members, err := splitLine(b)
	if err != nil || l.Received < s.since || l.Received >= s.until {
		return err
	}
	named := lineCells(&l, members)
	row := make([]any, len(s.columns))
	for i, name := range s.columns {
		row[i] = named[name]
	}
	return s.fn(row)
}

// lineCells gives a line the columns that it would have in a Parquet file.
func lineCells(l *line, members []byte) map[string]any {
	named := map[string]any{idColumn: l.ID, partColumn: int64(l.Part), ruleColumn: l.Rule, topicColumn: l.Topic, receivedColumn: l.Received}
	if l.ClientID != "" {
		named[clientColumn] = l.ClientID
	}
	if l.Payload != nil {
		named[payloadColumn] = string(l.Payload)
	}
	cols := &columns{index: map[string]int{}}
	payload := members
	if payload == nil {
		payload = l.Value
	}
	cells, rest, raw := cols.row(payload)
	if raw {
		return named
	}
	if rest != "" {
		named[restColumn] = rest
	}
	for _, c := range cells {
		var v any = c.text
		switch c.kind {
		case kindBool:
			v = c.text == "true"
		case kindInt:
			v, _ = strconv.ParseInt(c.text, 10, 64)
		case kindDouble:
			v, _ = strconv.ParseFloat(c.text, 64)
		}
		named[cols.names[c.column]] = v
	}
	return named
}

// allColumns returns the columns of a stream: those of the description, then the
// others in order of their names.
func allColumns(ctx context.Context, root *os.Root, stream string) (all []string, err error) {
	found := map[string]bool{}
	err = partitions(root, stream, func(dir string) error {
		files, err := openPartition(root, dir)
		for _, f := range files {
			if err == nil {
				err = errors.Join(fileColumns(f, found), ctx.Err())
			}
			f.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, c := range ownColumns {
		if found[c] {
			all = append(all, c)
			delete(found, c)
		}
	}
	return append(all, slices.Sorted(mapKeys(found))...), nil
}

func fileColumns(f *os.File, found map[string]bool) error {
	if strings.HasSuffix(f.Name(), "."+JSONLines) {
		return scanLines(bufio.NewReaderSize(f, 256<<10), func(b []byte) error {
			l, members, err := splitLine(b)
			if err != nil {
				return err
			}
			for name := range lineCells(&l, members) {
				found[name] = true
			}
			return nil
		})
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	pf, err := parquet.OpenFile(io.ReaderAt(f), info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return err
	}
	for _, c := range pf.Schema().Columns() {
		found[strings.Join(c, ".")] = true
	}
	return nil
}
