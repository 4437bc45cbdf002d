package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/object"
)

// Formats of archive files.
const (
	Parquet   = "parquet"
	JSONLines = "jsonl"
)

// Row is one message on its way into the archive.
type Row struct {
	// ID identifies the message within its source; a batch is in order of IDs.
	ID int64
	// Part counts from 0 when one message became several rows.
	Part int32
	// Rule, Topic and ClientID say where it comes from; empty when unknown.
	Rule, Topic, ClientID string
	// Received is when the broker accepted it; its day is the partition.
	Received time.Time
	// Payload is JSON, or anything else, which becomes one binary column.
	Payload []byte
}

// Archive writes messages to files. It is safe for concurrent use, but for one
// source at a time: calls of Write with the same source must not overlap.
type Archive struct {
	root      *os.Root
	format    string
	separator string
}

// OpenArchive opens the archive in dir, making the directory as needed. Format is
// Parquet (zstd) or JSONLines.
func OpenArchive(dir, format string) (*Archive, error) {
	if format == "" {
		format = Parquet
	}
	if format != Parquet && format != JSONLines {
		return nil, fmt.Errorf("telemetry: archive format %q is neither %s nor %s", format, Parquet, JSONLines)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("telemetry: archive: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("telemetry: archive: %w", err)
	}
	return &Archive{root: root, format: format, separator: newline}, nil
}

// Separated returns the same archive, whose Write ends each row in files of JSON
// lines with the separator: \n, \t, \r\n or a comma; an empty one stands for \n.
// Parquet files have none. Only the archive that was opened is to be closed.
func (a *Archive) Separated(separator string) *Archive {
	b := *a
	b.separator = cmp.Or(separator, newline)
	return &b
}

// Close ends the use of the directory.
func (a *Archive) Close() error { return a.root.Close() }

var streamName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

// ErrStreamName is returned by Write for a name that no stream can have.
var ErrStreamName = errors.New("telemetry: a stream's name has 1 to 64 of the characters a-z A-Z 0-9 _ . - and does not begin with a dot")

// CheckStream returns ErrStreamName for a name that no stream can have.
func CheckStream(name string) error {
	if !streamName.MatchString(name) || name[0] == '.' {
		return ErrStreamName
	}
	return nil
}

// Write stores the rows of a source in files of the stream, one a day of arrival,
// and returns their names once all are on stable storage. Rows that earlier files
// of the source hold already, because the caller did not live to hear of it, are
// left out. After an error some of the rows may be stored; write all of them again.
// Whether rows fit the declared columns of the stream is for Fit to tell, before.
func (a *Archive) Write(ctx context.Context, stream string, source int64, rows []Row) ([]string, error) {
	if err := CheckStream(stream); err != nil {
		return nil, err
	}
	declared, err := a.readSchema(stream)
	if err != nil {
		return nil, err
	}
	days := map[string][]Row{}
	for i := range rows {
		d := partition(stream, rows[i].Received)
		days[d] = append(days[d], rows[i])
	}
	var files []string
	for _, dir := range slices.Sorted(mapKeys(days)) {
		if err := ctx.Err(); err != nil {
			return files, err
		}
		batch, err := a.missing(dir, source, days[dir])
		if err != nil {
			return files, fmt.Errorf("telemetry: archive %s: %w", dir, err)
		}
		if len(batch) == 0 {
			continue
		}
		name := path.Join(dir, fileName{source: source, first: batch[0].ID, last: batch[len(batch)-1].ID}.String()+"."+a.format)
		err = object.PublishFile(a.root, name, func(w io.Writer) error {
			if a.format == JSONLines {
				return writeJSONLines(w, batch, a.separator)
			}
			return writeParquet(w, batch, declared)
		})
		if err != nil {
			return files, fmt.Errorf("telemetry: archive %s: %w", name, err)
		}
		files = append(files, name)
	}
	return files, nil
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func partition(stream string, t time.Time) string {
	t = t.UTC()
	return fmt.Sprintf("%s/year=%04d/month=%02d/day=%02d", stream, t.Year(), t.Month(), t.Day())
}

// fileName is what a file's name says of its rows.
type fileName struct {
	source, first, last int64
	// merged is 0, or the generation of the manifest in which compaction made it.
	merged int64
}

func (n fileName) String() string {
	s := fmt.Sprintf("%016x-%016x-%016x", n.source, n.first, n.last)
	if n.merged > 0 {
		s += fmt.Sprintf("-m%x", n.merged)
	}
	return s
}

func parseFileName(s string) (n fileName, ok bool) {
	base, ext, _ := strings.Cut(s, ".")
	if ext != Parquet && ext != JSONLines {
		return n, false
	}
	parts := strings.Split(base, "-")
	if len(parts) == 4 {
		m, err := strconv.ParseInt(strings.TrimPrefix(parts[3], "m"), 16, 64)
		if err != nil || m < 1 || parts[3][0] != 'm' {
			return n, false
		}
		n.merged, parts = m, parts[:3]
	}
	if len(parts) != 3 {
		return n, false
	}
	for i, to := range []*int64{&n.source, &n.first, &n.last} {
		v, err := strconv.ParseInt(parts[i], 16, 64)
		if err != nil {
			return n, false
		}
		*to = v
	}
	return n, true
}

// rowID is a row's identity within its source.
type rowID struct {
	id   int64
	part int32
}

// missing returns, in order, the rows that no file of the source holds.
func (a *Archive) missing(dir string, source int64, rows []Row) ([]Row, error) {
	slices.SortStableFunc(rows, func(x, y Row) int { return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Part, y.Part)) })
	stored, err := a.stored(dir, source, rows[0].ID, rows[len(rows)-1].ID)
	if err != nil {
		return nil, err
	}
	if len(stored) == 0 {
		return rows, nil
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return stored[rowID{r.ID, r.Part}] }), nil
}

// stored returns the identities in files of the source that overlap first..last.
func (a *Archive) stored(dir string, source, first, last int64) (map[rowID]bool, error) {
	for range attempts {
		stored := map[rowID]bool{}
		names, _, err := current(a.root, dir)
		for _, e := range names {
			n, _ := parseFileName(e)
			if n.source != source || n.first > last || n.last < first {
				continue
			}
			if err = a.readIDs(path.Join(dir, e), stored); err != nil {
				break
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted meanwhile
		}
		return stored, err
	}
	return nil, fmt.Errorf("%s changes too often", dir)
}
