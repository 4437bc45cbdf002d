package function

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/lambda"
	"flotilla/internal/function/environment"
	"flotilla/internal/store"
)

const (
	kindFunction = "function" // on the bus; key: name

	maxTimeout = 900 * time.Second
	// maxCached bounds the definitions that are kept in memory.
	maxCached = 1024
	latestTag = "$LATEST"
)

// local are the functions of the Lambda API, which run as processes of this machine.
type local struct {
	f    *Functions
	dir  string
	env  *environment.Environments
	unpk sync.Mutex // held while code is unpacked

	mu    sync.Mutex
	epoch uint64             // rises with each forget: what was read before it is not kept
	known map[string]*record // by name
	pools map[string]*pool   // by name and version: hook/3
	logs  map[string]*environment.Log
	used  map[string]time.Time // code that is unpacked, and when it was used last
}

// pool runs one version of a function as it was at one revision.
type pool struct {
	*environment.Pool
	revision, sha256 string
}

func openLocal(f *Functions, dir string) (*local, error) {
	code := filepath.Join(dir, "code")
	removeAll(code)
	if err := os.MkdirAll(code, 0o700); err != nil {
		return nil, fmt.Errorf("function: %w", err)
	}
	code, err := filepath.Abs(code)
	if err != nil {
		return nil, fmt.Errorf("function: %w", err)
	}
	l := &local{f: f, dir: code, known: map[string]*record{}, pools: map[string]*pool{}, logs: map[string]*environment.Log{}, used: map[string]time.Time{}}
	l.env, err = environment.Open(environment.Config{
		Dir: filepath.Join(dir, "environments"), Processes: f.cfg.Processes, Idle: f.cfg.Idle, Output: f.cfg.LogOutput, Log: f.log,
	})
	return l, err
}

func (l *local) close() { l.env.Close() }

// chosen is the version of a function that a call means.
type chosen struct {
	*record
	*version
	qualifier string // as it was given, "" without
}

// choose finds the function that an ARN or a name means; qualifier, when not empty, must not contradict it. Errors:
// ResourceNotFoundException, InvalidParameterValueException.
func (f *Functions) choose(ctx context.Context, target, qualifier string) (*chosen, error) {
	name, inName, ok := f.split(target)
	switch {
	case !ok || f.local == nil:
		return nil, f.notFound(target)
	case qualifier != "" && inName != "" && qualifier != inName:
		return nil, invalid("The derived qualifier from the function name does not match the specified qualifier.")
	case qualifier == "":
		qualifier = inName
	}
	r, err := f.local.record(ctx, name)
	if err != nil {
		return nil, err
	}
	number, ok := versionNumber(qualifier)
	if v := r.versions[number]; ok && v != nil {
		return &chosen{r, v, qualifier}, nil
	}
	return nil, f.notFound(name + ":" + qualifier)
}

// versionNumber reads a qualifier; an alias is none.
func versionNumber(qualifier string) (int64, bool) {
	if qualifier == "" || qualifier == latestTag {
		return latest, true
	}
	n, err := strconv.ParseInt(qualifier, 10, 64)
	return n, err == nil && n > 0
}

// split takes an ARN, a partial ARN or a name apart. Callers may use any region.
func (f *Functions) split(target string) (name, qualifier string, ok bool) {
	if strings.HasPrefix(target, "arn:") {
		a, ok := aws.ParseARN(target)
		if !ok || a.Service != "lambda" || a.Account != f.account.ID {
			return "", "", false
		}
		target = a.Resource
	} else if account, rest, partial := strings.Cut(target, ":function:"); partial {
		if account != f.account.ID {
			return "", "", false
		}
		target = rest
	}
	name, qualifier, _ = strings.Cut(strings.TrimPrefix(target, "function:"), ":")
	return name, qualifier, name != ""
}

func (f *Functions) arn(name string) string { return f.account.ARN("lambda", "function:"+name) }

func (f *Functions) notFound(target string) error {
	if !strings.HasPrefix(target, "arn:") {
		target = f.arn(bounded(target))
	}
	return &lambda.ResourceNotFoundException{Type: "User", Message: "Function not found: " + bounded(target)}
}

func invalid(format string, args ...any) error {
	return &lambda.InvalidParameterValueException{Type: "User", Message: fmt.Sprintf(format, args...)}
}

// record gives a function, from the cache if it can. In a transaction it reads what that sees.
func (l *local) record(ctx context.Context, name string) (*record, error) {
	inside := store.InTransaction(ctx)
	l.mu.Lock()
	r, epoch := l.known[name], l.epoch
	l.mu.Unlock()
	if r != nil && !inside {
		return r, nil
	}
	err := l.f.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		r, err = selectFunction(tx, name)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, l.f.notFound(name)
	}
	if err != nil {
		return nil, fmt.Errorf("function: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if inside || l.epoch != epoch {
		return r, nil
	}
	if len(l.known) >= maxCached {
		clear(l.known)
	}
	l.known[name] = r
	return r, nil
}

// forget hears that a function was changed or deleted, here or on another node; "" is all of them.
func (l *local) forget(name string) {
	l.mu.Lock()
	l.epoch++
	if name == "" {
		clear(l.known)
	} else {
		delete(l.known, name)
	}
	l.mu.Unlock()
	l.retire(name)
}

