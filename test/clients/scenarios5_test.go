package clients_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

func getsClientID(s *stage) {
	p := s.connect("a", subscribing(s.topic("x")), func(o *options) { o.ClientID = "" })
	if p.accepted().AssignedID == "" {
		s.Error("no client id was assigned")
	}
	p.text(s.topic("x"), "hello")
	p.expect("hello")
}

func hearsLimits(s *stage) {
	got := s.connect("a", func(o *options) { o.KeepAlive, o.SessionExpiry = 5, 1<<30 }).accepted()
	want := accepted{
		MaximumQoS: 1, ReceiveMaximum: 1024, AliasMaximum: 8,
		KeepAlive:     30,   // the least
		SessionExpiry: 3600, // the most
	}
	if got != want {
		s.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func sendsProperties(s *stage) {
	p := s.connect("a", subscribing(s.topic("x")))
	want := message{
		Topic: s.topic("x"), Payload: []byte(`{"on":true}`), QoS: 1, ContentType: "application/json",
		ResponseTopic: s.topic("answers"), Correlation: []byte("no. 1"), User: [][2]string{{"line", "7"}, {"site", "berlin"}},
	}
	p.send(want)
	got := p.next()
	slices.SortFunc(got.User, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) }) // some kits have a map
	if !reflect.DeepEqual(got, want) {
		s.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func sendsAliases(s *stage) {
	p := s.connect("a", subscribing(s.topic("+")))
	if p.accepted().AliasMaximum == 0 {
		s.Fatal("the server takes no topic aliases")
	}
	for i := range 6 {
		p.send(message{Topic: s.topic(fmt.Sprint(i % 2)), Payload: []byte(fmt.Sprint(i)), QoS: 1, Alias: uint16(1 + i%2)})
	}
	for i := range 6 {
		if m := p.next(); m.Topic != s.topic(fmt.Sprint(i%2)) || string(m.Payload) != fmt.Sprint(i) {
			s.Errorf("message %d: %q on %s", i, m.Payload, m.Topic)
		}
	}
}

// receivesAliases: more topics than the client takes aliases for.
func receivesAliases(s *stage) {
	p := s.connect("a", subscribing(s.topic("+")), func(o *options) { o.AliasMaximum = 2 })
	other := s.connect("b")
	for i := range 12 {
		other.text(s.topic(strings.Repeat("x", 1+i%3)), fmt.Sprint(i))
	}
	for i := range 12 {
		if m := p.next(); m.Topic != s.topic(strings.Repeat("x", 1+i%3)) || string(m.Payload) != fmt.Sprint(i) {
			s.Errorf("message %d: %q on %s", i, m.Payload, m.Topic)
		}
	}
}

// expiresMessages: what waits for an absent client longer than it may is not
// delivered; the rest arrives with the time that is left.
func expiresMessages(s *stage) {
	s.connect("a", subscribing(s.topic("x")), persistent).close()
	other := s.connect("b")
	other.send(message{Topic: s.topic("x"), Payload: []byte("soon"), QoS: 1, Expiry: 1})
	other.send(message{Topic: s.topic("x"), Payload: []byte("late"), QoS: 1, Expiry: 600})
	<-time.After(2100 * time.Millisecond)
	p := s.connect("a", persistent)
	if m := p.next(); string(m.Payload) != "late" || m.Expiry == 0 || m.Expiry > 598 {
		s.Errorf("got %q, %d s left", m.Payload, m.Expiry)
	}
}

func expiresSession(s *stage) {
	session := func(expiry uint32) func(*options) {
		return func(o *options) { o.Resume, o.SessionExpiry = true, expiry }
	}
	s.connect("short", session(1)).close()
	s.connect("long", session(600)).close()
	s.connect("cut", session(600)).cable.cut()
	<-time.After(2100 * time.Millisecond)
	for role, want := range map[string]bool{"short": false, "long": true, "cut": true} {
		if got := s.connect(role, session(600)).accepted().SessionPresent; got != want {
			s.Errorf("%s: session present %v", role, got)
		}
	}
}

// holdsBack: the server has no more messages under way than the client allows.
func holdsBack(s *stage) {
	const window, n = 2, 6
	p := s.connect("a", subscribing(s.topic("x")), func(o *options) { o.ReceiveMaximum, o.Hold = window, true })
	other := s.connect("b")
	for i := range n {
		other.text(s.topic("x"), fmt.Sprint(i))
	}
	for i := range n {
		if i >= window {
			nothing(s, p)
			if err := p.acknowledge(); err != nil {
				s.Fatal(err)
			}
		}
		p.expect(fmt.Sprint(i))
	}
}
