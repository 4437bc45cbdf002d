package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Directory stores objects as files <dir>/<bucket>/<key>.
type Directory struct {
	root *os.Root
	busy sync.Map // names of files that are being written
}

// OpenDirectory opens a directory for objects, making it as needed.
func OpenDirectory(dir string) (*Directory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	return &Directory{root: root}, nil
}

// Close ends the use of the directory.
func (d *Directory) Close() error { return d.root.Close() }

// Put stores an object; two at a time under one key wait for each other. Keys
// that are no relative path of files are refused: with empty, . or .. elements,
// or elements longer than a file's name.
func (d *Directory) Put(ctx context.Context, bucket, key string, payload []byte) error {
	for {
		err := d.PutFrom(ctx, bucket, key, bytes.NewReader(payload))
		if !errors.Is(err, ErrBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(busyWait):
		}
	}
}

const busyWait = 5 * time.Millisecond

// maxElement leaves room in a file's name for the prefix of a temporary file.
const maxElement = 240

func checkPath(key string) error {
	if strings.ContainsRune(key, 0) {
		return errors.New("key has a NUL byte")
	}
	if !utf8.ValidString(key) {
		return errors.New("key is not UTF-8")
	}
	for element := range strings.SplitSeq(key, "/") {
		switch {
		case element == "", element == ".", element == "..":
			return fmt.Errorf("key %q can not be a file: it has an element %q", key, element)
		case len(element) > maxElement:
			return fmt.Errorf("key can not be a file: an element has more than %d bytes", maxElement)
		case Temporary(element):
			return fmt.Errorf("key %q can not be a file: the element %q marks temporary files", key, element)
		}
	}
	return nil
}
