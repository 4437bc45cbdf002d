package telemetry

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"flotilla/internal/object"
)

const (
	lockName = ".compaction"
	// maxMergedRows bounds the memory that a merge needs to leave out doubles.
	maxMergedRows = 2_000_000
	// staleTemp is the age of a file that its writer did not live to rename.
	staleTemp = 24 * time.Hour
)

// ErrCompacting is returned by Compact and Expire while the archive is in the hands
// of another one, of this process or of another.
var ErrCompacting = errors.New("telemetry: the archive is being compacted")

// Compaction says which files are merged; zero values are the defaults.
type Compaction struct {
	// Quiet is how long a partition must not have got a file; an hour. Negative: none.
	Quiet time.Duration
	// FileBytes is the size that merged files have about; larger ones stay as they
	// are. 128 MiB.
	FileBytes int64
	// Now is the time; time.Now when zero.
	Now time.Time
}

// Compacted is what Compact or Expire did.
type Compacted struct {
	Partitions int   `json:"partitions"`
	Removed    int   `json:"filesRemoved"`
	Written    int   `json:"filesWritten"`
	Rows       int64 `json:"rows"`
}

// lock takes the archive for compaction.
func (a *Archive) lock() (unlock func(), err error) {
	f, err := a.root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, ErrCompacting
	}
	return func() { f.Close() }, nil
}

// Compact merges the small files of partitions that are quiet, those of one source
// with each other, and writes their manifests. stream may be empty: all streams.
// Write may go on meanwhile. A crash at any moment leaves each row visible once to
// those who read the manifest.
func (a *Archive) Compact(ctx context.Context, stream string, c Compaction) (done Compacted, err error) {
	if c.Quiet == 0 {
		c.Quiet = time.Hour
	}
	c.FileBytes = cmp.Or(c.FileBytes, 128<<20)
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
	unlock, err := a.lock()
	if err != nil {
		return done, err
	}
	defer unlock()
	var failed []error
	err = partitions(a.root, cmp.Or(stream, "."), func(dir string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		one, err := a.compactPartition(ctx, dir, c)
		done.add(one)
		if err != nil { // the other partitions are not its fault
			failed = append(failed, fmt.Errorf("telemetry: compact %s: %w", dir, err))
		}
		return nil
	})
	return done, errors.Join(append(failed, err)...)
}

func (c *Compacted) add(o Compacted) {
	c.Partitions += o.Partitions
	c.Removed += o.Removed
	c.Written += o.Written
	c.Rows += o.Rows
}

func (a *Archive) compactPartition(ctx context.Context, dir string, c Compaction) (done Compacted, err error) {
	if err := a.recoverPartition(dir, c.Now); err != nil {
		return done, err
	}
	names, m, err := current(a.root, dir)
	if err != nil || len(names) == 0 {
		return done, err
	}
	groups, err := a.plan(dir, names, &m, c)
	if err != nil || len(groups) == 0 {
		return done, err
	}
	// From here on files that compaction makes count only when the manifest says so.
	listed := len(m.Files)
	if err := a.list(dir, names, &m); err != nil {
		return done, err
	}
	groups = narrow(&m, groups)
	if len(groups) == 0 && len(m.Files) == listed {
		return done, nil
	}
	if err := writeManifest(a.root, dir, &m); err != nil {
		return done, err
	}
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		rows, err := a.merge(dir, &m, g)
		if err != nil {
			return done, err
		}
		done.Written, done.Removed, done.Rows = done.Written+1, done.Removed+len(g), done.Rows+rows
	}
	done.Partitions = 1
	m.Replaced = nil // merge has removed them
	return done, writeManifest(a.root, dir, &m)
}

// narrow splits groups so that no merged file has more columns than one of messages may have.
func narrow(m *Manifest, groups [][]string) (out [][]string) {
	for _, g := range groups {
		var part []string
		columns := map[string]bool{}
		end := func() {
			if len(part) > 1 {
				out = append(out, part)
			}
			part, columns = nil, map[string]bool{}
		}
		for _, name := range g {
			added := 0
			f := m.file(name)
			for c := range f.Columns {
				if !columns[c] {
					added++
				}
			}
			if path.Ext(name) == ".parquet" && len(f.Columns) == 0 {
				added = maxColumns // not known
			}
			if len(part) > 0 && len(columns)+added > maxColumns+maxOwn {
				end()
			}
			part = append(part, name)
			for c := range f.Columns {
				columns[c] = true
			}
		}
		end()
	}
	return out
}

