package main

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/parquet-go/parquet-go"
)

// counted are the rows of files that were read already: they do not change.
var counted = map[string]int64{}

// rows are those of all files of the archive.
func rows(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".parquet" {
			return nil
		}
		if _, ok := counted[path]; !ok {
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return nil
			}
			p, err := parquet.OpenFile(f, info.Size())
			if err != nil {
				return nil
			}
			counted[path] = p.NumRows()
		}
		n += counted[path]
		return nil
	})
	return n
}
