package mesh

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"flotilla/internal/mqtt"
)

var (
	// ErrFull says that too much is on its way to a peer; nothing was sent.
	ErrFull = errors.New("mesh: too much is on its way to the node")
	// ErrGone says that the peer was dropped from the members before it had
	// acknowledged: what was only owed to its connected clients is owed no more.
	ErrGone = errors.New("mesh: the node is gone")
	// ErrCut says that the peer was dropped while this node had no connection to
	// NATS: it is this node that is gone, and the peer's clients may be there.
	ErrCut = errors.New("mesh: this node is cut off")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("mesh: closed")
)

// Config is what an operator may set; its zero value works.
type Config struct {
	MaxInFlight int           `name:"mesh.max-in-flight" default:"4194304" help:"Most bytes of messages on their way to one other node."`
	Heartbeat   time.Duration `name:"mesh.heartbeat" default:"500ms" help:"How often a node tells the others that it is there."`
	Timeout     time.Duration `name:"mesh.timeout" default:"2500ms" help:"How long a node may be silent before it is dropped."`

	// Version is this program's, shown to the other nodes.
	Version string       `kong:"-" toml:"-"`
	Log     *slog.Logger `kong:"-" toml:"-"`
}

// Handlers are called for what other nodes send. nil members do nothing. Deliver
// and Nudge run on the link's only goroutine, in order, and must not block; Kick and
// SessionChanged run on a few goroutines of their own, with a deadline, in no order.
type Handlers struct {
	// Deliver gives a message to this node's own matching subscriptions that no
	// queue serves, and to a member of each of groups ($share/name/filter). The
	// message is the caller's to keep. The sender's PUBACK may follow its return.
	Deliver func(m *mqtt.Message, groups []string)
	// Nudge tells that message id was queued for a client that may be connected here.
	Nudge func(clientID string, id int64)
	// Kick ends a connection of the client id with an epoch below the given one,
	// if this node has it, and returns when it has ended.
	Kick func(ctx context.Context, clientID string, epoch int64)
	// SessionChanged reloads a session and its subscriptions from the store. An
	// error is logged by the caller, and the peer counts as told.
	SessionChanged func(ctx context.Context, clientID string) error
	// Joined and Left tell of members; Left of those that were silent or said
	// farewell (clean). They must not block.
	Joined func(node string)
	Left   func(node string, clean bool)
	// Missed tells that another node had dropped this one: messages for this
	// node's clients were acknowledged without it, and nudges may be lost. It is
	// called once the link is whole again. It must not block.
	Missed func(node string)
}

// Peer is another node. It stays valid, though of no use, when the node is gone.
type Peer struct{ peer }

// Member describes a node.
type Member struct {
	Node    string
	Version string
	Since   time.Time // joined, as this node saw it
	// InFlight is how many bytes of messages are on their way to it.
	InFlight int
	// Filters is how many filters it has announced.
	Filters int
}
