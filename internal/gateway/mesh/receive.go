package mesh

import (
	"time"

	"github.com/nats-io/nats.go"
)

// heardFrame takes a frame: in order, each once.
func (m *Mesh) heardFrame(msg *nats.Msg) {
	h, rest, err := parseHeader(msg.Data)
	if err != nil || h.kind != kindFrame {
		m.malformed("frame", err)
		return
	}
	at, records, err := parsePlace(rest)
	if err != nil {
		m.malformed("frame", err)
		return
	}
	if at.to != m.incarnation || at.link == 0 || at.seq == 0 || h.node == m.node || m.closed.Load() {
		return
	}
	p := m.heard(h)
	if p == nil {
		return
	}
	p.taking.Lock()
	defer p.taking.Unlock()
	if p.begin(at) {
		m.take(p, records)
		p.mu.Lock()
		p.taken++
		p.mu.Unlock()
	}
	m.wakeAcks()
}

// begin tells whether a frame is the next, and notes what is to be answered.
func (p *Peer) begin(at place) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped || at.link < p.inbound {
		return false
	}
	if at.link > p.inbound {
		// The peer has begun anew: what it had announced does not count.
		p.theirs.begin()
		p.inbound, p.taken = at.link, 0
	}
	p.due = true
	p.again = p.again || at.seq > p.taken+1
	return at.seq == p.taken+1
}

func (m *Mesh) wakeAcks() {
	select {
	case m.ackDue <- struct{}{}:
	default:
	}
}

// take applies the records of a frame.
func (m *Mesh) take(p *Peer, b []byte) {
	changed := false
	for len(b) > 0 {
		kind, body, rest, err := nextRecord(b)
		if err != nil {
			m.malformed("record", err)
			break
		}
		b = rest
		interest, err := m.record(p, kind, body)
		changed = changed || interest
		if err != nil {
			m.malformed("record", err)
		}
	}
	if changed {
		p.filters.Store(int64(p.theirs.exacts + len(p.theirs.texts)))
		m.others.generation.Add(1)
	}
}

// record applies one record; interest tells that it changed the peer's.
func (m *Mesh) record(p *Peer, kind byte, body []byte) (interest bool, err error) {
	switch kind {
	case recMessage:
		msg, groups, err := parseMessage(body)
		if err == nil && m.h.Deliver != nil {
			m.h.Deliver(msg, groups)
		}
		return false, err
	case recShared:
		id, body, err := cutRequest(body)
		if err != nil {
			return false, err
		}
		msg, groups, err := parseMessage(body)
		if err != nil {
			return false, err
		}
		untaken := groups
		if m.h.Deliver != nil {
			untaken = m.h.Deliver(msg, groups)
		}
		p.link.record([][]byte{appendOutcome(nil, id, untaken)}, nil)
		return false, nil
	case recOutcome:
		id, body, err := cutRequest(body)
		if err != nil {
			return false, err
		}
		untaken, _, err := cutGroups(body)
		if err == nil {
			m.requests.outcome(p, id, untaken)
		}
		return false, err
	case recAddExact:
		return true, p.theirs.addExact(body)
	case recRemoveExact:
		return true, p.theirs.removeExact(body)
	case recAddFilter:
		return true, p.theirs.addText(string(body))
	case recRemoveFilter:
		p.theirs.removeText(string(body))
		return true, nil
	case recSynced:
		p.theirs.synced()
		select {
		case <-p.synced:
		default:
			close(p.synced)
		}
		return true, nil
	case recNudge:
		clientID, id, err := parseNudge(body)
		if err == nil && m.h.Nudge != nil {
			m.h.Nudge(clientID, id)
		}
		return false, err
	case recKick, recChanged:
		r, err := parseRequest(kind, body)
		if err == nil {
			m.serve(p, r)
		}
		return false, err
	case recDone:
		id, code, err := parseDone(body)
		if err == nil {
			m.requests.answer(p, id, code)
		}
		return false, err
	}
	return false, nil // of a later version
}

// askSync asks a peer of which nothing has come yet to begin its link.
func (p *Peer) askSync(m *Mesh) {
	p.mu.Lock()
	ask := p.inbound == 0 && time.Since(p.since) >= m.cfg.Heartbeat/2
	if ask {
		p.due, p.again = true, true
	}
	p.mu.Unlock()
	if ask {
		m.wakeAcks()
	}
}

// sendAcks acknowledges what has been taken; what gathers meanwhile goes in one.
func (m *Mesh) sendAcks() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.ackDue:
		}
		for _, p := range m.members() {
			p.mu.Lock()
			due, again, at := p.due, p.again, place{p.incarnation, p.inbound, p.taken}
			p.due, p.again = false, false
			p.mu.Unlock()
			if !due {
				continue
			}
			buf := appendHeader(nil, header{kindAck, m.node, m.incarnation})
			n := len(buf)
			buf = append(buf, make([]byte, frameTrailer+1)...)
			putPlace(buf[n:], at)
			if again {
				buf[n+frameTrailer] = flagAgain
			}
			if err := m.conn.Publish(m.subject("a", p.id), buf); err != nil {
				m.log.Debug("mesh: acknowledgement not sent", "node", p.id, "err", err)
			}
		}
	}
}

func (m *Mesh) heardAck(msg *nats.Msg) {
	h, rest, err := parseHeader(msg.Data)
	if err != nil || h.kind != kindAck {
		m.malformed("acknowledgement", err)
		return
	}
	at, rest, err := parsePlace(rest)
	if err != nil || len(rest) < 1 {
		m.malformed("acknowledgement", err)
		return
	}
	if at.to != m.incarnation || h.node == m.node {
		return
	}
	if p := m.heard(h); p != nil {
		p.link.acknowledged(at.link, at.seq, rest[0]&flagAgain != 0)
	}
}