// plan returns groups of files that become one each; none when the partition is not
// quiet or has nothing to merge.
func (a *Archive) plan(dir string, names []string, m *Manifest, c Compaction) (groups [][]string, err error) {
	type small struct {
		name string
		fileName
		bytes int64
	}
	var all []small
	for _, name := range names {
		info, err := a.root.Stat(path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if c.Quiet > 0 && c.Now.Sub(info.ModTime()) < c.Quiet {
			return nil, nil
		}
		if n, _ := parseFileName(name); info.Size() < c.FileBytes/2 {
			all = append(all, small{name, n, info.Size()})
		}
	}
	slices.SortFunc(all, func(x, y small) int {
		return cmp.Or(cmp.Compare(x.source, y.source), cmp.Compare(path.Ext(x.name), path.Ext(y.name)), cmp.Compare(x.first, y.first))
	})
	var group []string
	var bytes, rows int64
	end := func() {
		if len(group) > 1 {
			groups = append(groups, group)
		}
		group, bytes, rows = nil, 0, 0
	}
	for i, f := range all {
		n := f.last - f.first + 1 // rows at most, unless a message became several
		if d := m.file(f.name); d != nil {
			n = d.Rows
		}
		if i > 0 && (all[i-1].source != f.source || path.Ext(all[i-1].name) != path.Ext(f.name)) || bytes+f.bytes > c.FileBytes || rows+n > maxMergedRows && f.bytes > 1<<20 {
			end()
		}
		group, bytes, rows = append(group, f.name), bytes+f.bytes, rows+n
	}
	end()
	return groups, nil
}

// list adds the files to the manifest that it lacks, and takes out those that are gone.
func (a *Archive) list(dir string, names []string, m *Manifest) error {
	m.Files = slices.DeleteFunc(m.Files, func(f File) bool { return !slices.Contains(names, f.Name) })
	for _, name := range names {
		if m.file(name) != nil {
			continue
		}
		d, err := describe(a.root, dir, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		m.Files = append(m.Files, d)
	}
	return nil
}

// merge makes one file of several: the file, then the manifest, then the removal.
func (a *Archive) merge(dir string, m *Manifest, names []string) (rows int64, err error) {
	n, _ := parseFileName(names[0])
	for _, name := range names[1:] {
		o, _ := parseFileName(name)
		n.first, n.last = min(n.first, o.first), max(n.last, o.last)
	}
	n.merged = m.Generation + 1
	ext := path.Ext(names[0])
	merged := n.String() + ext
	err = object.PublishFile(a.root, path.Join(dir, merged), func(w io.Writer) error {
		if ext == "."+JSONLines {
			return a.mergeLines(w, dir, names)
		}
		return a.mergeParquet(w, dir, names)
	})
	if err != nil {
		return 0, err
	}
	d, err := describe(a.root, dir, merged)
	if err != nil {
		return 0, err
	}
	var want int64
	for _, name := range names {
		want += m.file(name).Rows
	}
	if d.Rows > want {
		return 0, fmt.Errorf("%s has %d rows, more than the %d of the files in it", merged, d.Rows, want)
	}
	m.Files = append(slices.DeleteFunc(m.Files, func(f File) bool { return slices.Contains(names, f.Name) }), d)
	return d.Rows, a.replace(dir, m, names)
}

// replace writes the manifest, in which files do not count any more, and removes them.
func (a *Archive) replace(dir string, m *Manifest, names []string) error {
	m.Replaced = append(m.Replaced, names...)
	if err := writeManifest(a.root, dir, m); err != nil {
		return err
	}
	return a.remove(dir, names)
}

// remove removes files for good: after a crash they do not come back.
func (a *Archive) remove(dir string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		if err := a.root.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	d, err := a.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// recoverPartition removes what an earlier compaction did not live to remove.
func (a *Archive) recoverPartition(dir string, now time.Time) error {
	m, found, err := readManifest(a.root, dir)
	if err != nil {
		return err
	}
	names, err := listDir(a.root, dir)
	if err != nil {
		return err
	}
	var gone []string
	for _, name := range names {
		n, ours := parseFileName(name)
		switch {
		case object.Temporary(name):
			if info, err := a.root.Stat(path.Join(dir, name)); err == nil && now.Sub(info.ModTime()) > staleTemp {
				gone = append(gone, name)
			}
		case found && ours && (n.merged > 0 && m.file(name) == nil || slices.Contains(m.Replaced, name)):
			gone = append(gone, name)
		}
	}
	if err := a.remove(dir, gone); err != nil {
		return err
	}
	if len(m.Replaced) == 0 {
		return nil
	}
	m.Replaced = nil
	return writeManifest(a.root, dir, &m)
}

// mergeLines writes the lines of files, each once, with the separator of the first file.
func (a *Archive) mergeLines(w io.Writer, dir string, names []string) error {
	separator, err := a.separatorOf(path.Join(dir, names[0]))
	if err != nil {
		return err
	}
	bw := bufio.NewWriterSize(w, 256<<10)
	seen := map[rowID]bool{}
	for _, name := range names {
		f, err := a.root.Open(path.Join(dir, name))
		if err != nil {
			return err
		}
		err = scanLines(bufio.NewReaderSize(f, 256<<10), func(b []byte) error {
			l, _, err := splitLine(b)
			if err != nil || seen[rowID{l.ID, l.Part}] {
				return err
			}
			seen[rowID{l.ID, l.Part}] = true
			_, err = bw.Write(b)
			_, err2 := bw.WriteString(separator)
			return errors.Join(err, err2)
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return bw.Flush()
}

// separatorOf returns the separator of a file of JSON lines.
func (a *Archive) separatorOf(name string) (string, error) {
	f, err := a.root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	separator, err := scanSeparated(f, func([]byte) error { return io.EOF })
	if err != nil && err != io.EOF {
		return "", err
	}
	return cmp.Or(separator, newline), nil
}

// Expire removes files whose rows are all older than before, and then the oldest
// files until no more than maxBytes are left; 0 or a zero time: no such bound.
// Files are removed whole.
func (a *Archive) Expire(ctx context.Context, stream string, before time.Time, maxBytes int64) (done Compacted, err error) {
	unlock, err := a.lock()
	if err != nil {
		return done, err
	}
	defer unlock()
	type aged struct {
		dir, name string
		last      time.Time
		bytes     int64
	}
	var all []aged
	var total int64
	var failed []error
	defer func() { err = errors.Join(append(failed, err)...) }()
	err = partitions(a.root, cmp.Or(stream, "."), func(dir string) error {
		names, m, err := current(a.root, dir)
		if err != nil { // the other partitions are not its fault
			failed = append(failed, fmt.Errorf("telemetry: expire %s: %w", dir, err))
			return ctx.Err()
		}
		for _, name := range names {
			info, err := a.root.Stat(path.Join(dir, name))
			if err != nil {
				return err
			}
			f := aged{dir, name, info.ModTime(), info.Size()} // rows are older than their file
			if d := m.file(name); d != nil {
				f.last = d.Last
			}
			all, total = append(all, f), total+f.bytes
		}
		return ctx.Err()
	})
	if err != nil {
		return done, err
	}
	slices.SortFunc(all, func(x, y aged) int { return cmp.Or(x.last.Compare(y.last), strings.Compare(x.name, y.name)) })
	for _, f := range all {
		if !(!before.IsZero() && f.last.Before(before)) && !(maxBytes > 0 && total > maxBytes) {
			break
		}
		m, found, err := readManifest(a.root, f.dir)
		if err != nil {
			return done, err
		}
		if !found {
			err = a.remove(f.dir, []string{f.name})
		} else {
			m.Files = slices.DeleteFunc(m.Files, func(d File) bool { return d.Name == f.name })
			err = a.replace(f.dir, &m, []string{f.name})
		}
		if err != nil {
			return done, err
		}
		done.Removed, total = done.Removed+1, total-f.bytes
	}
	return done, nil
}
