package telemetry

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// readIDs adds the identities of the rows of one of our files.
func (a *Archive) readIDs(name string, to map[rowID]bool) error {
	f, err := a.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	add := func(id rowID) { to[id] = true }
	if strings.HasSuffix(name, "."+Parquet) {
		return parquetIDs(f, add)
	}
	return jsonLinesIDs(bufio.NewReaderSize(f, 256<<10), add)
}

// CountRows returns the archive files below dir and how many rows they hold
// together. A directory that does not exist has none.
func CountRows(dir string) (files []string, rows int, err error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	err = partitions(root, ".", func(sub string) error {
		for range attempts {
			found, n, err := countPartition(root, sub)
			if errors.Is(err, fs.ErrNotExist) {
				continue // compacted meanwhile
			}
			for _, name := range found {
				files = append(files, filepath.Join(dir, sub, name))
			}
			rows += n
			return err
		}
		return fmt.Errorf("telemetry: %s changes too often", sub)
	})
	return files, rows, err
}

func countPartition(root *os.Root, dir string) (names []string, rows int, err error) {
	names, _, err = current(root, dir)
	for _, name := range names {
		n, err := countFile(root, path.Join(dir, name))
		if err != nil {
			return names, rows, fmt.Errorf("telemetry: %s: %w", path.Join(dir, name), err)
		}
		rows += n
	}
	return names, rows, err
}

func countFile(root *os.Root, name string) (int, error) {
	f, err := root.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if strings.HasSuffix(name, "."+JSONLines) {
		n := 0
		err := scanLines(bufio.NewReaderSize(f, 256<<10), func([]byte) error { n++; return nil })
		return n, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	pf, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return 0, err
	}
	return int(pf.NumRows()), nil
}
