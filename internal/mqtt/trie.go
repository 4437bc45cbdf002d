package mqtt

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// literalShards is a power of two: the upper bits of a hash choose the shard.
const (
	literalShards    = 1 << literalShardBits
	literalShardBits = 6
)

// Trie maps topic filters to sets of values and finds the values whose filters match
// a topic. Filters without wildcards live in striped hash tables, so that a million
// devices that each subscribe to topics of their own stay cheap; wildcards in a tree.
// It is safe for concurrent use.
type Trie[T comparable] struct {
	seed       maphash.Seed
	shards     [literalShards]literals[T]
	generation atomic.Uint64
	wildcards  atomic.Int64 // values in the tree

	mu   sync.RWMutex
	root node[T]
}

type node[T comparable] struct {
	children map[string]*node[T]
	plus     *node[T] // the level +
	here     *set[T]  // filters that end here
	hash     *set[T]  // filters that end with # below here
}

func (n *node[T]) empty() bool {
	return len(n.children) == 0 && n.plus == nil && n.here == nil && n.hash == nil
}

// NewTrie makes an empty Trie.
func NewTrie[T comparable]() *Trie[T] {
	return &Trie[T]{seed: maphash.MakeSeed()}
}

// Generation changes with every change of the Trie, before Add or Remove returns:
// what Match gave may be kept for as long as the generation read before it lasts.
func (t *Trie[T]) Generation() uint64 { return t.generation.Load() }

// Add puts v under a valid filter (of a shared subscription: the inner one), which it
// keeps. It returns false when it was there already.
func (t *Trie[T]) Add(filter string, v T) bool {
	added := false
	if !HasWildcard(filter) {
		l, hash := t.literals(filter)
		added = l.add(hash, filter, v)
	} else {
		t.mu.Lock()
		added = t.root.leaf(filter).add(v)
		if added {
			t.wildcards.Add(1)
		}
		t.mu.Unlock()
	}
	if added {
		t.generation.Add(1)
	}
	return added
}

// Remove takes v from a filter; it returns false when it was not there.
func (t *Trie[T]) Remove(filter string, v T) bool {
	removed := false
	if !HasWildcard(filter) {
		l, hash := t.literals(filter)
		removed = l.remove(hash, filter, v, t.hash)
	} else {
		t.mu.Lock()
		removed = t.root.remove(filter, v)
		if removed {
			t.wildcards.Add(-1)
		}
		t.mu.Unlock()
	}
	if removed {
		t.generation.Add(1)
	}
	return removed
}

// Match calls visit for each value whose filter matches topic; a value under several
// matching filters is visited for each. visit must not change the Trie.
func (t *Trie[T]) Match(topic string, visit func(T)) {
	if topic == "" {
		return
	}
	l, hash := t.literals(topic)
	l.match(hash, topic, visit)
	if t.wildcards.Load() == 0 {
		return
	}
	t.mu.RLock()
	t.root.match(topic, topic[0] == '$', visit)
	t.mu.RUnlock()
}

func (t *Trie[T]) hash(filter string) uint64 { return maphash.String(t.seed, filter) }

// literals gives the table of a filter without wildcards, with its hash.
func (t *Trie[T]) literals(filter string) (*literals[T], uint64) {
	h := t.hash(filter)
	return &t.shards[h>>(64-literalShardBits)], h
}

// leaf returns the set of a filter, made when it is missing.
func (n *node[T]) leaf(filter string) *set[T] {
	for {
		level, rest, more := strings.Cut(filter, "/")
		if level == "#" {
			if n.hash == nil {
				n.hash = &set[T]{}
			}
			return n.hash
		}
		next := n.plus
		if level != "+" {
			next = n.children[level]
		}
		if next == nil {
			next = &node[T]{}
			if level == "+" {
				n.plus = next
			} else {
				if n.children == nil {
					n.children = make(map[string]*node[T])
				}
				n.children[strings.Clone(level)] = next
			}
		}
		n = next
		if !more {
			if n.here == nil {
				n.here = &set[T]{}
			}
			return n.here
		}
		filter = rest
	}
}

func (n *node[T]) remove(filter string, v T) bool {
	level, rest, more := strings.Cut(filter, "/")
	if level == "#" {
		return removeFrom(&n.hash, v)
	}
	next := n.plus
	if level != "+" {
		next = n.children[level]
	}
	if next == nil {
		return false
	}
	removed := false
	if more {
		removed = next.remove(rest, v)
	} else {
		removed = removeFrom(&next.here, v)
	}
	if removed && next.empty() {
		if level == "+" {
			n.plus = nil
		} else {
			delete(n.children, level)
		}
	}
	return removed
}

func removeFrom[T comparable](s **set[T], v T) bool {
	if *s == nil || !(*s).remove(v) {
		return false
	}
	if (*s).empty() {
		*s = nil
	}
	return true
}

// match is called with at least one level left; dollar says that wildcards do not
// match the first of them [MQTT-4.7.2-1].
func (n *node[T]) match(topic string, dollar bool, visit func(T)) {
	if n.hash != nil && !dollar {
		n.hash.each(visit)
	}
	level, rest, more := strings.Cut(topic, "/")
	if next := n.children[level]; next != nil {
		next.descend(rest, more, visit)
	}
	if n.plus != nil && !dollar {
		n.plus.descend(rest, more, visit)
	}
}

func (n *node[T]) descend(rest string, more bool, visit func(T)) {
	if more {
		n.match(rest, false, visit)
	} else if n.here != nil {
		n.here.each(visit)
	}
}

// set is a small set; it gets an index when removal by search would be slow.
type set[T comparable] struct {
	values []T
	index  map[T]int
}

const indexAbove = 16

func (s *set[T]) empty() bool { return len(s.values) == 0 }

func (s *set[T]) find(v T) int {
	if s.index != nil {
		if i, ok := s.index[v]; ok {
			return i
		}
		return -1
	}
	for i := range s.values {
		if s.values[i] == v {
			return i
		}
	}
	return -1
}

func (s *set[T]) add(v T) bool {
	if s.find(v) >= 0 {
		return false
	}
	s.values = append(s.values, v)
	switch {
	case s.index != nil:
		s.index[v] = len(s.values) - 1
	case len(s.values) > indexAbove:
		s.index = make(map[T]int, 2*indexAbove)
		for i, v := range s.values {
			s.index[v] = i
		}
	}
	return true
}

func (s *set[T]) remove(v T) bool {
	i := s.find(v)
	if i < 0 {
		return false
	}
	last := len(s.values) - 1
	if i != last {
		s.values[i] = s.values[last]
		if s.index != nil {
			s.index[s.values[i]] = i
		}
	}
	var zero T
	s.values[last] = zero
	s.values = s.values[:last]
	if s.index != nil {
		delete(s.index, v)
	}
	return true
}

func (s *set[T]) each(visit func(T)) {
	for _, v := range s.values {
		visit(v)
	}
}
