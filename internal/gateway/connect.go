package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/gateway/netpoll"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/policy/lang"
)

// arrival is a connection before its CONNECT.
type arrival struct {
	id      string   // of the connection; lifecycle events' sessionIdentifier
	visitor *visitor // nil: by way of HTTP
	sock    *netpoll.Socket
	tls     *tls.Conn // nil without, and for WebSocket
	remote  net.Addr
	plain   bool   // without TLS, by the port for that
	rest    []byte // read beyond the CONNECT

	// What the TLS handshake has told.
	serverName string
	alpn       string
	leaf       *x509.Certificate   // nil: none was shown
	chain      []*x509.Certificate // what was shown, leaf first
	domain     domain.Configuration

	upgrade *upgrade      // of WebSocket; nil otherwise
	signer  aws.Principal // who signed that; nobody without a signature
}

// conn is what packets are read from and written to.
func (a *arrival) conn() net.Conn {
	if a.tls != nil {
		return a.tls
	}
	return a.sock
}

// will is a connection's will message.
type will struct {
	message *mqtt.Message
	delay   time.Duration
}

// peerLimits are what the client says that it takes.
type peerLimits struct {
	packet  uint32 // Maximum Packet Size; 0 any
	receive uint16 // Receive Maximum; 0 any
	aliases uint16 // Topic Alias Maximum
}

// refusal is a CONNECT that is answered with a code.
type refusal struct {
	code   mqtt.ReasonCode
	silent bool   // MQTT 3.1.1 gets no CONNACK, as with AWS
	detail string // for the operator
}

func (r *refusal) Error() string { return r.detail }

func refuse(code mqtt.ReasonCode, detail string) *refusal {
	return &refusal{code: code, detail: detail}
}

// admit reads the CONNECT and answers it. When it is accepted the connection belongs to a loop
// from then on; otherwise it is closed.
func (g *Gateway) admit(a *arrival) {
	p, err := g.readConnect(a)
	a.visitor.serve()
	if p == nil {
		p = &mqtt.Connect{}
	}
	if err == nil {
		err = g.connect(a, p)
	}
	if err == nil {
		return
	}
	var r *refusal
	if !errors.As(err, &r) {
		var code mqtt.ReasonCode
		if !errors.As(err, &code) {
			code = mqtt.UnspecifiedError
		}
		r = &refusal{code: code, detail: err.Error(), silent: code == mqtt.MalformedPacket || code == mqtt.ProtocolError}
	}
	g.metrics.connects.WithLabelValues("refused").Inc()
	if p.Version != 0 && (p.Version == mqtt.V5 || !r.silent) {
		_, _ = a.conn().Write((&mqtt.Connack{Code: r.code}).Append(nil, p.Version))
	} else if p.Version == 0 && r.code == mqtt.UnsupportedProtocolVersion {
		_, _ = a.conn().Write((&mqtt.Connack{Code: r.code}).Append(nil, mqtt.V311)) // [MQTT-3.1.2-2]
	}
	if a.tls != nil {
		_ = a.tls.CloseWrite()
	}
	_ = a.sock.Close()
}

// readConnect reads one packet, which must be a CONNECT [MQTT-3.1.0-1].
func (g *Gateway) readConnect(a *arrival) (*mqtt.Connect, error) {
	buf := make([]byte, 0, 512)
	for {
		h, body, n, err := mqtt.Next(buf, g.limits.maxPacket())
		if err != nil {
			return nil, err
		}
		if h.Type != 0 && h.Type != mqtt.CONNECT {
			return nil, &refusal{code: mqtt.ProtocolError, silent: true, detail: "the first packet is no CONNECT"}
		}
		if n > 0 {
			p := &mqtt.Connect{}
			if err := p.Parse(body); err != nil {
				return p, err
			}
			a.rest = buf[n:]
			return p, nil
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		m, err := a.conn().Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+m]
		if err != nil {
			return nil, &refusal{silent: true, detail: "the connection ended before its CONNECT"}
		}
	}
}

