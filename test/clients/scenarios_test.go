package clients_test

import (
	"bytes"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// quiet is how long a scenario waits for what must not come.
const quiet = 300 * time.Millisecond

func connects(s *stage) {
	p := s.connect("a", subscribing(s.topic("x")))
	p.text(s.topic("x"), "hello")
	p.expect("hello")
}

func connectsByALPN(s *stage) {
	p := s.connect("a", subscribing(s.topic("x")), func(o *options) { o.ALPN = "x-amzn-mqtt-ca" })
	p.text(s.topic("x"), "hello")
	p.expect("hello")
}

func exchanges(s *stage) {
	for granted := range byte(2) {
		p := s.connect(fmt.Sprint("sub", granted), subscribing(s.topic("x")), func(o *options) { o.QoS = granted })
		for sent := range byte(2) {
			p.send(message{Topic: s.topic("x"), Payload: []byte("hello"), QoS: sent})
			m := p.next()
			if want := min(sent, granted); m.QoS != want || m.Topic != s.topic("x") || string(m.Payload) != "hello" || m.Retain {
				s.Errorf("sent at %d, subscribed at %d: got %+v", sent, granted, m)
			}
		}
	}
}

// refusesQoS2: a client of MQTT 5 knows from CONNACK, others lose the connection.
func refusesQoS2(s *stage) {
	p := s.connect("a", subscribing(s.topic("#")))
	if s.kit.can&tellsLimits != 0 && p.accepted().MaximumQoS != 1 {
		s.Errorf("maximum QoS %d", p.accepted().MaximumQoS)
	}
	if err := p.publish(message{Topic: s.topic("x"), Payload: []byte("twice"), QoS: 2}); err == nil {
		s.Error("a publish at QoS 2 succeeded")
	}
	s.connect("b").text(s.topic("y"), "marker")
	if watcher := s.connect("c", subscribing(s.topic("x"))); len(watcher.messages()) != 0 {
		s.Error("it was kept")
	}
}

func usesWildcards(s *stage) {
	plus := s.connect("plus", subscribing(s.topic("+/c")))
	hash := s.connect("hash", subscribing(s.topic("a/#")))
	for _, levels := range []string{"a", "a/c", "a/b/c", "b/c", "a/end/c", "end/c"} {
		hash.text(s.topic(levels), levels)
	}
	plus.expect("a/c", "b/c", "end/c")
	hash.expect("a/c", "a/b/c", "a/end/c") // and not "a": AWS differs from the standard here
}

func retains(s *stage) {
	a := s.connect("a")
	a.send(message{Topic: s.topic("kept"), Payload: []byte("kept"), QoS: 1, Retain: true})
	b := s.connect("b", subscribing(s.topic("kept")))
	if m := b.next(); string(m.Payload) != "kept" || !m.Retain {
		s.Errorf("got %+v", m)
	}
	c := s.connect("c", subscribing(s.topic("#"))) // wildcards never get it
	a.send(message{Topic: s.topic("kept"), QoS: 1, Retain: true})
	c.expect("")
	d := s.connect("d", subscribing(s.topic("kept")))
	a.text(s.topic("kept"), "after")
	d.expect("after")
}

func leavesWill(s *stage) {
	will := func(payload string) func(*options) {
		return func(o *options) { o.Will = &message{Topic: s.topic("will"), Payload: []byte(payload), QoS: 1} }
	}
	watcher := s.connect("watcher", subscribing(s.topic("will")))
	if s.kit.can&withdrawsWill != 0 {
		s.connect("orderly", will("not this")).close()
	}
	s.connect("abrupt", will("gone")).cable.cut()
	watcher.expect("gone")
}

func resumes(s *stage) {
	p := s.connect("a", subscribing(s.topic("x")), persistent)
	if p.accepted().SessionPresent {
		s.Error("a session is there already")
	}
	p.close()
	var want []string
	other := s.connect("b")
	for i := range 10 {
		want = append(want, fmt.Sprint("queued ", i))
		other.text(s.topic("x"), want[i])
	}
	p = s.connect("a", persistent)
	if s.kit.can&tellsSession != 0 && !p.accepted().SessionPresent {
		s.Error("the session is not there")
	}
	p.expect(want...)
	other.text(s.topic("x"), "live")
	p.expect("live")
	p.close()
	// A clean start ends it.
	s.connect("a").close()
	if p = s.connect("a", persistent); p.accepted().SessionPresent {
		s.Error("a clean start left the session")
	}
}

func takesOver(s *stage) {
	first := s.connect("a", subscribing(s.topic("first")))
	second := s.connect("a", subscribing(s.topic("second")))
	if e := first.gone(); s.kit.can&tellsReason != 0 && e.Code != 0x8e {
		s.Errorf("reason %#x, want 0x8e: %s", e.Code, e.Text)
	}
	other := s.connect("b")
	other.text(s.topic("first"), "to nobody")
	other.text(s.topic("second"), "hello")
	second.expect("hello")
}

func shares(s *stage) {
	filter := "$share/" + s.name + "/" + s.topic("+")
	one, two := s.connect("one", subscribing(filter)), s.connect("two", subscribing(filter))
	all := s.connect("all", subscribing(s.topic("+")))
	const n = 12
	for i := range n {
		all.text(s.topic(fmt.Sprint(i)), "x")
	}
	seen := map[string]bool{}
	for range n {
		all.next()
		var m message
		select {
		case m = <-one.messages():
		case m = <-two.messages():
		case <-time.After(grace):
			s.Fatalf("%d of %d messages came", len(seen), n)
		}
		if seen[m.Topic] {
			s.Errorf("%s came twice", m.Topic)
		}
		seen[m.Topic] = true
	}
}

func narrow(s *stage, id string) func(*options) {
	return func(o *options) { o.Files, o.ClientID = s.site.narrow, id }
}

func deniedConnect(s *stage) {
	if _, err := s.dial("a", narrow(s, "other-"+s.name)); err == nil {
		s.Error("a client id that the policy does not name could connect")
	} else if s.kit.v5 && code(err) != 0 && code(err) != 0x87 {
		s.Errorf("%v, want 0x87", err)
	}
}

func deniedSubscribe(s *stage) {
	_, err := s.dial("a", narrow(s, "narrow-"+s.name), subscribing("m/theirs"))
	if err == nil {
		s.Fatal("a filter that the policy does not name was subscribed")
	}
	want := byte(0x80)
	if s.kit.v5 {
		want = 0x87
	}
	if code(err) != want {
		s.Errorf("%v, want %#x", err, want)
	}
}

func deniedPublish(s *stage) {
	watcher := s.connect("watcher", subscribing("m/theirs", "m/mine"))
	p := s.connect("a", narrow(s, "narrow-"+s.name))
	p.text("m/mine", "mine")
	watcher.expect("mine")
	err := p.publish(message{Topic: "m/theirs", Payload: []byte("theirs"), QoS: 1})
	if err == nil {
		s.Error("a topic that the policy does not name was published")
	}
	if s.kit.v5 && code(err) != 0x87 {
		s.Errorf("%v, want 0x87", err)
	}
	watcher.text("m/mine", "marker")
	watcher.expect("marker")
}

const largest = 128 << 10

func sendsLargest(s *stage) {
	p := s.connect("a", subscribing(s.topic("x")))
	payload := bytes.Repeat([]byte("x"), largest)
	p.send(message{Topic: s.topic("x"), Payload: payload, QoS: 1})
	if m := p.next(); !bytes.Equal(m.Payload, payload) {
		s.Errorf("got %d bytes", len(m.Payload))
	}
}

func sendsTooLarge(s *stage) {
	watcher := s.connect("watcher", subscribing(s.topic("x")))
	p := s.connect("a")
	if err := p.publish(message{Topic: s.topic("x"), Payload: make([]byte, largest+1), QoS: 1}); err == nil {
		s.Error("one byte more than the limit was taken")
	} else if s.kit.can&publishes != 0 {
		if e := p.gone(); s.kit.can&tellsReason != 0 && e.Code != 0x95 {
			s.Errorf("reason %#x, want 0x95: %s", e.Code, e.Text)
		}
	}
	watcher.text(s.topic("x"), "marker")
	watcher.expect("marker")
}

// getsAgain: what was not acknowledged before the connection broke comes again.
func getsAgain(s *stage) {
	p := s.connect("a", subscribing(s.topic("x")), persistent, func(o *options) { o.Hold = true })
	other := s.connect("b")
	other.text(s.topic("x"), "1")
	other.text(s.topic("x"), "2")
	p.expect("1", "2")
	p.cable.cut()
	p.gone()
	p = s.connect("a", persistent)
	p.expect("1", "2")
}

func losesCertificate(s *stage) {
	id, dir := s.site.certificate(s.T)
	p := s.connect("a", subscribing(s.topic("x")), func(o *options) { o.Files = dir })
	if _, err := s.site.node.IoT().UpdateCertificate(s.Context(), &iot.UpdateCertificateInput{CertificateId: &id, NewStatus: types.CertificateStatusRevoked}); err != nil {
		s.Fatal(err)
	}
	if e := p.gone(); s.kit.can&tellsReason != 0 && e.Code != 0x87 {
		s.Errorf("reason %#x, want 0x87: %s", e.Code, e.Text)
	}
	if _, err := s.dial("a", func(o *options) { o.Files = dir }); err == nil {
		s.Error("it could connect again")
	}
}

// nothing fails if a message comes.
func nothing(s *stage, p *party) {
	s.Helper()
	select {
	case m := <-p.messages():
		s.Errorf("%s came: %.40q", m.Topic, m.Payload)
	case <-time.After(quiet):
	}
}
