package object

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	uploadsDir  = ".uploads" // no name of a bucket
	maxUploads  = 100        // that are not complete
	uploadsLast = 24 * time.Hour
	maxParts    = 10_000
	maxComplete = 1 << 20 // bytes of a CompleteMultipartUpload
	targetFile  = "target"
)

var uploadID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// createUpload begins an upload in parts. Of uploads that were left incomplete for a day those go that stand in the way.
//
// AWS: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
func (d *Door) createUpload(w http.ResponseWriter, r *http.Request, op Operation) (int, error) {
	root := d.dir.root
	if err := root.MkdirAll(uploadsDir, 0o700); err != nil {
		return 0, err
	}
	entries, err := fs.ReadDir(root.FS(), uploadsDir)
	if err != nil {
		return 0, err
	}
	n := len(entries)
	for _, e := range entries {
		if f, err := e.Info(); err == nil && time.Since(f.ModTime()) > uploadsLast && root.RemoveAll(path.Join(uploadsDir, e.Name())) == nil {
			n--
		}
	}
	if n >= maxUploads {
		return 0, errSlowDown
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // it never fails
	id := hex.EncodeToString(random[:])
	err = PublishFile(root, path.Join(uploadsDir, id, targetFile), func(w io.Writer) error {
		_, err := io.WriteString(w, op.Bucket+"/"+op.Key)
		return err
	})
	if err != nil {
		return 0, err
	}
	return d.answer(w, r, struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		Xmlns                 string   `xml:"xmlns,attr"`
		Bucket, Key, UploadId string
	}{Xmlns: namespace, Bucket: op.Bucket, Key: op.Key, UploadId: id})
}

// upload finds the directory of the upload that an operation names, which must be for its object.
func (d *Door) upload(op Operation) (dir string, err error) {
	id := op.Query.Get("uploadId")
	if !uploadID.MatchString(id) {
		return "", errNoUpload
	}
	dir = path.Join(uploadsDir, id)
	target, err := d.dir.root.ReadFile(path.Join(dir, targetFile))
	if err != nil || string(target) != op.Bucket+"/"+op.Key {
		return "", errNoUpload
	}
	return dir, nil
}

func partName(n int) string { return fmt.Sprintf("%05d", n) }

func (d *Door) uploadPart(w http.ResponseWriter, r *http.Request, op Operation) (int, error) {
	dir, err := d.upload(op)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(op.Query.Get("partNumber"))
	if err != nil || n < 1 || n > maxParts {
		return 0, invalidArgument("Part number must be an integer between 1 and 10000, inclusive")
	}
	body, err := d.body(w, r)
	if err != nil {
		return 0, err
	}
	used, err := d.sizeOf(dir)
	if err != nil {
		return 0, err
	}
	if used+r.ContentLength > d.cfg.MaxBytes {
		return 0, errTooLarge
	}
	name := path.Join(dir, partName(n))
	if _, busy := d.dir.busy.LoadOrStore(name, struct{}{}); busy {
		return 0, errBusy
	}
	defer d.dir.busy.Delete(name)
	err = PublishFile(d.dir.root, name, func(w io.Writer) error {
		_, err := io.Copy(w, body)
		return err
	})
	if err != nil {
		return 0, err
	}
	f, err := d.dir.root.Stat(name)
	if err != nil {
		return 0, err
	}
	w.Header().Set("Etag", etag(versionOf(f)))
	w.WriteHeader(http.StatusOK)
	return http.StatusOK, nil
}

// sizeOf is how many bytes of parts an upload has.
func (d *Door) sizeOf(dir string) (n int64, err error) {
	entries, err := fs.ReadDir(d.dir.root.FS(), dir)
	for _, e := range entries {
		if f, err := e.Info(); err == nil {
			n += f.Size()
		}
	}
	return n, err
}

func (d *Door) abortUpload(op Operation) error {
	dir, err := d.upload(op)
	if err != nil {
		return err
	}
	return d.dir.root.RemoveAll(dir)
}

// completeUpload makes the object of the parts that are named.
func (d *Door) completeUpload(w http.ResponseWriter, r *http.Request, op Operation) (int, error) {
	dir, err := d.upload(op)
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, maxComplete+1))
	if err != nil {
		return 0, err
	}
	var in struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if len(text) > maxComplete || xml.Unmarshal(text, &in) != nil || len(in.Part) == 0 || len(in.Part) > maxParts {
		return 0, &Error{http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"}
	}
	parts := &joined{root: d.dir.root}
	last := 0
	for _, p := range in.Part {
		if p.PartNumber <= last { // also one that is there twice: the object would have more bytes than were uploaded
			return 0, &Error{http.StatusBadRequest, "InvalidPartOrder", "The list of parts was not in ascending order."}
		}
		last = p.PartNumber
		name := path.Join(dir, partName(p.PartNumber))
		f, err := d.dir.root.Stat(name)
		if err != nil || strings.Trim(p.ETag, `"`) != versionOf(f) {
			return 0, &Error{http.StatusBadRequest, "InvalidPart", "One or more of the specified parts could not be found, or has another entity tag."}
		}
		parts.names = append(parts.names, name)
	}
	err = d.dir.PutFrom(r.Context(), op.Bucket, op.Key, &bounded{parts, d.cfg.MaxBytes}) // parts that came at once may be more together
	parts.close()
	if err != nil {
		return 0, err
	}
	if err := d.dir.root.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	f, info, err := d.dir.Get(op.Bucket, op.Key)
	if err != nil {
		return 0, err
	}
	f.Close()
	return d.answer(w, r, struct {
		XMLName                     xml.Name `xml:"CompleteMultipartUploadResult"`
		Xmlns                       string   `xml:"xmlns,attr"`
		Location, Bucket, Key, ETag string
	}{Xmlns: namespace, Location: "/" + op.Bucket + "/" + op.Key, Bucket: op.Bucket, Key: op.Key, ETag: etag(info.Version)})
}

// joined reads files one after the other.
type joined struct {
	root  *os.Root
	names []string
	open  *os.File
}

func (j *joined) Read(p []byte) (int, error) {
	for {
		if j.open == nil {
			if len(j.names) == 0 {
				return 0, io.EOF
			}
			f, err := j.root.Open(j.names[0])
			if err != nil {
				return 0, err
			}
			j.open, j.names = f, j.names[1:]
		}
		n, err := j.open.Read(p)
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if errors.Is(err, io.EOF) {
			j.close()
		}
	}
}

func (j *joined) close() {
	if j.open != nil {
		j.open.Close()
		j.open = nil
	}
}
