package telemetry

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"flotilla/internal/object"
)

// ManifestName is the file of a partition that tells which of its files count.
const ManifestName = "_manifest.json"

const (
	manifestVersion = 1
	maxManifest     = 64 << 20
	// attempts bounds how often a reader looks again at a partition that changes under it.
	attempts = 20
)

// Manifest describes the files of a partition that compaction has seen. A partition
// without one has no compacted files. docs/format/archive.md says how to read it.
type Manifest struct {
	Version int `json:"version"`
	// Generation grows with each change.
	Generation int64 `json:"generation"`
	// Files are those that count. A file that is not among them counts too, unless
	// its name says that it is compacted, or it is in Replaced.
	Files []File `json:"files"`
	// Replaced are the names of files whose rows are in others of Files, or that
	// are too old to be kept; they go away.
	Replaced []string `json:"replaced,omitempty"`
}

// File describes one file of the archive.
type File struct {
	Name  string `json:"name"`
	Rows  int64  `json:"rows"`
	Bytes int64  `json:"bytes"`
	// First and Last are when the broker accepted the oldest and the newest row.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Columns are the names of columns and their types; none for JSON lines, and in a manifest that would be too large.
	Columns map[string]string `json:"columns,omitempty"`
}

func (m *Manifest) file(name string) *File {
	for i := range m.Files {
		if m.Files[i].Name == name {
			return &m.Files[i]
		}
	}
	return nil
}

func readManifest(root *os.Root, dir string) (m Manifest, found bool, err error) {
	f, err := root.Open(path.Join(dir, ManifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return m, false, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, false, fmt.Errorf("%s: %w", path.Join(dir, ManifestName), err)
	}
	if m.Version != manifestVersion {
		return m, false, fmt.Errorf("%s has version %d, this program reads %d", path.Join(dir, ManifestName), m.Version, manifestVersion)
	}
	return m, true, nil
}

// writeManifest puts the next generation of a manifest in its place. One that is too large to be read back leaves the
// columns out, and is refused if that does not help.
func writeManifest(root *os.Root, dir string, m *Manifest) error {
	m.Version = manifestVersion
	m.Generation++
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.MarshalIndent(m, "", " ")
	if err == nil && len(text) > maxManifest {
		slim := *m
		slim.Files = slices.Clone(m.Files)
		for i := range slim.Files {
			slim.Files[i].Columns = nil
		}
		text, err = json.MarshalIndent(&slim, "", " ")
	}
	switch {
	case err != nil:
		return err
	case len(text) > maxManifest:
		return fmt.Errorf("%s would have %d bytes, more than can be read back", path.Join(dir, ManifestName), len(text))
	}
	return object.PublishFile(root, path.Join(dir, ManifestName), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// current returns the files of a partition that count, in order of their names, and
// its manifest.
func current(root *os.Root, dir string) (names []string, m Manifest, err error) {
	for range attempts {
		m, found, err := readManifest(root, dir)
		if err != nil {
			return nil, m, err
		}
		all, err := listDir(root, dir)
		if err != nil {
			return nil, m, err
		}
		again, _, err := readManifest(root, dir)
		if err != nil {
			return nil, m, err
		}
		if again.Generation != m.Generation {
			continue
		}
		names = names[:0]
		for _, name := range all {
			n, ok := parseFileName(name)
			if !ok || found && n.merged > 0 && m.file(name) == nil || slices.Contains(m.Replaced, name) {
				continue
			}
			names = append(names, name)
		}
		slices.Sort(names)
		return names, m, nil
	}
	return nil, m, fmt.Errorf("%s changes too often", dir)
}

func listDir(root *os.Root, dir string) ([]string, error) {
	d, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// partitions calls fn for each directory below dir that may hold archive files.
func partitions(root *os.Root, dir string, fn func(dir string) error) error {
	return fs.WalkDir(root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		return fn(p)
	})
}

// describe reads what the manifest says of a file.
func describe(root *os.Root, dir, name string) (out File, err error) {
	f, err := root.Open(path.Join(dir, name))
	if err != nil {
		return out, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return out, err
	}
	out = File{Name: name, Bytes: info.Size()}
	var first, last int64
	saw := func(ms int64) {
		if out.Rows == 0 || ms < first {
			first = ms
		}
		if out.Rows == 0 || ms > last {
			last = ms
		}
		out.Rows++
	}
	if strings.HasSuffix(name, "."+JSONLines) {
		err = scanLines(bufio.NewReaderSize(f, 256<<10), func(b []byte) error {
			l, _, err := splitLine(b)
			if err == nil {
				saw(l.Received)
			}
			return err
		})
	} else {
		out.Columns, err = describeParquet(f, info.Size(), saw)
	}
	out.First, out.Last = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
	return out, err
}

func describeParquet(f io.ReaderAt, size int64, saw func(int64)) (map[string]string, error) {
	pf, err := parquet.OpenFile(f, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	received, ok := pf.Schema().Lookup(receivedColumn)
	if !ok {
		return nil, fmt.Errorf("no column %s", receivedColumn)
	}
	columns := map[string]string{}
	for _, c := range pf.Schema().Columns() {
		leaf, _ := pf.Schema().Lookup(c...)
		columns[strings.Join(c, ".")] = typeName(c[0], leaf.Node)
	}
	for _, g := range pf.RowGroups() {
		times, err := int64s(g.ColumnChunks()[received.ColumnIndex])
		if err != nil {
			return nil, err
		}
		for _, ms := range times {
			saw(ms)
		}
	}
	return columns, nil
}

// typeName is the type of a column in the manifest.
func typeName(name string, n parquet.Node) string {
	switch n.Type().Kind() {
	case parquet.Boolean:
		return "BOOLEAN"
	case parquet.Int32:
		return "INTEGER"
	case parquet.Int64:
		if name == receivedColumn {
			return "TIMESTAMP"
		}
		return "BIGINT"
	case parquet.Double:
		return "DOUBLE"
	}
	if name == payloadColumn {
		return "BLOB"
	}
	return "VARCHAR"
}
