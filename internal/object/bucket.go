package object

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
	"syscall"
	"time"
)

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// MaxKey is S3's limit of a key, in bytes.
const MaxKey = 1024

// Check refuses names of buckets and keys that there can't be in a directory.
//
// AWS: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
func Check(bucket, key string) error {
	if !bucketName.MatchString(bucket) || strings.Contains(bucket, "..") {
		return fmt.Errorf("bucket name %q: %w", bucket, fs.ErrInvalid)
	}
	if key == "" {
		return nil
	}
	if len(key) > MaxKey {
		return fmt.Errorf("key: more than %d bytes: %w", MaxKey, fs.ErrInvalid)
	}
	if err := checkPath(key); err != nil {
		return fmt.Errorf("%w: %w", err, fs.ErrInvalid)
	}
	return nil
}

// Info says what an object is besides its bytes.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
	Version  string // changes when the object does
}

func infoOf(key string, f fs.FileInfo) Info {
	return Info{key, f.Size(), f.ModTime(), versionOf(f)}
}

func versionOf(f fs.FileInfo) string {
	return strconv.FormatInt(f.Size(), 10) + "-" + strconv.FormatInt(f.ModTime().UnixNano(), 10)
}

// Get opens an object; the caller closes it. An error that is fs.ErrNotExist: there is none.
func (d *Directory) Get(bucket, key string) (*os.File, Info, error) {
	if err := checkPath(bucket + "/" + key); err != nil {
		return nil, Info{}, fmt.Errorf("objects: %w: %w", err, fs.ErrNotExist)
	}
	f, err := d.root.Open(bucket + "/" + key)
	if err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			err = fs.ErrNotExist
		}
		return nil, Info{}, fmt.Errorf("objects: %w", err)
	}
	of, err := f.Stat()
	if err == nil && !of.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, Info{}, fmt.Errorf("objects: %s/%s: %w", bucket, key, err)
	}
	return f, infoOf(key, of), nil
}

// PutFrom stores an object as read from r, whole or not at all. A second one under the same key at the same time is
// ErrBusy; a key that can't be a file is refused.
func (d *Directory) PutFrom(_ context.Context, bucket, key string, r io.Reader) error {
	if err := checkPath(key); err != nil {
		return Refused(err)
	}
	name := bucket + "/" + key
	if _, busy := d.busy.LoadOrStore(name, struct{}{}); busy {
		return ErrBusy
	}
	defer d.busy.Delete(name)
	err := PublishFile(d.root, name, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENAMETOOLONG) {
		return Refused(fmt.Errorf("key %q can not be a file beside those that exist: %w", key, err))
	}
	if err != nil {
		return fmt.Errorf("objects: %w", err)
	}
	return nil
}

// ErrBusy says that the object is being written.
var ErrBusy = errors.New("objects: the object is being written")

// Delete takes an object away, and the directories that are empty then; it is no error when there is none.
func (d *Directory) Delete(bucket, key string) error {
	if err := checkPath(bucket + "/" + key); err != nil {
		return nil
	}
	name := bucket + "/" + key
	if f, err := d.root.Lstat(name); err != nil || !f.Mode().IsRegular() {
		return nil
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("objects: %w", err)
	}
	for dir := path.Dir(name); dir != bucket; dir = path.Dir(dir) {
		if d.root.Remove(dir) != nil { // it is not empty
			break
		}
	}
	return nil
}

// MakeBucket makes a bucket, which may be there.
func (d *Directory) MakeBucket(bucket string) error {
	if err := d.root.Mkdir(bucket, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("objects: %w", err)
	}
	return syncDir(d.root, ".")
}

// HasBucket tells whether there is a bucket.
func (d *Directory) HasBucket(bucket string) bool {
	f, err := d.root.Lstat(bucket)
	return err == nil && f.IsDir()
}

// RemoveBucket takes an empty bucket away; ErrNotEmpty when it is not.
func (d *Directory) RemoveBucket(bucket string) error {
	err := d.root.Remove(bucket)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		return ErrNotEmpty
	}
	return err
}

// ErrNotEmpty says that a bucket has objects.
var ErrNotEmpty = errors.New("objects: the bucket has objects")

// Buckets lists the buckets by name.
func (d *Directory) Buckets() (list []Info, err error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	for _, e := range entries {
		if !e.IsDir() || !bucketName.MatchString(e.Name()) {
			continue
		}
		if f, err := e.Info(); err == nil {
			list = append(list, Info{Key: e.Name(), Modified: f.ModTime()})
		}
	}
	return list, err
}

// List gives up to limit objects of a bucket in the order of their keys: those whose keys begin with prefix and come
// after another. Its work grows with the directories that are neither before nor behind those, its memory with limit.
func (d *Directory) List(ctx context.Context, bucket, prefix, after string, limit int) (list []Info, err error) {
	most := "" // the key that none may follow, once there are limit of them
	trim := func() {
		slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Key, b.Key) })
		if list = list[:min(len(list), limit)]; limit > 0 && len(list) == limit {
			most = list[limit-1].Key
		}
	}
	err = fs.WalkDir(d.root.FS(), bucket, func(name string, e fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) && name != bucket {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		key := strings.TrimPrefix(name, bucket+"/")
		if e.IsDir() {
			dir := key + "/"
			switch {
			case name == bucket:
			case !strings.HasPrefix(dir, prefix) && !strings.HasPrefix(prefix, dir),
				dir < after && !strings.HasPrefix(after, dir), after == dir+"\xff", // before
				most != "" && dir > most: // behind
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || Temporary(e.Name()) || !strings.HasPrefix(key, prefix) || key <= after || most != "" && key > most {
			return nil
		}
		f, err := e.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		if list = append(list, infoOf(key, f)); len(list) >= 4*limit {
			trim()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	trim()
	return list, nil
}
