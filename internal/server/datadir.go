package server

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dataDir is the directory that holds all that one server keeps on disk:
//
//	lock             held (flock) while a server runs on the directory
//	node-id          the name of this node, made at the first start
//	nats-password    guards the embedded NATS server
//	audit-key        signs the ends of the log of changes
//	ca/root.pem      what devices trust
//	ca/issuing.pem   the authority below it, which signs certificates of devices
//	credentials      AWS shared-credentials file with the admin key
//	endpoints.json   where the running server listens
//	flotilla.db*     the SQLite store
//	nats/            streams
//	telemetry/       live telemetry, a SQLite file a day
//	archive/         Parquet files of firehose actions
//	objects/         objects of s3 actions, a directory a bucket
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory if needed and locks it for this process.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("the data directory cannot be made: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory cannot be used: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another flotilla already serves the data directory %s", path)
	}
	return &dataDir{path: path, lock: f}, nil
}

func (d *dataDir) close() error { return d.lock.Close() }

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// secret returns the text of a private file, making it from random letters when
// it does not exist.
func (d *dataDir) secret(name string) (string, error) {
	b, err := os.ReadFile(d.file(name))
	if err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	text := rand.Text()
	return text, writeFileAtomic(d.file(name), []byte(text+"\n"), 0o600)
}

// Endpoints is where a running server listens, as endpoints.json has it.
type Endpoints struct {
	MQTT      string `json:"mqtt"`                // host:port, mutual TLS
	HTTPS     string `json:"https"`               // host:port, mutual TLS, protocol by ALPN
	API       string `json:"api"`                 // URL of all AWS APIs
	NATS      string `json:"nats"`                // URL with credentials
	MQTTPlain string `json:"mqttPlain,omitempty"` // host:port, if on
	PID       int    `json:"pid"`
}

func (d *dataDir) writeEndpoints(e Endpoints) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return writeFileAtomic(d.file("endpoints.json"), append(b, '\n'), 0o600)
}

func (d *dataDir) removeEndpoints() error {
	err := os.Remove(d.file("endpoints.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writeFileAtomic replaces path as a whole, durably.
func writeFileAtomic(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err = errors.Join(f.Chmod(mode), write(f, data), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func write(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return err
}
