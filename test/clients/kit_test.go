package clients_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// grace is how long an answer of the server may take.
const grace = time.Minute

// kit is an MQTT library or program, as the scenarios drive it.
type kit struct {
	v5   bool
	can  trait
	dial func(t *testing.T, o options) (link, error) // connects and subscribes
}

// trait is something that not every kit can do, or can't tell.
type trait uint

const (
	choosesALPN   trait = 1 << iota // names an ALPN protocol
	tellsSession                    // tells whether CONNACK said that the session was there
	tellsLimits                     // tells the other properties of CONNACK
	receivesAlias                   // understands topic aliases of the server
	sendsAlias                      // uses topic aliases of its own
	acknowledges                    // lets its user decide when to acknowledge
	tellsReason                     // tells the code of the server's DISCONNECT
	publishes                       // publishes through the connection that receives
	takesNoID                       // connects without a client id
	withdrawsWill                   // ends in good order without giving out its will
)

// options are those of one connection.
type options struct {
	Host           string   `json:"host"`
	Port           int      `json:"port"`
	Files          string   `json:"files"` // directory of ca.pem, cert.pem, key.pem
	V5             bool     `json:"v5"`
	ALPN           string   `json:"alpn,omitempty"`
	ClientID       string   `json:"clientId"`
	Resume         bool     `json:"resume"` // no clean start
	SessionExpiry  uint32   `json:"sessionExpiry"`
	KeepAlive      uint16   `json:"keepAlive"`
	ReceiveMaximum uint16   `json:"receiveMaximum,omitempty"`
	AliasMaximum   uint16   `json:"aliasMaximum,omitempty"`
	Hold           bool     `json:"hold"` // messages are acknowledged by link.acknowledge
	Will           *message `json:"will,omitempty"`
	Filters        []string `json:"filters"` // to subscribe to at once
	QoS            byte     `json:"qos"`     // of the subscriptions

	cable  *cable
	direct func() (host string, port int) // the server, for further connections of the kit
}

func (o *options) address() string { return net.JoinHostPort(o.Host, strconv.Itoa(o.Port)) }
func (o *options) file(name string) string {
	return filepath.Join(o.Files, name)
}

// message is a PUBLISH.
type message struct {
	Topic         string      `json:"topic"`
	Payload       []byte      `json:"payload"`
	QoS           byte        `json:"qos"`
	Retain        bool        `json:"retain"`
	Alias         uint16      `json:"alias,omitempty"` // the second message with one goes without its topic
	Expiry        uint32      `json:"expiry,omitempty"`
	ContentType   string      `json:"contentType,omitempty"`
	ResponseTopic string      `json:"responseTopic,omitempty"`
	Correlation   []byte      `json:"correlation,omitempty"`
	User          [][2]string `json:"user,omitempty"`
}

// accepted is what CONNACK said, as far as the kit tells.
type accepted struct {
	SessionPresent bool   `json:"sessionPresent"`
	MaximumQoS     byte   `json:"maximumQoS"`
	ReceiveMaximum uint16 `json:"receiveMaximum"`
	AliasMaximum   uint16 `json:"aliasMaximum"`
	KeepAlive      uint16 `json:"keepAlive"`
	AssignedID     string `json:"assignedId"`
	SessionExpiry  uint32 `json:"sessionExpiry"`
}

// ending is why a connection is over; Code is that of a DISCONNECT, if one came.
type ending struct {
	Code byte   `json:"code"`
	Text string `json:"text"`
}

// refused is a reason code of 0x80 or more that answers a packet.
type refused struct {
	Code byte
	What string
}

func (r *refused) Error() string { return fmt.Sprintf("%s: reason code %#x", r.What, r.Code) }

// code is that of a refusal, and 0 when the kit told none.
func code(err error) byte {
	if r, ok := errors.AsType[*refused](err); ok {
		return r.Code
	}
	return 0
}

// link is one connection.
type link interface {
	accepted() accepted
	publish(m message) error
	messages() <-chan message
	acknowledge() error   // the oldest message that Hold holds
	ended() <-chan ending // gets one value when the server or the network ends it
	close()               // in good order
}

// mailbox is what links have in common: messages and an ending, both bounded.
type mailbox struct {
	got  chan message
	over chan ending
}

func newMailbox() mailbox {
	return mailbox{make(chan message, 4096), make(chan ending, 1)}
}

func (b *mailbox) messages() <-chan message { return b.got }
func (b *mailbox) ended() <-chan ending     { return b.over }
func (b *mailbox) end(e ending) {
	select {
	case b.over <- e:
	default:
	}
}

// cable relays one TCP connection and can be cut. A client that connects again by
// itself finds nobody at its end.
type cable struct {
	port int
	down chan struct{} // closed when there is no connection any more

	mu    sync.Mutex
	isCut bool
	ends  []io.Closer
}

func layCable(t *testing.T, target string) *cable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{port: ln.Addr().(*net.TCPAddr).Port, down: make(chan struct{}), ends: []io.Closer{ln}}
	go c.relay(ln, target)
	t.Cleanup(func() { c.cut(); <-c.down })
	return c
}

func (c *cable) relay(ln net.Listener, target string) {
	defer close(c.down)
	defer c.cut()
	near, err := ln.Accept()
	_ = ln.Close()
	if err != nil || !c.hold(near) {
		return
	}
	far, err := net.DialTimeout("tcp", target, grace)
	if err != nil || !c.hold(far) {
		return
	}
	client, server := near.(*net.TCPConn), far.(*net.TCPConn)
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
	})
	_, _ = io.Copy(client, server)
	// The server has closed, in both directions: a client that only listens is to
	// know, after it has read what came last.
	_ = client.CloseWrite()
	_ = client.SetReadDeadline(time.Now().Add(time.Second))
	up.Wait()
}

// hold keeps what cut closes, and closes it if that has happened already.
func (c *cable) hold(end io.Closer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isCut {
		_ = end.Close()
		return false
	}
	c.ends = append(c.ends, end)
	return true
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
	for _, end := range c.ends {
		_ = end.Close()
	}
	c.ends = nil
}
