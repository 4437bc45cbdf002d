package object

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// tempPrefix marks files that are not whole; readers leave them out.
const tempPrefix = ".tmp-"

// Temporary tells whether a file of this name (without its directory) may be one
// that is not whole.
func Temporary(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// PublishFile makes the file name (slash-separated, relative to root) with what
// write writes: under a temporary name in its directory, synced, renamed, and the
// directories synced. When it returns nil the file is whole and on stable storage;
// when it fails there is no file, or the one that was there before. Missing
// directories are made. Names that lead out of root fail.
func PublishFile(root *os.Root, name string, write func(io.Writer) error) (err error) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	made, err := makeDirs(root, dir)
	if err != nil {
		return err
	}
	temp := path.Join(dir, tempPrefix+base)
	if len(tempPrefix+base) > 255 {
		temp = path.Join(dir, tempPrefix+base[len(tempPrefix):])
	}
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	for _, d := range append(made, dir) {
		if err := syncDir(root, d); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes dir and its parents; it returns the directories that got a new entry.
func makeDirs(root *os.Root, dir string) (changed []string, err error) {
	if dir == "." {
		return nil, nil
	}
	if info, err := root.Stat(dir); err == nil && info.IsDir() {
		return nil, nil
	}
	parent := "."
	for level := range strings.SplitSeq(dir, "/") {
		next := path.Join(parent, level)
		switch err := root.Mkdir(next, 0o700); {
		case err == nil:
			changed = append(changed, parent)
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		}
		parent = next
	}
	return changed, nil
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
