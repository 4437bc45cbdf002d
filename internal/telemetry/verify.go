package telemetry

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
)

// Partition describes the files of one directory of the archive.
type Partition struct {
	Directory string `json:"directory"`
	Files     int    `json:"files"`
	Bytes     int64  `json:"bytes"`
	Rows      int64  `json:"rows"`
	// Compacted tells whether the partition has a manifest.
	Compacted bool      `json:"compacted"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// List calls fn for each partition of the archive in dir that has files, in order
// of the names of directories. stream may be empty: all streams.
func List(ctx context.Context, dir, stream string, fn func(Partition) error) error {
	return eachPartition(ctx, dir, stream, func(root *os.Root, sub string) error {
		p := Partition{Directory: sub}
		err := settled(sub, func() error {
			p = Partition{Directory: sub}
			names, m, err := current(root, sub)
			if err != nil {
				return err
			}
			p.Compacted = m.Generation > 0
			for _, name := range names {
				d := m.file(name)
				if d == nil {
					one, err := describe(root, sub, name)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					d = &one
				}
				if p.Files == 0 || d.First.Before(p.First) {
					p.First = d.First
				}
				if d.Last.After(p.Last) {
					p.Last = d.Last
				}
				p.Files, p.Bytes, p.Rows = p.Files+1, p.Bytes+d.Bytes, p.Rows+d.Rows
			}
			return nil
		})
		if err != nil || p.Files == 0 {
			return err
		}
		return fn(p)
	})
}

func eachPartition(ctx context.Context, dir, stream string, fn func(root *os.Root, sub string) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("telemetry: archive: %w", err)
	}
	defer root.Close()
	if stream != "" {
		if err := CheckStream(stream); err != nil {
			return fmt.Errorf("%w: %w", ErrQuery, err)
		}
		if _, err := root.Stat(stream); err != nil {
			return fmt.Errorf("telemetry: there is no stream %s: %w", stream, err)
		}
	}
	return partitions(root, cmp.Or(stream, "."), func(sub string) error {
		if err := errors.Join(ctx.Err(), fn(root, sub)); err != nil {
			return fmt.Errorf("telemetry: %s: %w", sub, err)
		}
		return nil
	})
}

// settled runs fn again while files go away under it.
func settled(dir string, fn func() error) (err error) {
	for range attempts {
		if err = fn(); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("%s changes too often: %w", dir, err)
}

// Verified is what Verify has read.
type Verified struct {
	Files int   `json:"files"`
	Rows  int64 `json:"rows"`
	// Problems are sentences, each about one file or manifest.
	Problems []string `json:"problems"`
}

// Verify reads each file of the archive in dir whole, and holds it to its manifest
// and its name: rows, times, size, each message once. Whoever reads the whole
// archive wants no compaction to run meanwhile. stream may be empty: all streams.
func Verify(ctx context.Context, dir, stream string) (v Verified, err error) {
	v.Problems = []string{}
	err = eachPartition(ctx, dir, stream, func(root *os.Root, sub string) error {
		names, m, err := current(root, sub)
		if err != nil {
			v.Problems = append(v.Problems, fmt.Sprintf("%s: %v", sub, err))
			return nil
		}
		for _, f := range m.Files {
			if !slices.Contains(names, f.Name) {
				v.Problems = append(v.Problems, fmt.Sprintf("%s is in the manifest, but not there", path.Join(sub, f.Name)))
			}
		}
		seen := map[int64]map[rowID]bool{} // by source
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, _ := parseFileName(name)
			if seen[n.source] == nil {
				seen[n.source] = map[rowID]bool{}
			}
			rows, err := verifyFile(root, sub, name, m.file(name), seen[n.source])
			if err != nil {
				v.Problems = append(v.Problems, fmt.Sprintf("%s: %v", path.Join(sub, name), err))
			}
			v.Files, v.Rows = v.Files+1, v.Rows+rows
		}
		return nil
	})
	return v, err
}

func verifyFile(root *os.Root, dir, name string, listed *File, seen map[rowID]bool) (rows int64, err error) {
	d, err := describe(root, dir, name)
	if err != nil {
		return d.Rows, err
	}
	if listed != nil && (listed.Rows != d.Rows || listed.Bytes != d.Bytes || !listed.First.Equal(d.First) || !listed.Last.Equal(d.Last)) {
		return d.Rows, fmt.Errorf("%d rows, %d bytes, from %s to %s; the manifest says %d, %d, %s, %s",
			d.Rows, d.Bytes, d.First, d.Last, listed.Rows, listed.Bytes, listed.First, listed.Last)
	}
	n, _ := parseFileName(name)
	f, err := root.Open(path.Join(dir, name))
	if err != nil {
		return d.Rows, err
	}
	defer f.Close()
	twice, outside := 0, 0
	add := func(id rowID) {
		if seen[id] {
			twice++
		}
		if id.id < n.first || id.id > n.last {
			outside++
		}
		seen[id] = true
	}
	if strings.HasSuffix(name, "."+JSONLines) {
		err = jsonLinesIDs(bufio.NewReaderSize(f, 256<<10), add)
	} else if err = parquetIDs(f, add); err == nil {
		err = readAll(f, d.Bytes)
	}
	if err == nil && twice+outside > 0 {
		err = fmt.Errorf("%d rows that another file has, %d that its name does not cover", twice, outside)
	}
	return d.Rows, err
}

// readAll reads each value of each column.
func readAll(f *os.File, size int64) error {
	pf, err := parquet.OpenFile(f, size)
	if err != nil {
		return err
	}
	for _, g := range pf.RowGroups() {
		for i, c := range g.ColumnChunks() {
			n := int64(0)
			if err := values(c, func(parquet.Value) { n++ }); err != nil {
				return fmt.Errorf("column %d: %w", i, err)
			}
			if n != g.NumRows() {
				return fmt.Errorf("column %d has %d values, not %d", i, n, g.NumRows())
			}
		}
	}
	return nil
}