// connect decides about a CONNECT and makes the connection.
func (g *Gateway) connect(a *arrival, p *mqtt.Connect) error {
	assigned := ""
	if p.ClientID == "" && (p.CleanStart || p.Version == mqtt.V5) {
		assigned = "$assigned/" + uuid.NewString() // not a name that a client may choose
		assigned = strings.TrimPrefix(assigned, "$assigned/")
		p.ClientID = assigned
	}
	r := g.checkConnect(p)
	if a.id == "" {
		a.id = uuid.NewString()
	}
	var who party
	if r == nil {
		who, r = g.identify(a, p)
	}
	if r != nil {
		g.denyArrival(p.ClientID, who.ID, a, r)
		return r
	}
	c := g.newConnection(a, p, &who)
	if err := g.authorizeConnect(c, a, p, &who); err != nil {
		return err
	}
	if r := g.connectRate(c, p.ClientID); r != nil {
		g.deny(p.ClientID, who.ID, Denial{Remote: address(a.remote).Addr(), Action: "connect", Reason: r.detail, Code: r.code})
		return r
	}
	return g.join(c, a, p, assigned)
}

// checkConnect holds a CONNECT against protocol and limits.
func (g *Gateway) checkConnect(p *mqtt.Connect) *refusal {
	switch {
	case p.ClientID == "":
		return refuse(mqtt.ClientIDNotValid, "an empty client id asks for a persistent session") // [MQTT-3.1.3-8]
	case len(p.ClientID) > g.limits.ClientIDBytes:
		return refuse(mqtt.ClientIDNotValid, "the client id is longer than allowed")
	case strings.HasPrefix(p.ClientID, "$"):
		return refuse(mqtt.ClientIDNotValid, "client ids that begin with $ are reserved")
	case p.Properties.Present.Has(mqtt.PropAuthMethod):
		return refuse(mqtt.BadAuthenticationMethod, "enhanced authentication is not supported") // [MQTT-4.12.0-1]
	}
	w := p.Will
	if w == nil {
		return nil
	}
	switch {
	case w.QoS > 1:
		return &refusal{code: mqtt.QoSNotSupported, silent: true, detail: "a will of QoS 2"} // [MQTT-3.2.2-12]
	case mqtt.ValidTopicName(w.Topic) != nil, !mqtt.MayPublish(w.Topic), w.Retain && !mqtt.MayRetain(w.Topic):
		return &refusal{code: mqtt.TopicNameInvalid, silent: true, detail: "the will topic is not valid"}
	case len(w.Payload) > g.limits.PayloadBytes:
		return &refusal{code: mqtt.PacketTooLarge, silent: true, detail: "the will is larger than allowed"}
	}
	return nil
}

// connectRate holds a client id to its rate of connects. Only who may use the client id uses up its rate.
func (g *Gateway) connectRate(c *Connection, clientID string) *refusal {
	if c.confined() {
		clientID = c.who.ID + " " + clientID
	}
	if g.limits.ConnectInterval > 0 && !g.recent.mayConnect(clientID, g.now(), g.limits.ConnectInterval) {
		return refuse(mqtt.QuotaExceeded, "the client id connects more often than once a second")
	}
	return nil
}

