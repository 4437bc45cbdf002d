package index

import (
	"sync"
	"time"
)

// mark names a document that must be indexed again.
type mark struct {
	kind int64
	name string
}

// presence is the last news of a client.
type presence struct {
	connected bool
	at        int64 // ms
	reason    string
}

// marks are what waits to be indexed on this node. When there are too many they are given up for all.
type marks struct {
	mu        sync.Mutex
	most      int
	set       map[mark]struct{}
	presences map[string]presence
	all       bool // everything must be indexed
	setting   bool // the configuration was changed
}

func (m *marks) add(k mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set == nil {
		m.set = map[mark]struct{}{}
	}
	if k.name == "" || len(m.set) >= m.most {
		m.all = true
		return
	}
	m.set[k] = struct{}{}
}

func (m *marks) present(client string, p presence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.presences == nil {
		m.presences = map[string]presence{}
	}
	if len(m.presences) < m.most { // further ones are seen when they change again
		m.presences[client] = p
	}
}

func (m *marks) reload() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setting = true
}

// batch is a part of the marks.
type batch struct {
	marks        []mark
	presences    map[string]presence
	all, setting bool
}

func (b *batch) empty() bool {
	return len(b.marks) == 0 && len(b.presences) == 0 && !b.all && !b.setting
}

// take removes up to most marks.
func (m *marks) take(most int) batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := batch{all: m.all, setting: m.setting, presences: map[string]presence{}}
	m.all, m.setting = false, false
	for client, p := range m.presences {
		if len(b.presences) == most {
			break
		}
		b.presences[client] = p
		delete(m.presences, client)
	}
	for k := range m.set {
		if len(b.marks) == most {
			break
		}
		b.marks = append(b.marks, k)
		delete(m.set, k)
	}
	return b
}

// back puts a batch back that could not be indexed.
func (m *marks) back(b batch) {
	for _, k := range b.marks {
		m.add(k)
	}
	for client, p := range b.presences {
		m.mu.Lock()
		_, newer := m.presences[client]
		m.mu.Unlock()
		if !newer {
			m.present(client, p)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all, m.setting = m.all || b.all, m.setting || b.setting
}

// ThingChanged notes that a thing, its groups or its shadows were changed; "" that any may have been. It does not block.
func (x *Index) ThingChanged(thingName string) {
	if x.on.Load() {
		x.marks.add(mark{things, thingName})
		poke(x.wake)
	}
}

// GroupChanged notes that a thing group was changed; "" that any may have been. It does not block.
func (x *Index) GroupChanged(name string) {
	if x.on.Load() {
		x.marks.add(mark{groups, name})
		poke(x.wake)
		poke(x.lead)
	}
}

// PresenceChanged notes that a client has connected or disconnected. It does not block.
func (x *Index) PresenceChanged(clientID string, connected bool, reason string, at time.Time) {
	if x.connectivity.Load() && len(clientID) <= 128 {
		x.marks.present(clientID, presence{connected, at.UnixMilli(), reason})
		poke(x.wake)
	}
}
