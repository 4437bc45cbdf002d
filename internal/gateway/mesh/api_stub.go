package mesh

import (
	"context"

	"flotilla/internal/bus"
	"flotilla/internal/mqtt"
)

// Mesh is this node's place among the nodes. It is safe for concurrent use.
type Mesh struct{}

// New returns the mesh over b's NATS connection.
func New(b *bus.Bus, cfg Config, h Handlers) *Mesh { panic("soon") }

// Start joins: it returns once the nodes that are there know this one and this one
// knows their interest. Until then this node should take no connections. Alone it
// takes no time.
func (m *Mesh) Start(ctx context.Context) error { panic("soon") }

// Close says farewell and ends all that was started; pending sends end with ErrClosed.
func (m *Mesh) Close() { panic("soon") }

// Alone tells that there is no other node.
func (m *Mesh) Alone() bool { panic("soon") }

// Members are the other nodes, by id.
func (m *Mesh) Members() []Member { panic("soon") }

// Peer returns a member.
func (m *Mesh) Peer(node string) (*Peer, bool) { panic("soon") }

// Generation changes whenever Interested or Groups may give something else: what
// they gave may be kept for as long as the generation read before lasts.
func (m *Mesh) Generation() uint64 { panic("soon") }

// Interested calls visit for each peer that may have a subscription matching topic,
// once each.
func (m *Mesh) Interested(topic string, visit func(*Peer)) { panic("soon") }

// Groups calls visit for each shared subscription ($share/name/filter) that matches
// topic on a peer. The caller picks one of all members, its own included, and sends
// with that group.
func (m *Mesh) Groups(topic string, visit func(group string, p *Peer)) { panic("soon") }

// Announce tells all peers of filters of this node's clients: counted, so that each
// is to be removed as often as it was added. Filters of shared subscriptions are
// announced as they are. It returns once all live peers know of those added; with
// nothing to add it does not wait.
func (m *Mesh) Announce(ctx context.Context, add, remove []string) error { panic("soon") }

// Send hands a message to a peer's link, in order with what was sent before; it does
// not block and does not keep msg. ErrFull: nothing was sent, and done is not called.
// Otherwise done, if not nil, is called once: nil when the peer has delivered it to
// its clients, else ErrGone, ErrCut or ErrClosed. It is called on the mesh's
// goroutine and must not block. QoS 0 messages go the same way; pass nil.
func (m *Mesh) Send(p *Peer, msg *mqtt.Message, groups []string, done func(error)) error {
	panic("soon")
}

// SendWait is Send that waits for room while the link is full, until ctx ends.
func (m *Mesh) SendWait(ctx context.Context, p *Peer, msg *mqtt.Message, groups []string, done func(error)) error {
	panic("soon")
}

// Nudge tells a node that message id was queued for a client connected there. It
// is dropped when the node is no member.
func (m *Mesh) Nudge(node, clientID string, id int64) { panic("soon") }

// Kick has a node end connections of the client id with an epoch below the given
// one; nil when it has, or is no member any more. node "" asks all peers at once.
func (m *Mesh) Kick(ctx context.Context, node, clientID string, epoch int64) error { panic("soon") }

// SessionChanged has all peers load the session of a client id again, and returns
// once those that live have: before the SUBACK of a persistent session, and after
// its connect or end.
func (m *Mesh) SessionChanged(ctx context.Context, clientID string) error { panic("soon") }
