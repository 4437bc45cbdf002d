package server

import (
	"strings"
	"time"
)

// ThingChanged is told the name of a thing after the commit of a change of it: of the thing itself, its memberships,
// its shadows. "" says that news of other nodes may have been lost, and anything may have changed.
//
// It is called on the goroutine that made the change and must not block, nor call the store.
type ThingChanged func(thingName string)

// MembershipChanged is told after the commit that a thing is, or is no longer, in a group: the one that it was added to
// and, in a call of its own, each group above that. It must not block, nor call the store.
type MembershipChanged func(group, thing string, in bool)

// GroupChanged is told the name of a thing group after the commit of its creation, change or deletion; "" as for
// ThingChanged. It must not block, nor call the store.
type GroupChanged func(group string)

// PresenceChanged is told that a client has connected to this node, or that its connection has ended and why. It must
// not block, nor call the store.
type PresenceChanged func(clientID string, connected bool, reason string, at time.Time)

// announcer carries news of commits, of this node and of others.
type announcer interface {
	OnChange(kind string, fn func(key string))
}

// changes fans news out to the rooms that follow things: jobs, index. Those of the registry come from all nodes, those
// of shadows and connections from this one. News may be lost with a node, so who listens also converges without it.
// Listeners are added before the server serves.
type changes struct {
	things      []ThingChanged
	memberships []MembershipChanged
	groups      []GroupChanged
	presences   []PresenceChanged
}

func newChanges(news announcer) *changes {
	c := &changes{}
	news.OnChange("thing", c.thing)
	news.OnChange("group", c.group)
	news.OnChange("membership", c.membership)
	return c
}

func (c *changes) thing(name string) {
	for _, fn := range c.things {
		fn(name)
	}
}

func (c *changes) group(name string) {
	for _, fn := range c.groups {
		fn(name)
	}
}

// membership has +GROUP/THING or -GROUP/THING. What may have been lost is told as a change of anything, by thing.
func (c *changes) membership(key string) {
	if len(key) == 0 {
		return
	}
	group, thing, ok := strings.Cut(key[1:], "/")
	if !ok {
		return
	}
	for _, fn := range c.memberships {
		fn(group, thing, key[0] == '+')
	}
}

func (c *changes) presence(clientID string, connected bool, reason string, at time.Time) {
	for _, fn := range c.presences {
		fn(clientID, connected, reason, at)
	}
}