func (g *Gateway) newConnection(a *arrival, p *mqtt.Connect, who *party) *Connection {
	now := g.now()
	c := &Connection{
		g: g, r: g.reactors[int(g.nextLoop.Add(1))%len(g.reactors)], sock: a.sock, tls: a.tls, who: who.Principal,
		terms: g.termsOf(a, who.vouched, now), started: now, id: a.id, domain: a.domain.Name, addr: address(a.remote), version: p.Version, clean: p.CleanStart, wantsProblems: true,
	}
	in := &p.Properties
	c.limits = peerLimits{packet: in.MaximumPacketSize, receive: in.ReceiveMaximum, aliases: min(in.TopicAliasMaximum, uint16(g.limits.TopicAliasMaximum))}
	if in.Present.Has(mqtt.PropRequestProblem) && in.RequestProblem == 0 {
		c.wantsProblems = false
	}
	if who.certificate != nil {
		c.expires = expiry(a.leaf)
	}
	keep := uint32(p.KeepAlive)
	switch {
	case keep == 0 || keep > maxKeepAlive:
		keep = maxKeepAlive
	case keep < minKeepAlive:
		keep = minKeepAlive
	}
	if p.KeepAlive != 0 || p.Version == mqtt.V5 {
		c.idleSeconds = uint16(keep + keep/2) // [MQTT-3.1.2-22]
	} else {
		c.idleSeconds = uint16(maxKeepAlive + maxKeepAlive/2)
	}
	c.keepAlive = uint16(keep)
	if w := p.Will; w != nil {
		c.will = &will{message: &mqtt.Message{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain, Properties: w.Message()}}
		if w.Properties.Present.Has(mqtt.PropWillDelay) {
			c.will.delay = time.Duration(w.Properties.WillDelay) * time.Second
		}
	}
	return c
}

