package gateway_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"

	"flotilla/internal/mqtt"
)

// FuzzSession sends valid packets in random order over one client id, and holds the answers
// against a model of the session's subscriptions.
func FuzzSession(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed)
	}
	w := start(f)
	n := 0
	f.Fuzz(func(t *testing.T, seed uint64) {
		n++
		m := &model{w: w, t: t, r: rand.New(rand.NewPCG(seed, 1)), id: fmt.Sprintf("fuzz-%d-%d-%d", os.Getpid(), seed, n)}
		m.run(60)
	})
}

// model is what the client knows of its session.
type model struct {
	w    *world
	t    *testing.T
	r    *rand.Rand
	id   string
	c    *client
	v    mqtt.Version
	keep bool
	subs map[string]byte // filter -> QoS
	sent int
}

var fuzzTopics = []string{"a", "a/b", "a/b/c", "b", "b/b"}

var fuzzFilters = []string{"a", "a/+", "a/#", "+", "+/b", "#", "b/b", "$share/g/a/b"}

func (m *model) run(steps int) {
	defer func() {
		if m.c != nil {
			_ = m.c.conn.Close()
		}
	}()
	m.connect(true)
	for range steps {
		switch m.r.IntN(12) {
		case 0:
			m.connect(m.r.IntN(2) == 0)
		case 1, 2:
			m.subscribe()
		case 3:
			m.unsubscribe()
		case 4:
			m.c.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: uint16(1 + m.r.IntN(65535))})
		case 5:
			m.violate()
		default:
			m.publish()
		}
	}
}

// connect opens a connection, by take-over or after an end; clean forgets the session.
func (m *model) connect(clean bool) {
	present := m.keep && !clean && m.subs != nil
	if !present {
		m.subs = map[string]byte{}
		m.v = mqtt.V311 + mqtt.Version(m.r.IntN(2))
	}
	if m.c != nil && m.r.IntN(2) == 0 {
		m.c.send(&mqtt.Disconnect{})
		m.c.gone()
	}
	old := m.c
	m.keep = m.v == mqtt.V311 && !clean || m.v == mqtt.V5 && m.r.IntN(2) == 0
	c, ack := m.w.connect(m.t, m.id, func(p *mqtt.Connect) {
		p.Version, p.CleanStart = m.v, clean
		if m.v == mqtt.V5 && m.keep {
			p.Properties.Present = p.Properties.Present.With(mqtt.PropSessionExpiry)
			p.Properties.SessionExpiry = 60
		}
	})
	if ack.Code != mqtt.Success || ack.SessionPresent != present {
		m.t.Fatalf("CONNACK %v, session present %v, want %v", ack.Code, ack.SessionPresent, present)
	}
	if old != nil {
		_ = old.conn.Close()
	}
	m.c = c
}

func (m *model) subscribe() {
	p := &mqtt.Subscribe{PacketID: uint16(1 + m.r.IntN(100))}
	for range 1 + m.r.IntN(3) {
		p.Subscriptions = append(p.Subscriptions, mqtt.Subscription{Filter: fuzzFilters[m.r.IntN(len(fuzzFilters))], QoS: byte(m.r.IntN(3))})
	}
	m.c.send(p)
	ack := answer[*mqtt.Suback](m)
	if ack.PacketID != p.PacketID || len(ack.Codes) != len(p.Subscriptions) {
		m.t.Fatalf("SUBACK %+v", ack)
	}
	for i, s := range p.Subscriptions {
		if ack.Codes[i] != mqtt.ReasonCode(min(s.QoS, 1)) {
			m.t.Fatalf("SUBACK %v for QoS %d", ack.Codes[i], s.QoS)
		}
		m.subs[s.Filter] = min(s.QoS, 1)
	}
}

func (m *model) unsubscribe() {
	f := fuzzFilters[m.r.IntN(len(fuzzFilters))]
	m.c.send(&mqtt.Unsubscribe{PacketID: 7, Filters: []string{f}})
	ack := answer[*mqtt.Unsuback](m)
	_, had := m.subs[f]
	delete(m.subs, f)
	if m.v == mqtt.V5 && (ack.Codes[0] == mqtt.Success) != had {
		m.t.Fatalf("UNSUBACK %v, had %v", ack.Codes, had)
	}
}

// publish sends a message to oneself and expects it, once or not at all.
func (m *model) publish() {
	m.sent++
	topic, qos := fuzzTopics[m.r.IntN(len(fuzzTopics))], byte(m.r.IntN(2))
	payload := fmt.Sprint(m.id, " ", m.sent)
	p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: uint16(1 + m.r.IntN(65535))}
	m.c.send(p)
	want, shared := 0, 0
	for f := range m.subs {
		if !mqtt.Match(f, topic) {
			continue
		}
		if _, _, ok := mqtt.Share(f); ok {
			shared++
		} else {
			want = 1
		}
	}
	want += shared
	acks := 0
	if qos == 0 {
		acks = 1 // none comes
	}
	for want > 0 || acks == 0 {
		switch got := m.next().(type) {
		case *mqtt.Ack:
			if got.PacketID != p.PacketID || acks > 0 {
				m.t.Fatalf("PUBACK %+v", got)
			}
			acks++
		case *mqtt.Publish:
			if got.QoS > 0 {
				m.c.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: got.PacketID})
			}
			if string(got.Payload) != payload {
				continue // of before a take-over, or of another client
			}
			want--
		default:
			m.t.Fatalf("got %T", got)
		}
	}
}

// violate breaks the protocol and expects the end.
func (m *model) violate() {
	bad := [][]byte{{0, 0}, {0xf0, 0}, {0x62, 2, 0, 1}, {0x20, 2, 0, 0}, {0x36, 6, 0, 1, 'a', 0, 1, 'x'}, {0x82, 2, 0, 1}, {0x30, 2, 0, 0}}
	if _, err := m.c.conn.Write(bad[m.r.IntN(len(bad))]); err != nil {
		m.t.Fatal(err)
	}
	for {
		_, err := m.c.read(patience)
		if err == nil {
			continue
		}
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			m.t.Fatal("the connection stays open")
		}
		break
	}
	m.connect(false)
}

// next reads a packet; what others publish to the same topics is acknowledged and dropped.
func (m *model) next() mqtt.Packet {
	p, err := m.c.read(patience)
	if err != nil {
		m.t.Fatalf("read: %v; refused: %+v", err, m.w.Denials(m.id))
	}
	return p
}

func answer[P mqtt.Packet](m *model) P {
	for {
		switch p := m.next().(type) {
		case P:
			return p
		case *mqtt.Publish:
			if p.QoS > 0 {
				m.c.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: p.PacketID})
			}
		default:
			m.t.Fatalf("got %T", p)
		}
	}
}
