package gateway

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/bus"
	"flotilla/internal/gateway/mesh"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
)

// newMesh joins the gateway to the other nodes. Nodes announce the filters of all connected
// clients; QoS 1 copies for stored sessions never travel, for the node that received the
// message has stored them: it nudges.
func newMesh(g *Gateway, b *bus.Bus, cfg mesh.Config) *mesh.Mesh {
	return mesh.New(b, cfg, mesh.Handlers{
		Deliver: g.deliverFromPeer,
		Nudge: func(clientID string, id int64) {
			if s := g.registry.get(clientID); s != nil {
				s.nudged(id)
			}
		},
		Kick: func(ctx context.Context, clientID string, epoch int64) {
			if c := g.registry.connection(clientID); c != nil && c.epoch < epoch {
				c.end(takenOver())
				_ = c.waitGone(ctx)
			}
			g.registry.waitLeft(ctx, clientID, epoch)
		},
		SessionChanged: g.reload,
		Answer:         g.answerPeer,
		Left: func(node string, _ bool) {
			g.workers.run(func() {
				ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
				defer cancel()
				if _, err := g.sessions.Bury(ctx, node); err != nil {
					g.log.Error("connections of a lost node can't be ended", "node", node, "err", err)
				}
			})
		},
		Missed: func(string) { g.workers.run(g.recover) },
	})
}

// deliverFromPeer gives a message of another node to this node's connected sessions, and tells of which groups no
// member took it; it runs on the link's goroutine.
func (g *Gateway) deliverFromPeer(m *mqtt.Message, groups []string) (untaken []string) {
	t := turn{g: g, now: g.now()}
	if m.Recipient != "" {
		if s := g.registry.get(m.Recipient); s != nil && s.conn.Load() != nil {
			g.sendTo(&t, m)
			t.flush()
		}
		return nil
	}
	r := &route{topic: m.Topic}
	g.match(r)
	out := fromMessage(m)
	out.from = g.registry.get(m.Source.ClientID)
	g.deliver(&t, r, &out) // leaves out what the sender has stored
	for _, filter := range groups {
		if !g.takeHere(&t, filter, &out) {
			untaken = append(untaken, filter)
		}
	}
	t.flush()
	return untaken
}

// recover is called when other nodes had taken this one for dead.
func (g *Gateway) recover() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var held []sessionstore.Held
	conns := map[string]*Connection{}
	for _, c := range g.registry.connections() {
		if c.leased {
			held = append(held, sessionstore.Held{ClientID: c.session.clientID, Epoch: c.epoch})
			conns[c.session.clientID] = c
		}
	}
	lost, err := g.sessions.Reassert(ctx, held)
	if err != nil {
		g.log.Error("connections can't be taken back", "err", err)
	}
	for _, h := range lost {
		if c := conns[h.ClientID]; c != nil {
			c.end(takenOver())
			delete(conns, h.ClientID)
		}
	}
	for _, c := range conns {
		c.session.nudged(1)
	}
}

// reload follows a session that another node has changed.
func (g *Gateway) reload(ctx context.Context, clientID string) error {
	turn := g.registry.turn(clientID)
	if !turn.TryLock() {
		return nil // the client connects here just now: this node tells the others soon
	}
	defer turn.Unlock()
	row, err := g.sessions.Session(ctx, clientID)
	if err != nil && !errors.Is(err, sessionstore.ErrNotFound) {
		return err
	}
	old := g.registry.get(clientID)
	if old != nil && old.conn.Load() != nil && (row == nil || row.Node == g.cfg.NodeID) {
		return nil // it is this node that knows
	}
	if row == nil || row.Number == 0 {
		if old != nil && old.conn.Load() == nil {
			g.endSession(old)
		}
		return nil
	}
	g.loadSession(row)
	return nil
}

// member tells whether a node is among those that live.
func (g *Gateway) member(node string) bool {
	if g.mesh == nil {
		return false
	}
	_, ok := g.mesh.Peer(node)
	return ok
}

// checkLease ends a connection that another node has taken over between its lease and the
// moment from which a kick would have found it.
func (g *Gateway) checkLease(c *Connection) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	row, err := g.sessions.Session(ctx, c.session.clientID)
	if err == nil && row.Epoch > c.epoch {
		c.end(takenOver())
	}
}

// sessionChanged tells the other nodes that a stored session has changed.
func (g *Gateway) sessionChanged(ctx context.Context, clientID string) {
	if g.mesh == nil || g.mesh.Alone() {
		return
	}
	if err := g.mesh.SessionChanged(ctx, clientID); err != nil {
		g.log.Warn("other nodes were not told of a session", "clientId", clientID, "err", err)
	}
}

// announce tells other nodes of filters of connected clients.
func (g *Gateway) announce(ctx context.Context, s *session, add, remove []string) error {
	if g.mesh == nil {
		return nil
	}
	if add, remove = s.announced(add), s.announced(remove); len(add)+len(remove) == 0 {
		return nil
	}
	return g.mesh.Announce(ctx, add, remove)
}

// nudge tells the node that holds a session's connection that message id was queued for it.
func (g *Gateway) nudge(s *session, id int64) {
	if g.mesh == nil || s.conn.Load() != nil || g.mesh.Alone() {
		return
	}
	s.mu.Lock()
	node := ""
	if s.row != nil {
		node = s.row.Node
	}
	s.mu.Unlock()
	if node != "" && node != g.cfg.NodeID {
		g.mesh.Nudge(node, s.clientID, id)
	}
}

func takenOver() *cause {
	return &cause{code: mqtt.SessionTakenOver, send: true, reason: reasonDuplicate, detail: "the client id has connected again"}
}
