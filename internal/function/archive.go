package function

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

const (
	// maxZipped and maxUnzipped bound the code of a function, in bytes.
	//
	// AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
	maxZipped   = 50 << 20
	maxUnzipped = 250 << 20
	// maxEntries bounds what a zip holds; AWS names no such limit.
	maxEntries = 50_000
)

// unpack writes what a zip holds below dir, which does not exist yet and appears whole or not at all. Files are
// read-only, and executable when they were when they were packed; bootstrap always is. What is wrong
// with the zip is an InvalidParameterValueException.
func unpack(text []byte, dir string) (err error) {
	z, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return invalid("Could not unzip uploaded file. Please check your file, then try to upload again.")
	}
	if len(z.File) == 0 || len(z.File) > maxEntries {
		return invalid("The zip has %d entries; 1 to %d are allowed.", len(z.File), maxEntries)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "unpack-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			removeAll(tmp)
		}
	}()
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacking{root: root, budget: maxUnzipped}
	var links []*zip.File
	for _, f := range z.File { // links last: nothing is written through one
		if f.Mode()&fs.ModeSymlink != 0 {
			links = append(links, f)
			continue
		}
		if err := u.entry(f); err != nil {
			return err
		}
	}
	for _, f := range links {
		if err := u.link(f); err != nil {
			return err
		}
	}
	for _, f := range links { // by way of another, a link may lead out that seems not to: the root does not follow it there
		if _, err := root.Stat(path.Clean(f.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return invalid("The zip has the symbolic link %.100q, which leads out of it.", f.Name)
		}
	}
	if err := u.seal(); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, serr := os.Stat(dir); serr == nil { // another was faster, with the same
			removeAll(tmp)
			return nil
		}
		return err
	}
	return nil
}

// unpacking is a zip on its way to a directory.
type unpacking struct {
	root   *os.Root
	budget int64 // bytes that may still come
}

// name checks the name of an entry: a path below the root, as zip writes it.
func name(f *zip.File) (string, error) {
	clean := path.Clean(f.Name)
	if !utf8.ValidString(f.Name) || strings.ContainsAny(f.Name, "\\\x00") || len(f.Name) > 1024 || !filepath.IsLocal(clean) {
		return "", invalid("The zip has an entry with the name %.100q, which is not allowed.", f.Name)
	}
	return clean, nil
}

func (u *unpacking) entry(f *zip.File) error {
	name, err := name(f)
	if err != nil {
		return err
	}
	if f.Mode().IsDir() {
		return u.mkdir(f, name)
	}
	if !f.Mode().IsRegular() {
		return invalid("The zip has the entry %.100q, which is neither a file nor a directory.", f.Name)
	}
	if err := u.mkdir(f, path.Dir(name)); err != nil {
		return err
	}
	mode := fs.FileMode(0o400)
	if f.Mode()&0o111 != 0 || name == "bootstrap" {
		mode = 0o500
	}
	to, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return clash(f, err)
	}
	defer to.Close()
	from, err := f.Open()
	if err != nil {
		return invalid("The zip has the entry %.100q, which can't be read: %v.", f.Name, err)
	}
	defer from.Close()
	source := &limited{from: from, left: u.budget} // what the directory of the zip says of the size is not trusted
	n, err := io.Copy(to, source)
	u.budget -= n
	switch {
	case errors.Is(err, errTooMuch):
		return invalid("Unzipped size must be smaller than %d bytes", maxUnzipped)
	case source.err != nil:
		return invalid("The zip has the entry %.100q, which can't be read: %v.", f.Name, source.err)
	case err != nil:
		return err
	}
	return nil
}

func (u *unpacking) mkdir(f *zip.File, name string) error {
	if name == "." {
		return nil
	}
	if err := u.root.MkdirAll(name, 0o700); err != nil {
		return clash(f, err)
	}
	return nil
}

// clash tells apart an entry that another is in the way of, and a failure of ours.
func clash(f *zip.File, err error) error {
	if errors.Is(err, fs.ErrExist) || strings.Contains(err.Error(), "not a directory") || strings.Contains(err.Error(), "is a directory") {
		return invalid("The zip has the entry %.100q twice, or as a file and as a directory.", f.Name)
	}
	return err
}

// link makes a symbolic link that stays below the root.
func (u *unpacking) link(f *zip.File) error {
	name, err := name(f)
	if err != nil {
		return err
	}
	from, err := f.Open()
	if err != nil {
		return invalid("The zip has the entry %.100q, which can't be read: %v.", f.Name, err)
	}
	defer from.Close()
	target, err := io.ReadAll(io.LimitReader(from, 1025))
	to := string(target)
	if err != nil || path.IsAbs(to) || len(to) > 1024 || strings.ContainsAny(to, "\\\x00") || !filepath.IsLocal(path.Join(path.Dir(name), to)) {
		return invalid("The zip has the symbolic link %.100q, which leads out of it.", f.Name)
	}
	if err := u.mkdir(f, path.Dir(name)); err != nil {
		return err
	}
	if err := u.root.Symlink(to, name); err != nil {
		return clash(f, err)
	}
	return nil
}

// seal makes the directories read-only.
func (u *unpacking) seal() error {
	return fs.WalkDir(u.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || p == "." {
			return err
		}
		return u.root.Chmod(p, 0o500)
	})
}

// removeAll removes unpacked code, the read-only directories in it too.
func removeAll(dir string) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) // it is about to go
		}
		return nil
	})
	_ = os.RemoveAll(dir) // what is left is wiped at the next start
}

var errTooMuch = errors.New("too much")

// limited reads at most left bytes, and keeps the error of its source.
type limited struct {
	from io.Reader
	left int64
	err  error
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, errTooMuch
	}
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}
