package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"flotilla/internal/telemetry"
)

// Directory stores objects as files <dir>/<bucket>/<key>.
type Directory struct{ root *os.Root }

// OpenDirectory opens a directory for objects, making it as needed.
func OpenDirectory(dir string) (*Directory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	return &Directory{root}, nil
}

// Close ends the use of the directory.
func (d *Directory) Close() error { return d.root.Close() }

// Put stores an object. Keys that are no relative path of files fail for good:
// with empty, . or .. elements, or elements longer than a file's name.
func (d *Directory) Put(_ context.Context, bucket, key string, payload []byte) error {
	if err := checkPath(key); err != nil {
		return Permanent(err)
	}
	err := telemetry.PublishFile(d.root, bucket+"/"+key, func(w io.Writer) error {
		_, err := w.Write(payload)
		return err
	})
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENAMETOOLONG) {
		return Permanent(fmt.Errorf("key %q can not be a file beside those that exist: %w", key, err))
	}
	if err != nil {
		return fmt.Errorf("objects: %w", err)
	}
	return nil
}

// maxElement leaves room in a file's name for the prefix of a temporary file.
const maxElement = 240

func checkPath(key string) error {
	if strings.ContainsRune(key, 0) {
		return errors.New("key has a NUL byte")
	}
	for element := range strings.SplitSeq(key, "/") {
		switch {
		case element == "", element == ".", element == "..":
			return fmt.Errorf("key %q can not be a file: it has an element %q", key, element)
		case len(element) > maxElement:
			return fmt.Errorf("key can not be a file: an element has more than %d bytes", maxElement)
		case telemetry.Temporary(element):
			return fmt.Errorf("key %q can not be a file: the element %q marks temporary files", key, element)
		}
	}
	return nil
}