// authorizeConnect decides iot:Connect.
func (g *Gateway) authorizeConnect(c *Connection, a *arrival, p *mqtt.Connect, who *party) error {
	conn := &lang.Connection{Protocol: "mqtt", ClientID: p.ClientID, SourceIP: c.addr.Addr().String(), DomainName: a.serverName, Certificate: who.certificate}
	if g.expirySeconds(p) > 0 {
		conn.ConnectAttributes = append(conn.ConnectAttributes, "PersistentConnect")
	}
	if p.Will != nil {
		conn.ConnectAttributes = append(conn.ConnectAttributes, "LastWill")
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	var err error
	switch {
	case a.plain:
		c.auth, err = g.policies.OpenNamed(ctx, g.cfg.PlainPolicy, conn)
	case who.vouched != nil:
		c.auth = g.newGuest(who.vouched, conn)
	case a.signer != (aws.Principal{}) && who.Principal == a.signer:
		c.signed = true
		c.auth, err = g.signatures.Open(ctx, c.who, conn)
	default:
		c.auth, err = g.policies.Open(ctx, c.who, conn)
	}
	if err != nil {
		g.log.Error("policies can't be read", "clientId", p.ClientID, "err", err)
		return refuse(mqtt.UnspecifiedError, "policies can't be read")
	}
	c.now, _ = c.auth.(immediate)
	if c.now != nil {
		epoch, _ := c.now.Epoch()
		c.connectEpoch.Store(epoch)
	}
	d := c.mayConnect(p.ClientID)
	if d.Allowed() {
		return nil
	}
	reason := "no statement allows iot:Connect"
	if d.Effect == lang.ExplicitDeny {
		reason = "a statement denies iot:Connect"
	}
	g.deny(p.ClientID, c.who.ID, Denial{Remote: c.addr.Addr(), Action: "iot:Connect", Reason: reason, Policy: d.Policy, Statement: d.Statement, Code: mqtt.NotAuthorized})
	return &refusal{code: mqtt.NotAuthorized, silent: true, detail: reason}
}

// mayConnect decides iot:Connect; the decision need not be kept by the policies, so they are asked
// by Cached when they can.
func (c *Connection) mayConnect(clientID string) lang.Decision {
	resource := c.g.account.ARN("iot", "client/"+clientID)
	if c.now != nil {
		if d, ok := c.now.Cached("iot:Connect", resource); ok {
			return d
		}
	}
	return c.auth.Authorize("iot:Connect", resource)
}

// expirySeconds is how long the session is to outlive the connection.
func (g *Gateway) expirySeconds(p *mqtt.Connect) uint32 {
	most := uint32(min(g.cfg.SessionExpiry/time.Second, 0xFFFFFFFE))
	if p.Version == mqtt.V311 {
		if p.CleanStart {
			return 0
		}
		return most
	}
	return min(p.Properties.SessionExpiry, most)
}

// join makes c the connection of its client id, ending an earlier one, and answers the CONNECT.
func (g *Gateway) join(c *Connection, a *arrival, p *mqtt.Connect, assigned string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*storeTimeout)
	defer cancel()
	turn := g.registry.turn(p.ClientID)
	turn.Lock()
	defer turn.Unlock()
	old := g.registry.get(p.ClientID)
	if c.confined() && old.heldByOther(c.who) {
		return g.denyTaken(c, p)
	}
	if old != nil {
		if oc := old.conn.Load(); oc != nil {
			oc.end(takenOver()) // [MQTT-3.1.4-3]
			if err := oc.waitGone(ctx); err != nil {
				return refuse(mqtt.UnspecifiedError, "the earlier connection does not end")
			}
		}
	}
	leaving, stop := context.WithTimeout(ctx, storeTimeout/2)
	g.registry.waitLeft(leaving, p.ClientID, math.MaxInt64) // its events come first
	stop()
	old = g.registry.get(p.ClientID)
	present, err := g.takeSession(ctx, c, p, old)
	if errors.Is(err, sessionstore.ErrHeld) {
		return g.denyTaken(c, p)
	}
	if err != nil {
		g.log.Error("a session can't be stored", "clientId", p.ClientID, "err", err)
		return refuse(mqtt.UnspecifiedError, "the session can't be stored")
	}
	fd, err := a.sock.Detach()
	if err != nil {
		g.leaveSession(c)
		return err
	}
	c.fd = fd
	if len(a.rest) > 0 {
		c.partial = append(g.pool.get(len(a.rest)), a.rest...)
	}
	ack := g.connack(c, p, present, assigned)
	g.connected.Add(1)
	g.accepted.Add(1)
	g.metrics.connects.WithLabelValues("accepted").Inc()
	g.calendar.add(c)
	c.mu.Lock()
	c.out = ack.Append(g.pool.get(64), c.version)
	c.session.conn.Store(c) // who has read the CONNACK is connected to everybody, and nothing leaves before it
	c.flushLocked()
	c.mu.Unlock()
	if g.closing.Load() {
		c.end(&cause{code: mqtt.ServerShuttingDown, send: true, reason: reasonServer})
	}
	c.r.notify(note{c: c, action: actAdd})
	g.watch.look(c) // what changed since it was let in was not looked at for it
	if c.session.stored() {
		g.workers.run(func() { c.session.resume(c) })
	}
	if c.leased && g.mesh != nil && !g.mesh.Alone() {
		g.workers.run(func() { g.checkLease(c) })
	}
	if g.justInTime != nil && c.who.Type == "certificate" {
		g.justInTime.Connected(c.who.ID)
	}
	g.greet(c)
	return nil
}

