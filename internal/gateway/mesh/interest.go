package mesh

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"

	"flotilla/internal/mqtt"
)

// hash is that of a filter without wildcards, and of a topic; it is the same on all
// nodes. Who makes two topics collide gains a message sent in vain.
func hash(s string) uint64 {
	const k0, k1 = 0xa0761d6478bd642f, 0xe7037ed1a0b428db
	h := uint64(len(s)) ^ k1
	for len(s) >= 8 {
		hi, lo := bits.Mul64(word(s)^k0, h^k1)
		h = hi ^ lo
		s = s[8:]
	}
	var tail [8]byte
	copy(tail[:], s)
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(tail[:])^k0, h^k1)
	h = hi ^ lo
	hi, lo = bits.Mul64(h^k0, k1)
	return hi ^ lo
}

func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func isShared(filter string) bool { return strings.HasPrefix(filter, "$share/") }

// isText tells the filters that are announced as they are.
func isText(filter string) bool { return mqtt.HasWildcard(filter) || isShared(filter) }

// own counts the filters of this node's clients. Its lock is taken before those of
// links, so that what a link begins with and the changes that follow agree.
type own struct {
	mu    sync.Mutex
	exact map[uint64]uint32
	texts map[string]uint32
}

// delta is what changed for the other nodes.
type delta struct {
	addExact, removeExact []uint64
	addText, removeText   []string
}

func (d *delta) empty() bool {
	return len(d.addExact)+len(d.removeExact)+len(d.addText)+len(d.removeText) == 0
}

// change counts; it is called with the lock held.
func (o *own) change(add, remove []string) (d delta) {
	for _, f := range add {
		if isText(f) {
			if o.texts[f]++; o.texts[f] == 1 {
				d.addText = append(d.addText, f)
			}
			continue
		}
		h := hash(f)
		if o.exact[h]++; o.exact[h] == 1 {
			d.addExact = append(d.addExact, h)
		}
	}
	for _, f := range remove {
		if isText(f) {
			if drop(o.texts, f) {
				d.removeText = append(d.removeText, f)
			}
			continue
		}
		if h := hash(f); drop(o.exact, h) {
			d.removeExact = append(d.removeExact, h)
		}
	}
	return d
}

// drop takes one from a count, and tells whether it was the last.
func drop[K comparable](counts map[K]uint32, k K) bool {
	switch n := counts[k]; n {
	case 0:
		return false // was never announced
	case 1:
		delete(counts, k)
		return true
	default:
		counts[k] = n - 1
		return false
	}
}

// hashesPerRecord keeps a record far below what a frame holds.
const hashesPerRecord = 4096

func eachHashes(all []uint64, kind byte, emit func([]byte)) {
	for len(all) > 0 {
		part := all[:min(len(all), hashesPerRecord)]
		all = all[len(part):]
		body := make([]byte, 0, 8*len(part))
		for _, h := range part {
			body = binary.BigEndian.AppendUint64(body, h)
		}
		emit(appendRecord(nil, kind, body))
	}
}

// records encodes a change.
func (d *delta) records(emit func([]byte)) {
	eachHashes(d.addExact, recAddExact, emit)
	for _, f := range d.addText {
		emit(appendRecord(nil, recAddFilter, []byte(f)))
	}
	eachHashes(d.removeExact, recRemoveExact, emit)
	for _, f := range d.removeText {
		emit(appendRecord(nil, recRemoveFilter, []byte(f)))
	}
}

// all is everything, as a change; it is called with the lock held.
func (o *own) all() (d delta) {
	d.addExact = make([]uint64, 0, len(o.exact))
	for h := range o.exact {
		d.addExact = append(d.addExact, h)
	}
	d.addText = make([]string, 0, len(o.texts))
	for f := range o.texts {
		d.addText = append(d.addText, f)
	}
	return d
}

const (
	interestShards = 64
	maxPeers       = 64
	// A peer that announces more is taken to be interested in everything.
	maxExact = 16 << 20
	maxTexts = 1 << 20
)

// others is what the peers are interested in. Peers are numbered by slot.
type others struct {
	generation atomic.Uint64
	live       atomic.Uint64 // slots whose interest counts
	everything atomic.Uint64 // slots that have announced too much
	exacts     atomic.Int64
	shards     [interestShards]interestShard
	texts      *mqtt.Trie[uint8]
	groups     *mqtt.Trie[groupAt]
	groupCount atomic.Int64
}

type interestShard struct {
	mu sync.RWMutex
	of map[uint64]uint64 // hash -> slots
	_  [32]byte
}