// retire ends the pools of a function that are not as it is now.
func (l *local) retire(name string) {
	if name == "" {
		return // each is compared when it is used
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := l.record(ctx, name)
	if err != nil && !isNotFound(err) {
		l.f.log.Warn("function: a change could not be read", "function", name, "err", err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, p := range l.pools {
		of, number, _ := strings.Cut(key, "/")
		if of != name {
			continue
		}
		n, _ := strconv.ParseInt(number, 10, 64) // we made it
		if r != nil && r.versions[n] != nil && r.revisionOf(r.versions[n]) == p.revision {
			continue
		}
		delete(l.pools, key)
		go p.Retire() // it may wait for a lock that an invocation holds
	}
	if r == nil {
		delete(l.logs, name)
	}
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[*lambda.ResourceNotFoundException](err)
	return ok
}

// revisionOf names everything that makes a difference to processes.
func (r *record) revisionOf(v *version) string {
	reserved := ""
	if n := r.settings.Concurrency; n != nil {
		reserved = strconv.Itoa(int(*n))
	}
	return v.revision + "/" + reserved
}

// run invokes a version of a function.
func (l *local) run(ctx context.Context, c *chosen, inv *environment.Invocation) (*environment.Result, error) {
	if len(inv.Payload) == 0 {
		inv.Payload = []byte("{}")
	}
	for {
		p, err := l.pool(ctx, c)
		if err != nil {
			return nil, err
		}
		res, err := p.Invoke(ctx, inv)
		if !errors.Is(err, environment.ErrClosed) || ctx.Err() != nil {
			return res, err
		}
		// It was changed at this moment, or the server ends.
		again, cerr := l.f.choose(ctx, c.name, c.qualifier)
		if cerr != nil || again.revisionOf(again.version) == c.revisionOf(c.version) {
			return nil, err
		}
		c = again
	}
}

// pool gives what runs a version; a new one if there is none, or one of another revision.
func (l *local) pool(ctx context.Context, c *chosen) (*pool, error) {
	key, revision := c.name+"/"+strconv.FormatInt(c.number, 10), c.revisionOf(c.version)
	l.mu.Lock()
	p := l.pools[key]
	l.used[c.sha256] = time.Now()
	l.mu.Unlock()
	if p != nil && p.revision == revision {
		return p, nil
	}
	code, err := l.code(ctx, c.version)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch p = l.pools[key]; {
	case p != nil && p.revision == revision:
		return p, nil
	case p != nil:
		go p.Retire()
	}
	p = &pool{l.env.Pool(l.describe(c, code), l.logOf(c.name)), revision, c.sha256}
	l.pools[key] = p
	return p, nil
}

// logOf gives the log of a function. The lock is held.
func (l *local) logOf(name string) *environment.Log {
	log := l.logs[name]
	if log == nil {
		log = new(environment.Log)
		l.logs[name] = log
	}
	return log
}

func (l *local) describe(c *chosen, code string) *environment.Function {
	most := l.f.cfg.PerFunction
	if n := c.settings.Concurrency; n != nil {
		most = min(most, int(*n))
	}
	return &environment.Function{
		Name: c.name, Version: c.tag(), ARN: l.f.arn(c.name), Runtime: c.Runtime, Handler: c.Handler, Code: code,
		Timeout: time.Duration(c.Timeout) * time.Second, MemoryMiB: int(c.MemorySize), Variables: c.Variables, Region: l.f.account.Region,
		Concurrency: most, MaxWaiting: l.f.cfg.MaxWaiting,
	}
}

// tag is the version as AWS writes it.
func (v *version) tag() string {
	if v.number == latest {
		return latestTag
	}
	return strconv.FormatInt(v.number, 10)
}

// code gives the directory with the code of a version, unpacked.
func (l *local) code(ctx context.Context, v *version) (string, error) {
	dir := filepath.Join(l.dir, v.sha256)
	l.unpk.Lock()
	defer l.unpk.Unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	var zip []byte
	err := l.f.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		zip, err = readCode(tx, v.sha256, v.sizeBytes)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("function: code: %w", err)
	}
	if sum := sha256.Sum256(zip); hex.EncodeToString(sum[:]) != v.sha256 {
		return "", errors.New("function: the code in the store is not whole")
	}
	return dir, unpack(zip, dir)
}

// admit unpacks new code, and tells what is wrong with it. Code that has not been used for long makes place.
func (l *local) admit(sum string, zip []byte) error {
	l.unpk.Lock()
	defer l.unpk.Unlock()
	l.mu.Lock()
	l.used[sum] = time.Now()
	var unused []string
	for other, at := range l.used {
		if time.Since(at) > maxTimeout+time.Minute && !l.needs(other) {
			unused = append(unused, other)
			delete(l.used, other)
		}
	}
	l.mu.Unlock()
	for _, other := range unused {
		removeAll(filepath.Join(l.dir, other))
	}
	dir := filepath.Join(l.dir, sum)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return unpack(zip, dir)
}

// needs tells whether a pool has the code. The lock is held.
func (l *local) needs(sum string) bool {
	for _, p := range l.pools {
		if p.sha256 == sum {
			return true
		}
	}
	return false
}
