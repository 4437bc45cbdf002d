package telemetry

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/parquet-go/parquet-go"

	"flotilla/internal/object"
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
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		ext := strings.TrimPrefix(filepath.Ext(p), ".")
		if d.IsDir() || object.Temporary(d.Name()) || ext != Parquet && ext != JSONLines {
			return nil
		}
		n, err := countFile(p, ext)
		if err != nil {
			return fmt.Errorf("telemetry: %s: %w", p, err)
		}
		files, rows = append(files, p), rows+n
		return nil
	})
	return files, rows, err
}

func countFile(name, ext string) (int, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if ext == JSONLines {
		n := 0
		r := bufio.NewReaderSize(f, 256<<10)
		for {
			_, err := r.ReadSlice('\n')
			switch {
			case err == nil:
				n++
			case errors.Is(err, bufio.ErrBufferFull):
			case err == io.EOF:
				return n, nil
			default:
				return 0, err
			}
		}
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
