package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config bounds the store; zero values are the defaults.
type Config struct {
	KeepDays int   `name:"telemetry.keep-days" default:"30" help:"Days (UTC) of live telemetry that are kept; points that are older are refused."`
	MaxBytes int64 `name:"telemetry.max-bytes" default:"10737418240" help:"Bytes of live telemetry: the oldest days go; when today alone is larger, points wait in the rules' outbox."`
}

// Deps are what the store works with.
type Deps struct {
	Dir string
	// Durability is that of the main store: what an acknowledgement survives, disk or process.
	Durability string
	Log        *slog.Logger
	Now        func() time.Time // time.Now when nil
}

const (
	readers     = 4      // connections of a day's file for reads
	maxOpen     = 8      // days that are open without being in use
	maxRequests = 1024   // writes that wait; further ones block their caller
	maxGroup    = 20_000 // points that share a commit, but for a single write of more
	sweepEvery  = 10 * time.Second
	dayLayout   = "2006-01-02"
	dayNanos    = int64(24 * time.Hour)
)

// ErrFull is returned by Write while today alone is larger than MaxBytes, which is looked at every ten seconds.
var ErrFull = errors.New("live telemetry is full (--telemetry.max-bytes)")

// ErrClosed is returned by calls on a closed store.
var ErrClosed = errors.New("live telemetry is closed")

// Store is the live store of one node. It is safe for concurrent use.
type Store struct {
	cfg         Config
	d           Deps
	synchronous string

	requests chan *request
	closing  chan struct{}
	done     chan struct{} // the writer has ended

	mu     sync.Mutex
	closed bool
	open   map[string]*day
	full   bool
}

// request is a write that waits.
type request struct {
	points []Point
	answer chan error
}

// Open opens the store of a directory, which it makes if need be.
func Open(cfg Config, d Deps) (*Store, error) {
	if cfg.KeepDays <= 0 {
		cfg.KeepDays = 30
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 10 << 30
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("live telemetry: %w", err)
	}
	s := &Store{
		cfg: cfg, d: d, synchronous: "FULL", open: map[string]*day{},
		requests: make(chan *request, maxRequests), closing: make(chan struct{}), done: make(chan struct{}),
	}
	if d.Durability == "process" {
		s.synchronous = "NORMAL"
	}
	s.sweep()
	go s.run()
	return s, nil
}

// Close waits for the writes already taken and closes the files.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.closing)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, d := range s.open {
		errs = append(errs, s.retire(d, func() error { return nil }))
	}
	return errors.Join(errs...)
}

// Check tells why a point could not be written, whatever the state of the store; such errors wrap ErrRejected.
func (s *Store) Check(p *Point) error {
	if err := p.check(); err != nil {
		return err
	}
	now := s.d.Now()
	if p.Time < s.oldest(now)*dayNanos || p.Time > now.Add(maxAhead).UnixNano() {
		return reject("The record timestamp is outside the time range [%s, %s) of the data ingestion window.",
			time.Unix(0, s.oldest(now)*dayNanos).UTC().Format(time.RFC3339), now.Add(maxAhead).UTC().Format(time.RFC3339))
	}
	return nil
}

// Write writes points, which must have passed Check, and returns once they are on stable storage. After an error
// any of them may have been written: writing them again makes no second ones.
func (s *Store) Write(ctx context.Context, points []Point) error {
	if len(points) == 0 {
		return nil
	}
	r := &request{points: points, answer: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-s.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.answer:
		return err
	case <-s.done:
		select {
		case err := <-r.answer:
			return err
		default:
			return ErrClosed
		}
	}
}

// run is the writer.
func (s *Store) run() {
	defer close(s.done)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case r := <-s.requests:
			s.commit(r)
		case <-sweep.C:
			s.sweep()
		case <-s.closing:
			for {
				select {
				case r := <-s.requests:
					s.commit(r)
				default:
					return
				}
			}
		}
	}
}

// commit writes what waits: a transaction for each day that it is about.
func (s *Store) commit(first *request) {
	group, n := []*request{first}, len(first.points)
	for more := true; more && n < maxGroup; {
		select {
		case r := <-s.requests:
			group, n = append(group, r), n+len(r.points)
		default:
			more = false
		}
	}
	if s.isFull() {
		for _, r := range group {
			r.answer <- ErrFull
		}
		return
	}
	days := map[int64][]*Point{}
	for _, r := range group {
		for i := range r.points {
			number := r.points[i].Time / dayNanos
			days[number] = append(days[number], &r.points[i])
		}
	}
	failed := map[int64]error{}
	for number, points := range days {
		if err := s.writeDay(dayName(number), points); err != nil {
			failed[number] = fmt.Errorf("live telemetry: %w", err)
		}
	}
	for _, r := range group {
		var err error
		for i := range r.points {
			if err = failed[r.points[i].Time/dayNanos]; err != nil {
				break
			}
		}
		r.answer <- err
	}
}

