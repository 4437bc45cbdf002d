package clients_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// nodeModules installs what package-lock.json names, once for each of its contents,
// below the user's cache directory, and gives the environment in which node finds it.
func nodeModules(t *testing.T) []string {
	t.Helper()
	program(t, "node")
	npm := program(t, "npm")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "flotilla", "test-clients-"+hex.EncodeToString(sum[:8]))
	environ := append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	if _, err := os.Stat(dir); err == nil {
		return environ
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(fresh, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The device SDK brings its native part for common systems; no script has to run.
	if out, err := try(t, os.Environ(), npm, "ci", "--prefix", fresh, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"); err != nil {
		missing(t, "what package-lock.json names: npm ci: "+out)
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, os.ErrExist) {
		if _, there := os.Stat(dir); there != nil {
			t.Fatal(err)
		}
	}
	return environ
}

// mqttjs gives the kit of npm's mqtt.
func mqttjs(v5 bool) func(t *testing.T) kit {
	return func(t *testing.T) kit {
		k := kit{v5: v5, can: choosesALPN | tellsSession | publishes | takesNoID | withdrawsWill}
		if v5 {
			k.can |= tellsLimits | receivesAlias | sendsAlias | tellsReason
		}
		k.dial = startDriver(t, "node/mqttjs.js").dial
		return k
	}
}

// deviceSDK gives the kits of npm's aws-iot-device-sdk-v2.
func deviceSDK(v5 bool) func(t *testing.T) kit {
	return func(t *testing.T) kit {
		k := kit{v5: v5, can: choosesALPN | tellsSession | publishes | withdrawsWill}
		if v5 {
			k.can |= tellsLimits | receivesAlias | sendsAlias | tellsReason | acknowledges // it makes up a client id itself
		}
		k.dial = startDriver(t, "node/devicesdk.js").dial
		return k
	}
}

// driver is a node process with links of one kit. node/lines.js describes what is
// said between them.
type driver struct {
	stdin io.Writer

	mu      sync.Mutex
	calls   int
	waiting map[int]chan answer
	links   map[string]*nodeLink
	died    error
}

type answer struct {
	Value json.RawMessage
	Error string
	Code  byte
}

func startDriver(t *testing.T, script string) *driver {
	t.Helper()
	environ := nodeModules(t)
	cmd := exec.Command("node", script)
	cmd.Env, cmd.Stderr = environ, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &driver{stdin: stdin, waiting: map[int]chan answer{}, links: map[string]*nodeLink{}}
	read := make(chan struct{})
	go func() { defer close(read); d.read(stdout) }()
	t.Cleanup(func() {
		_ = stdin.Close()
		kill := time.AfterFunc(grace, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		<-read
		_ = cmd.Wait()
	})
	return d
}

func (d *driver) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var in struct {
			ID      int
			Link    string
			Message *message
			End     *ending
			answer
		}
		if err := json.Unmarshal(lines.Bytes(), &in); err != nil {
			continue // something that a library prints
		}
		d.mu.Lock()
		call, link := d.waiting[in.ID], d.links[in.Link]
		delete(d.waiting, in.ID)
		d.mu.Unlock()
		switch {
		case call != nil:
			call <- in.answer
		case link != nil && in.Message != nil:
			link.got <- *in.Message
		case link != nil && in.End != nil:
			link.end(*in.End)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.died = errors.New("the node process has ended")
	for id, call := range d.waiting {
		call <- answer{Error: d.died.Error()}
		delete(d.waiting, id)
	}
}

// call asks for op and waits for its answer.
func (d *driver) call(ctx context.Context, op, link string, more map[string]any) (json.RawMessage, error) {
	d.mu.Lock()
	if d.died != nil {
		d.mu.Unlock()
		return nil, d.died
	}
	d.calls++
	id, call := d.calls, make(chan answer, 1)
	d.waiting[id] = call
	request := map[string]any{"id": id, "op": op, "link": link}
	for k, v := range more {
		request[k] = v
	}
	b, err := json.Marshal(request)
	if err == nil {
		_, err = d.stdin.Write(append(b, '\n'))
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	select {
	case a := <-call:
		switch {
		case a.Code >= 0x80:
			return nil, &refused{a.Code, a.Error}
		case a.Error != "":
			return nil, errors.New(a.Error)
		}
		return a.Value, nil
	case <-ctx.Done():
		return nil, errors.New(op + ": the library gives no answer")
	}
}

type nodeLink struct {
	mailbox
	driver  *driver
	name    string
	connack accepted
}

func (d *driver) dial(t *testing.T, o options) (link, error) {
	l := &nodeLink{mailbox: newMailbox(), driver: d}
	d.mu.Lock()
	l.name = strconv.Itoa(len(d.links))
	d.links[l.name] = l
	d.mu.Unlock()
	value, err := d.call(t.Context(), "connect", l.name, map[string]any{"options": o})
	if err != nil {
		return nil, err
	}
	return l, json.Unmarshal(value, &l.connack)
}

func (l *nodeLink) accepted() accepted { return l.connack }

func (l *nodeLink) publish(m message) error {
	_, err := l.driver.call(context.Background(), "publish", l.name, map[string]any{"message": m})
	return err
}

func (l *nodeLink) acknowledge() error {
	_, err := l.driver.call(context.Background(), "acknowledge", l.name, nil)
	return err
}

func (l *nodeLink) close() {
	_, _ = l.driver.call(context.Background(), "close", l.name, nil)
}