// takeSession creates or resumes the session. Only what outlives the connection, or must be
// known to other nodes, is written.
func (g *Gateway) takeSession(ctx context.Context, c *Connection, p *mqtt.Connect, old *session) (present bool, err error) {
	expiry := c.expirySeconds(p)
	alone := g.mesh == nil || g.mesh.Alone() && !g.bus.Shared() // a node that joins later must find the lease
	if expiry == 0 && c.will == nil && alone && (old == nil || !old.stored()) {
		if old != nil {
			g.endSession(old)
		}
		c.session = &session{g: g, clientID: p.ClientID, version: p.Version}
		c.epoch = g.recent.nextEpoch(p.ClientID)
		g.registry.put(c.session)
		return false, nil
	}
	req := sessionstore.ConnectRequest{
		ClientID: p.ClientID, Principal: ownerID(c.who), Version: p.Version, CleanStart: p.CleanStart || c.confined(), ExpirySeconds: expiry, Yield: c.confined(),
	}
	if c.will != nil {
		c.will.message.Received, c.will.message.Source = c.started, c.sourceAs(p.ClientID)
		req.Will = &sessionstore.Will{Message: c.will.message, Delay: c.will.delay}
	}
	if p.Version == mqtt.V311 && p.CleanStart {
		req.CleanStart = true
	}
	got, err := g.sessions.Connect(ctx, req)
	if err != nil {
		return false, err
	}
	if got.PreviousNode != "" && got.PreviousNode != g.cfg.NodeID && g.mesh != nil {
		if err := g.mesh.Kick(ctx, got.PreviousNode, p.ClientID, got.Session.Epoch); err != nil {
			return false, err
		}
	}
	c.leased, c.epoch = true, got.Session.Epoch
	row := got.Session
	switch {
	case got.Present && old != nil && old.number == row.Number:
		c.session = old
		old.mu.Lock()
		old.row, old.expiry = &row, expiry
		old.mu.Unlock()
	case got.Present:
		c.session = g.loadSession(&row)
	default:
		if old != nil {
			g.endSession(old)
		}
		c.session = &session{g: g, clientID: p.ClientID, version: p.Version, number: row.Number, expiry: expiry, row: &row}
		g.registry.put(c.session)
	}
	if row.Number != 0 || got.Discarded != 0 {
		g.sessionChanged(ctx, p.ClientID)
	}
	if got.Present {
		if err := g.announce(ctx, c.session, c.session.filters(), nil); err != nil {
			g.log.Warn("other nodes were not told of subscriptions", "clientId", p.ClientID, "err", err)
		}
	}
	if got.Will != nil && (got.PreviousNode == "" || !g.member(got.PreviousNode)) {
		m := *got.Will
		m.Received = g.now()
		g.workers.run(func() { g.publishWill(&m, nil) })
	}
	return got.Present, nil
}

// leaveSession takes back what takeSession did, when the connection could not be made.
func (g *Gateway) leaveSession(c *Connection) {
	c.greeted = true
	g.workers.run(func() { g.teardown(c, &cause{reason: reasonServerError}) })
	g.connected.Add(1) // teardown counts it off
}

// connack is the answer to a CONNECT that was accepted, with what AWS announces.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html
func (g *Gateway) connack(c *Connection, p *mqtt.Connect, present bool, assigned string) *mqtt.Connack {
	ack := &mqtt.Connack{SessionPresent: present}
	if c.version != mqtt.V5 {
		return ack
	}
	out := &ack.Properties
	set := func(ids ...mqtt.PropertyID) { out.Present = out.Present.With(ids...) }
	set(mqtt.PropReceiveMaximum, mqtt.PropMaximumQoS, mqtt.PropRetainAvailable, mqtt.PropMaximumPacketSize, mqtt.PropTopicAliasMaximum,
		mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDsUsable, mqtt.PropSharedAvailable)
	out.ReceiveMaximum, out.MaximumQoS, out.RetainAvailable = uint16(g.limits.ReceiveMaximum), 1, 1
	out.MaximumPacketSize, out.TopicAliasMaximum = uint32(g.limits.maxPacket()), uint16(g.limits.TopicAliasMaximum)
	out.WildcardAvailable, out.SubIDsUsable, out.SharedAvailable = 1, 0, 1
	if p.KeepAlive != c.keepAlive {
		set(mqtt.PropServerKeepAlive)
		out.ServerKeepAlive = c.keepAlive
	}
	if assigned != "" {
		set(mqtt.PropAssignedClientID)
		out.AssignedClientID = assigned
	}
	if expiry := c.expirySeconds(p); expiry != p.Properties.SessionExpiry {
		set(mqtt.PropSessionExpiry)
		out.SessionExpiry = expiry
	}
	return ack
}
