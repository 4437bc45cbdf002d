package gateway

import (
	"flotilla/internal/aws"
	"flotilla/internal/mqtt"
)

// confined is an Authorizer that can tell that its principal may do nothing but provision. Such a claim certificate may
// connect with any client id, also one that a device uses, so its connections leave alone what is another's: they
// neither resume nor replace sessions of other principals, nor end their connections, and leave no session behind.
type confined interface{ Confined() bool }

func (c *Connection) confined() bool {
	a, ok := c.auth.(confined)
	return ok && a.Confined()
}

// expirySeconds is how long the session is to outlive this connection.
func (c *Connection) expirySeconds(p *mqtt.Connect) uint32 {
	if c.confined() {
		return 0
	}
	return c.g.expirySeconds(p)
}

// heldByOther tells whether another principal's connection, or a stored session of another principal, is here.
func (s *session) heldByOther(who aws.Principal) bool {
	if s == nil {
		return false
	}
	if c := s.conn.Load(); c != nil {
		return ownerID(c.who) != ownerID(who)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored() && s.row != nil && s.row.Principal != ownerID(who)
}

// denyTaken refuses a confined principal the client id of another.
func (g *Gateway) denyTaken(c *Connection, p *mqtt.Connect) error {
	const reason = "a claim certificate may not use a client id that another principal's connection or session has"
	g.deny(p.ClientID, c.who.ID, Denial{Remote: c.addr.Addr(), Action: "connect", Reason: reason, Code: mqtt.NotAuthorized})
	return &refusal{code: mqtt.NotAuthorized, silent: true, detail: reason}
}