func (s *Store) writeDay(name string, points []*Point) error {
	d, err := s.use(name, true)
	if err != nil {
		return err
	}
	defer s.leave(d)
	err = d.write(points)
	s.examine(d, err)
	return err
}

func dayName(number int64) string { return time.Unix(0, number*dayNanos).UTC().Format(dayLayout) }

// oldest is the number of the first day that is kept.
func (s *Store) oldest(now time.Time) int64 {
	return max(0, now.UnixNano()/dayNanos-int64(s.cfg.KeepDays)+1)
}

func (s *Store) path(name string) string { return filepath.Join(s.d.Dir, name+".db") }

// use opens a day unless it is open; without create, fs.ErrNotExist is the error when there is none. It is to be left.
func (s *Store) use(name string, create bool) (*day, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && !create {
		return nil, ErrClosed
	}
	d := s.open[name]
	if d != nil && d.retired != nil {
		return nil, errRetired
	}
	if d == nil {
		path := s.path(name)
		if _, err := os.Stat(path); err != nil && !create {
			return nil, fs.ErrNotExist
		}
		s.closeIdle()
		var err error
		d, err = openDay(path, name, s.synchronous)
		if damaged(err) {
			s.aside(path, name, err)
			if !create {
				return nil, fs.ErrNotExist
			}
			d, err = openDay(path, name, s.synchronous)
		}
		if err != nil {
			return nil, err
		}
		s.open[name] = d
	}
	d.uses++
	return d, nil
}

// closeIdle makes room for a day to be opened; the caller holds mu.
func (s *Store) closeIdle() {
	for name, d := range s.open {
		if len(s.open) < maxOpen {
			return
		}
		if d.uses == 0 {
			delete(s.open, name)
			_ = d.close()
		}
	}
}

// errRetired is for whoever comes while a day goes; the next attempt finds it gone.
var errRetired = errors.New("the day's file is being taken away")

func (s *Store) leave(d *day) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.uses--
	if d.retired != nil && d.uses == 0 {
		if err := s.finish(d); err != nil {
			s.d.Log.Warn("live telemetry: a day could not be closed", "day", d.name, "err", err)
		}
	}
}

// examine sets a day aside when err says that its file is damaged.
func (s *Store) examine(d *day, err error) {
	if !damaged(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.retired == nil {
		_ = s.retire(d, func() error { s.aside(d.path, d.name, err); return nil })
	}
}

// retire has a day closed once nobody uses it, and then done, which may move or remove its files: SQLite, when it
// closes a database, removes files by their names. The caller holds mu.
func (s *Store) retire(d *day, then func() error) error {
	if d.retired != nil {
		return nil
	}
	if d.retired = then; d.uses > 0 {
		return nil
	}
	return s.finish(d)
}

func (s *Store) finish(d *day) error {
	delete(s.open, d.name)
	err := d.close()
	if damaged(err) {
		err = nil
	}
	return errors.Join(err, d.retired())
}

func (s *Store) aside(path, name string, cause error) {
	err := setAside(path, s.d.Now().UnixNano())
	s.d.Log.Error("live telemetry: the file of a day is damaged: it is set aside, its points can't be asked for", "day", name, "err", errors.Join(cause, err))
}

func (s *Store) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// sweep drops days that are too old, and the oldest while all are too large.
func (s *Store) sweep() {
	names, err := s.days()
	if err != nil {
		s.d.Log.Warn("live telemetry: the directory can't be read", "err", err)
		return
	}
	now := s.d.Now()
	oldest, today := dayName(s.oldest(now)), dayName(now.UnixNano()/dayNanos)
	total := int64(0)
	sizes := map[string]int64{}
	for _, n := range names {
		sizes[n] = sizeOf(s.path(n))
		total += sizes[n]
	}
	for _, n := range names {
		if n >= oldest && (total <= s.cfg.MaxBytes || n >= today) {
			break
		}
		if err := s.drop(n); err != nil {
			s.d.Log.Warn("live telemetry: a day can't be removed", "day", n, "err", err)
			continue
		}
		total -= sizes[n]
		s.d.Log.Info("live telemetry: a day was removed", "day", n)
	}
	s.mu.Lock()
	s.full = total > s.cfg.MaxBytes
	s.mu.Unlock()
}

func (s *Store) drop(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	remove := func() error { return removeDay(s.path(name)) }
	if d := s.open[name]; d != nil {
		return s.retire(d, remove)
	}
	return remove()
}

// days are the names of the days that there are, the oldest first.
func (s *Store) days() ([]string, error) {
	entries, err := os.ReadDir(s.d.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".db")
		if _, err := time.Parse(dayLayout, name); ok && err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func sizeOf(path string) (size int64) {
	for _, suffix := range suffixes {
		if st, err := os.Stat(path + suffix); err == nil {
			size += st.Size()
		}
	}
	return size
}