type groupAt struct {
	slot   uint8
	filter string
}

func newOthers() *others {
	o := &others{texts: mqtt.NewTrie[uint8](), groups: mqtt.NewTrie[groupAt]()}
	for i := range o.shards {
		o.shards[i].of = map[uint64]uint64{}
	}
	return o
}

// match returns the slots that may have a subscription matching topic.
func (o *others) match(topic string) uint64 {
	live := o.live.Load()
	if live == 0 {
		return 0
	}
	found := o.everything.Load()
	if o.exacts.Load() > 0 {
		h := hash(topic)
		s := &o.shards[h%interestShards]
		s.mu.RLock()
		found |= s.of[h]
		s.mu.RUnlock()
	}
	o.texts.Match(topic, func(slot uint8) { found |= 1 << slot })
	return found & live
}

// theirs is what one peer has announced; its owner serializes calls.
type theirs struct {
	o      *others
	slot   uint8
	exacts int
	texts  map[string]struct{}
	full   bool // it has announced more than is kept
}

func (t *theirs) addExact(body []byte) error {
	if len(body)%8 != 0 {
		return errMalformed
	}
	bit := uint64(1) << t.slot
	for ; len(body) > 0; body = body[8:] {
		if t.exacts >= maxExact {
			t.overflow()
			return nil
		}
		h := binary.BigEndian.Uint64(body)
		s := &t.o.shards[h%interestShards]
		s.mu.Lock()
		old := s.of[h]
		s.of[h] = old | bit
		s.mu.Unlock()
		if old&bit == 0 {
			t.exacts++
			t.o.exacts.Add(1)
		}
	}
	return nil
}

func (t *theirs) removeExact(body []byte) error {
	if len(body)%8 != 0 {
		return errMalformed
	}
	bit := uint64(1) << t.slot
	for ; len(body) > 0; body = body[8:] {
		h := binary.BigEndian.Uint64(body)
		s := &t.o.shards[h%interestShards]
		s.mu.Lock()
		old := s.of[h]
		switch rest := old &^ bit; rest {
		case 0:
			delete(s.of, h)
		default:
			s.of[h] = rest
		}
		s.mu.Unlock()
		if old&bit != 0 {
			t.exacts--
			t.o.exacts.Add(-1)
		}
	}
	return nil
}

func (t *theirs) addText(filter string) error {
	// AWS's limits on filters are the gateway's concern.
	if filter == "" || len(filter) > maxFilter || strings.IndexByte(filter, 0) >= 0 {
		return errMalformed
	}
	if _, there := t.texts[filter]; there {
		return nil
	}
	if len(t.texts) >= maxTexts {
		t.overflow()
		return nil
	}
	t.texts[filter] = struct{}{}
	if _, inner, shared := mqtt.Share(filter); shared {
		if t.o.groups.Add(inner, groupAt{t.slot, filter}) {
			t.o.groupCount.Add(1)
		}
		return nil
	}
	t.o.texts.Add(filter, t.slot)
	return nil
}

func (t *theirs) removeText(filter string) {
	if _, there := t.texts[filter]; !there {
		return
	}
	delete(t.texts, filter)
	if _, inner, shared := mqtt.Share(filter); shared {
		if t.o.groups.Remove(inner, groupAt{t.slot, filter}) {
			t.o.groupCount.Add(-1)
		}
		return
	}
	t.o.texts.Remove(filter, t.slot)
}

func (t *theirs) overflow() {
	t.full = true
	t.o.everything.Or(1 << t.slot)
}

// begin forgets all, for an announcement that is to follow. Until synced the peer
// counts as interested in everything: it may have clients already.
func (t *theirs) begin() {
	t.clear()
	t.o.everything.Or(1 << t.slot)
}

func (t *theirs) synced() {
	if !t.full {
		t.o.everything.And(^(uint64(1) << t.slot))
	}
}

// clear forgets all.
func (t *theirs) clear() {
	for f := range t.texts {
		t.removeText(f)
	}
	t.full = false
	t.o.everything.And(^(uint64(1) << t.slot))
	if t.exacts > 0 {
		bit := uint64(1) << t.slot
		for i := range t.o.shards {
			s := &t.o.shards[i]
			s.mu.Lock()
			for h, slots := range s.of {
				switch rest := slots &^ bit; rest {
				case slots:
				case 0:
					delete(s.of, h)
				default:
					s.of[h] = rest
				}
			}
			s.mu.Unlock()
		}
		t.o.exacts.Add(int64(-t.exacts))
		t.exacts = 0
	}
	t.o.generation.Add(1)
}
