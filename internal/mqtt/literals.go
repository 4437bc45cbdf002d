package mqtt

import (
	"slices"
	"sync"
)

// literals is a table of filters without wildcards, made to be read cold: a look-up
// touches one slot, one entry, and in it the first value, where a map of sets would
// chase five pointers. Entries are found by a 64-bit hash that the caller gives
// (keyed, so that nobody can choose filters that collide) and checked by the whole
// filter. The zero value is empty.
type literals[T comparable] struct {
	mu      sync.RWMutex
	slots   []slot // a power of two of them, or none; probed one after the other
	entries []entry[T]
	_       [56]byte // 128 bytes each: locks of neighbours in an array share no cache line
}

// slot leads to an entry. It has no pointer: the garbage collector passes it by.
type slot struct {
	tag uint32 // half of the hash
	at  uint32 // the entry's place, from 1; 0 is a free slot
}

// entry is a filter with its values, of which there is mostly one.
type entry[T comparable] struct {
	filter string
	first  T
	rest   *set[T] // the others; nil none
}

const fewSlots = 8

// find gives the slot of a filter; -1 none.
func (l *literals[T]) find(hash uint64, filter string) int {
	if len(l.slots) == 0 {
		return -1
	}
	mask, tag := uint32(len(l.slots)-1), uint32(hash)
	for i := tag & mask; ; i = (i + 1) & mask {
		s := l.slots[i]
		if s.at == 0 {
			return -1
		}
		if s.tag == tag && l.entries[s.at-1].filter == filter {
			return int(i)
		}
	}
}

// match calls visit for each value under filter.
func (l *literals[T]) match(hash uint64, filter string, visit func(T)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := l.find(hash, filter)
	if i < 0 {
		return
	}
	e := &l.entries[l.slots[i].at-1]
	visit(e.first)
	if e.rest != nil {
		e.rest.each(visit)
	}
}

// add puts v under filter, which it keeps; false when it was there.
func (l *literals[T]) add(hash uint64, filter string, v T) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.find(hash, filter); i >= 0 {
		e := &l.entries[l.slots[i].at-1]
		if e.first == v {
			return false
		}
		if e.rest == nil {
			e.rest = &set[T]{}
		}
		return e.rest.add(v)
	}
	if 4*(len(l.entries)+1) > 3*len(l.slots) {
		l.resize(max(fewSlots, 2*len(l.slots)))
	}
	l.entries = append(l.entries, entry[T]{filter: filter, first: v})
	l.place(slot{tag: uint32(hash), at: uint32(len(l.entries))})
	return true
}

// remove takes v from filter; false when it was not there. rehash gives the hash of
// another filter of the table.
func (l *literals[T]) remove(hash uint64, filter string, v T, rehash func(string) uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.find(hash, filter)
	if i < 0 {
		return false
	}
	at := l.slots[i].at
	e := &l.entries[at-1]
	if e.first != v {
		return removeFrom(&e.rest, v)
	}
	if e.rest != nil {
		e.first = e.rest.values[len(e.rest.values)-1]
		return removeFrom(&e.rest, e.first)
	}
	l.free(uint32(i))
	last := len(l.entries)
	if int(at) != last { // the last entry moves to the place of the one that goes
		moved := l.entries[last-1]
		l.slots[l.find(rehash(moved.filter), moved.filter)].at = at
		l.entries[at-1] = moved
	}
	l.entries[last-1] = entry[T]{}
	l.entries = l.entries[:last-1]
	if len(l.slots) > fewSlots && 8*len(l.entries) < len(l.slots) {
		l.resize(len(l.slots) / 4)
		l.entries = slices.Clone(l.entries)
	}
	return true
}

// place puts s into the first free slot from its own on.
func (l *literals[T]) place(s slot) {
	mask := uint32(len(l.slots) - 1)
	i := s.tag & mask
	for l.slots[i].at != 0 {
		i = (i + 1) & mask
	}
	l.slots[i] = s
}

// free empties slot i, and moves up those that were pushed past it.
func (l *literals[T]) free(i uint32) {
	mask := uint32(len(l.slots) - 1)
	for j := (i + 1) & mask; l.slots[j].at != 0; j = (j + 1) & mask {
		if own := l.slots[j].tag & mask; (j-own)&mask >= (j-i)&mask {
			l.slots[i] = l.slots[j]
			i = j
		}
	}
	l.slots[i] = slot{}
}

func (l *literals[T]) resize(n int) {
	old := l.slots
	l.slots = make([]slot, max(n, fewSlots))
	for _, s := range old {
		if s.at != 0 {
			l.place(s)
		}
	}
}
