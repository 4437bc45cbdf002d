package sessionstore

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// Never is the expiry of a session that does not expire.
const Never = 0xFFFFFFFF

// remembered is how long the epoch of a client id is known after the end of its
// session; AWS's versionNumber begins again after about an hour offline.
const remembered = time.Hour

var (
	// ErrFenced says that the connection is no longer its client id's: it was
	// taken over, or its session has ended.
	ErrFenced = errors.New("sessionstore: the connection was taken over")
	// ErrHeld says that another principal's connection or session has the client id.
	ErrHeld = errors.New("sessionstore: the client id is another principal's")
	// ErrNotFound says that there is no such session or retained message.
	ErrNotFound = errors.New("sessionstore: not found")
)

// FullError says whose queues are full. It unwraps to mqtt.QuotaExceeded.
type FullError struct {
	Sessions []int64
	Names    []string // of their targets
	Total    bool     // all queues together are full, not these
}

func (e *FullError) Error() string {
	const most = 3
	switch names := e.Names; {
	case e.Total:
		return "sessionstore: all queues together are full"
	case len(names) > most:
		return fmt.Sprintf("sessionstore: the queues of %s and %d others are full", strings.Join(names[:most], ", "), len(names)-most)
	case len(names) > 1:
		return "sessionstore: the queues of " + strings.Join(names, ", ") + " are full"
	case len(names) == 1:
		return "sessionstore: the queue of " + names[0] + " is full"
	}
	return "sessionstore: a queue is full"
}

func fullError(full []Target) *FullError {
	e := &FullError{}
	for _, t := range full {
		e.Sessions = append(e.Sessions, t.Session)
		if t.Name != "" {
			e.Names = append(e.Names, t.Name)
		}
	}
	return e
}

// Unwrap gives the reason code to answer.
func (e *FullError) Unwrap() error { return mqtt.QuotaExceeded }

// Values of Config.WhenFull.
const (
	WhenFullRefuse = "refuse"
	WhenFullDrop   = "drop"
)

// Config bounds queues; its zero value is the default, which refuses what finds no room.
type Config struct {
	MaxQueueMessages int    `name:"sessions.max-queue-messages" default:"10000" help:"Most messages queued for one session."`
	MaxQueueBytes    int64  `name:"sessions.max-queue-bytes" default:"16777216" help:"Most bytes of messages queued for one session."`
	MaxTotalBytes    int64  `name:"sessions.max-total-bytes" default:"8589934592" help:"Most bytes of messages queued for all sessions."`
	WhenFull         string `name:"sessions.when-full" enum:",refuse,drop" default:"" help:"What becomes of a message for a session whose queue is full: refuse (no acknowledgement for its publisher) or drop (that session does not get it). Empty is drop under --limits aws, as AWS does, else refuse."`
	MaxRetained      int64  `name:"sessions.max-retained" default:"500000" help:"Most retained messages."`

	// Node is this node's id; it must not be empty.
	Node string `kong:"-" toml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `kong:"-" toml:"-"`
	// Log receives what goes wrong in the background; nil discards it.
	Log *slog.Logger `kong:"-" toml:"-"`
}

func (c Config) withDefaults() Config {
	if c.MaxQueueMessages <= 0 {
		c.MaxQueueMessages = 10_000
	}
	if c.MaxQueueBytes <= 0 {
		c.MaxQueueBytes = 16 << 20
	}
	if c.MaxTotalBytes <= 0 {
		c.MaxTotalBytes = 8 << 30
	}
	if c.MaxRetained <= 0 {
		c.MaxRetained = 500_000
	}
	if c.Node == "" {
		c.Node = "local"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Store is the sessions' part of the store. It is safe for concurrent use.
type Store struct {
	db       *store.DB
	cfg      Config
	shared   bool // other nodes may write to the same queues
	queues   queues
	retained atomic.Int64 // how many there are, about

	ackMu    sync.Mutex
	acks     []ack
	taken    []ack         // of acks by the write that is on its way
	flushing bool          // a write that takes acks is on its way
	flushed  chan struct{} // closed when flushing ends; nil when nobody waits

	bodyCursor int64 // of the collection of bodies; owned by expireMu
	swept      time.Time
	expireMu   sync.Mutex
}

// New returns the sessions in db. Load fills the counters, so call it before the
// first Reserve.
func New(db *store.DB, cfg Config) *Store {
	s := &Store{db: db, cfg: cfg.withDefaults(), shared: db.Name() != "sqlite"}
	s.queues.init(s.cfg)
	return s
}

// Session is a client id's row, and what its session subscribes to.
type Session struct {
	ClientID  string
	Number    int64 // 0: nothing is kept beyond the connection
	Principal string
	// PrincipalSince is the id above which messages were queued while Principal had the session; those up to it
	// were queued for another principal.
	PrincipalSince int64
	Version        mqtt.Version
	// ExpirySeconds is how long the session outlives its connection; Never.
	ExpirySeconds uint32
	// Node holds the connection; "" none.
	Node string
	// Epoch is the number of the connection, also lifecycle events' versionNumber.
	Epoch        int64
	Connected    time.Time
	Disconnected time.Time // zero while connected
	// Subscriptions are those of a session with a number, by filter.
	Subscriptions []Subscription
}

// Persistent tells whether the session is to outlive its connection.
func (s *Session) Persistent() bool { return s.Number != 0 && s.ExpirySeconds != 0 }

// Subscription is one of a session's.
type Subscription struct {
	Filter            string // as in SUBSCRIBE, $share/ included
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	// Group is the number of the shared subscription, and of its queue; 0 not
	// shared. Subscribe assigns it.
	Group int64
}

// options are the byte of SUBSCRIBE (par. 3.8.3.1).
func (s Subscription) options() int64 {
	o := int64(s.QoS&3) | int64(s.RetainHandling&3)<<4
	if s.NoLocal {
		o |= 4
	}
	if s.RetainAsPublished {
		o |= 8
	}
	return o
}

func (s *Subscription) setOptions(o int64) {
	s.QoS, s.RetainHandling = byte(o&3), byte(o>>4&3)
	s.NoLocal, s.RetainAsPublished = o&4 != 0, o&8 != 0
}

// Will is a will message that is stored with the connection, so that it can be
// published when the node dies.
type Will struct {
	Message *mqtt.Message
	Delay   time.Duration
}

// Target is one that a message is owed to: a session, or a group.
type Target struct {
	// Session is the session's number; for a group without a connected member
	// the group's.
	Session int64
	// Group is the shared subscription through which the session was chosen; 0 none.
	Group int64
	// RetainAsPublished keeps the message's retain flag.
	RetainAsPublished bool
	// Absent tells that the session's client is not connected to this node.
	Absent bool
	// Name is what the operator is told when the queue is full: the client id, or the filter of a group.
	Name string
}

// Queued is a message in a queue.
type Queued struct {
	ID                int64
	Group             int64
	RetainAsPublished bool
	Message           *mqtt.Message
}
