package loggroup

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config bounds what is kept; zero values are the defaults.
type Config struct {
	FileBytes int64 `name:"logs.file-bytes" default:"16777216" help:"Bytes of a log group's file after which a new one is begun."`
	Files     int   `name:"logs.files" default:"8" help:"Most files of a log group; the oldest goes."`
	Groups    int   `name:"logs.max-groups" default:"100" help:"Most log groups; rules can't make more."`
}

func (c Config) withDefaults() Config {
	if c.FileBytes <= 0 {
		c.FileBytes = 16 << 20
	}
	if c.Files <= 0 {
		c.Files = 8
	}
	if c.Groups <= 0 {
		c.Groups = 100
	}
	return c
}

// MaxMessage is the most bytes of a message, CloudWatch Logs' limit.
//
// AWS: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
const MaxMessage = 1 << 20

// Event is an entry of a log. Times are milliseconds since 1970.
type Event struct {
	Timestamp     int64  `json:"timestamp"`
	IngestionTime int64  `json:"ingestionTime"`
	Message       string `json:"message"`
}

const (
	current = "current.jsonl"
	suffix  = ".jsonl"
	// maxLine is the most bytes of a line: each byte of a message may need six.
	maxLine = 6*MaxMessage + 1024
	// maxName is what file systems take; CloudWatch's limit is 512.
	maxName = 250
)

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_/.#-]+$`)

// CheckName tells what is wrong with the name of a group.
func CheckName(name string) error {
	if len(name) > maxName || !namePattern.MatchString(name) {
		return fmt.Errorf("the log group %q has 1 to %d of the characters a-z A-Z 0-9 _ - / . #", name, maxName)
	}
	return nil
}

// fileName is the directory of a group; no two groups have the same.
func fileName(group string) string {
	name := strings.ReplaceAll(group, "/", "+")
	if name[0] == '.' {
		name = "%" + name // neither hidden nor a way out
	}
	return name
}

func groupName(file string) string {
	return strings.ReplaceAll(strings.TrimPrefix(file, "%"), "+", "/")
}

// ErrTooMany tells that there are as many groups as there may be.
var ErrTooMany = errors.New("there are as many log groups as there may be (--logs.max-groups)")

// Groups are the log groups of a directory. It is safe for concurrent use; one process has a directory.
type Groups struct {
	cfg  Config
	dir  string
	mu   sync.Mutex // one writer at a time
	last int64      // name of the last file that was finished
}

// Open opens a directory; it is made with the first group.
func Open(dir string, cfg Config) *Groups { return &Groups{cfg: cfg.withDefaults(), dir: dir} }

// Append adds events to a group, which is made when it is missing, and returns once they are on
// stable storage. When it fails some of them may be there. Errors: ErrTooMany; what CheckName says.
func (g *Groups) Append(group string, events []Event) error {
	if err := CheckName(group); err != nil {
		return err
	}
	var lines []byte
	for i := range events {
		if len(events[i].Message) > MaxMessage {
			return fmt.Errorf("a message has %d bytes; it has %d at most", len(events[i].Message), MaxMessage)
		}
		line, err := json.Marshal(&events[i])
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	dir, err := g.make(group)
	if err != nil {
		return err
	}
	return g.write(dir, lines)
}

// make makes the directory of a group.
func (g *Groups) make(group string) (string, error) {
	dir := filepath.Join(g.dir, fileName(group))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	groups, err := os.ReadDir(g.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if len(groups) >= g.cfg.Groups {
		return "", ErrTooMany
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, errors.Join(syncDir(g.dir), syncDir(filepath.Dir(g.dir)))
}

func (g *Groups) write(dir string, lines []byte) (err error) {
	f, err := os.OpenFile(filepath.Join(dir, current), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size > 0 { // a write that broke off leaves half a line
		end := make([]byte, 1)
		if _, err := f.ReadAt(end, size-1); err != nil {
			return err
		}
		if end[0] != '\n' {
			lines = append([]byte{'\n'}, lines...)
		}
	}
	if _, err := f.Write(lines); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if size == 0 {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if size+int64(len(lines)) >= g.cfg.FileBytes {
		return g.rotate(dir)
	}
	return nil
}

// rotate finishes the current file, and removes the oldest ones.
func (g *Groups) rotate(dir string) error {
	g.last = max(g.last+1, time.Now().UnixMilli())
	if err := os.Rename(filepath.Join(dir, current), filepath.Join(dir, fmt.Sprintf("%015d%s", g.last, suffix))); err != nil {
		return err
	}
	files, err := finished(dir)
	if err != nil {
		return err
	}
	for len(files) >= g.cfg.Files && len(files) > 1 { // the next current one counts
		if err := os.Remove(filepath.Join(dir, files[0])); err != nil {
			return err
		}
		files = files[1:]
	}
	return syncDir(dir)
}

// finished are the files of a group but for the current one, the oldest first.
func finished(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if e.Name() != current && strings.HasSuffix(e.Name(), suffix) {
			files = append(files, e.Name())
		}
	}
	return files, nil // ReadDir sorts
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// List gives the names of the groups of a directory, in order.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, groupName(e.Name()))
		}
	}
	slices.Sort(names)
	return names, err
}

// Tail gives the last n events of a group, the oldest of them first. Lines that are no events are left
// out. The error is os.ErrNotExist for a group that there is not.
func Tail(dir, group string, n int) ([]Event, error) {
	if err := CheckName(group); err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, fileName(group))
	files, err := finished(dir)
	if err != nil {
		return nil, err
	}
	files = append(files, current)
	var out []Event
	for i := len(files) - 1; i >= 0 && len(out) < n; i-- {
		events, err := readLast(filepath.Join(dir, files[i]), n-len(out))
		if errors.Is(err, os.ErrNotExist) { // just finished, or removed
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(events, out...)
	}
	return out, nil
}

// readLast reads the last n events of a file.
func readLast(name string, n int) ([]Event, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Event
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		if out = append(out, e); len(out) >= 2*n {
			out = append(out[:0], out[len(out)-n:]...)
		}
	}
	return out[max(0, len(out)-n):], lines.Err()
}
