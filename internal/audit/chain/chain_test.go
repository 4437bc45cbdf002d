package chain_test

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/audit/chain"
)

var (
	key      = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	otherKey = ed25519.NewKeyFromSeed([]byte("fedcba9876543210fedcba9876543210"))
)

// log is a chain with its heads.
type log struct {
	records []*chain.Record
	heads   []*chain.Head
}

// write makes a log of n records, from first, with a head after each third.
func write(n int) *log {
	l := &log{}
	var hash []byte
	for i := range n {
		seq := int64(i + 1)
		r := &chain.Record{Node: "n", Seq: seq, Time: 1000 * seq, Body: `{"operation":"CreateThing","requestId":"` + strings.Repeat("x", i) + `"}`}
		r.Hash = chain.Hash(hash, r.Node, r.Seq, r.Time, r.Body)
		hash = r.Hash
		l.records = append(l.records, r)
		if seq%3 == 0 {
			l.heads = append(l.heads, l.head(seq, false, key))
		}
	}
	return l
}

func (l *log) head(seq int64, trimmed bool, by ed25519.PrivateKey) *chain.Head {
	h := &chain.Head{Node: "n", Seq: seq, Trimmed: trimmed, Time: 5, Hash: l.records[seq-1].Hash}
	h.Sign(by)
	return h
}

// again computes all hashes from a record on, as a forger would.
func (l *log) again(from int) {
	var hash []byte
	if from > 0 {
		hash = l.records[from-1].Hash
	}
	for _, r := range l.records[from:] {
		r.Hash = chain.Hash(hash, r.Node, r.Seq, r.Time, r.Body)
		hash = r.Hash
	}
}

func (l *log) verify(key []byte, anchors ...chain.Anchor) *chain.Report {
	v := chain.NewVerifier("n", key, anchors...)
	for _, h := range l.heads {
		v.AddHead(h)
	}
	for _, r := range l.records {
		v.Add(r)
	}
	return v.Report()
}

func TestUntouched(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 10} {
		l := write(n)
		r := l.verify(key.Public().(ed25519.PublicKey))
		if len(r.Problems) != 0 || r.Records != int64(n) || r.Last != int64(n) || r.SignedTo != int64(n/3*3) {
			t.Errorf("%d: %+v", n, r)
		}
	}
	// The old ones were deleted, which is signed.
	l := write(10)
	l.heads = append([]*chain.Head{l.head(4, true, key)}, l.heads[1:]...)
	l.records = l.records[4:]
	if r := l.verify(nil); len(r.Problems) != 0 || r.First != 5 || r.Records != 6 {
		t.Errorf("%+v", r)
	}
}

// Each way to tamper with a log of ten records, of which nine are signed, is found.
func TestTampered(t *testing.T) {
	anchor := chain.Anchor{Seq: 10, Hash: write(10).records[9].Hash}
	for name, c := range map[string]struct {
		do   func(l *log)
		key  []byte
		want string
	}{
		"body":                   {func(l *log) { l.records[4].Body = `{}` }, nil, "record 5: it was altered"},
		"time":                   {func(l *log) { l.records[4].Time++ }, nil, "record 5: it was altered"},
		"hash":                   {func(l *log) { l.records[4].Hash = slices.Repeat([]byte{1}, 32) }, nil, "record 5: it was altered"},
		"node":                   {func(l *log) { l.records[4].Node = "m" }, nil, "record 5: it is of node m"},
		"body, hashes again":     {func(l *log) { l.records[4].Body = `{}`; l.again(4) }, nil, "record 6: the signed head has another hash"},
		"removed":                {func(l *log) { l.records = slices.Delete(l.records, 4, 5) }, nil, "record 5 is missing"},
		"two removed":            {func(l *log) { l.records = slices.Delete(l.records, 3, 5) }, nil, "records 4 to 5 are missing"},
		"removed and renumbered": {func(l *log) { l.records = slices.Delete(l.records, 4, 5); l.number(); l.again(0) }, nil, "record 6: the signed head has another hash"},
		"inserted":               {func(l *log) { l.records = slices.Insert(l.records, 4, l.records[4]) }, nil, "record 5: it is there twice"},
		"swapped":                {func(l *log) { l.records[3], l.records[4] = l.records[4], l.records[3] }, nil, "record 4 is missing"},
		"swapped, hashes again":  {func(l *log) { l.records[3].Body, l.records[4].Body = l.records[4].Body, l.records[3].Body; l.again(3) }, nil, "signed head has another hash"},
		"first removed":          {func(l *log) { l.records = l.records[1:] }, nil, "records up to 1 are missing"},
		"first removed, forged": {func(l *log) {
			l.heads = append([]*chain.Head{l.head(2, true, otherKey)}, l.heads...)
			l.records = l.records[2:]
		}, key.Public().(ed25519.PublicKey), "another key"},
		"end cut off":     {func(l *log) { l.records = l.records[:8] }, nil, "the end is missing: a signed head is at record 9, the last record is 8"},
		"all removed":     {func(l *log) { l.records = nil }, nil, "the end is missing"},
		"head altered":    {func(l *log) { l.heads[0].Hash = slices.Repeat([]byte{1}, 32) }, nil, "head 3: the signature is not valid"},
		"head of another": {func(l *log) { l.heads[0].Node = "m"; l.heads[0].Sign(key) }, nil, "head 3: the signature is not valid"},
		"head by another key": {func(l *log) {
			l.records[0].Body = `{}`
			l.again(0)
			l.heads = []*chain.Head{l.head(9, false, otherKey)}
		}, key.Public().(ed25519.PublicKey), "another key"},
		"unsigned end, an anchor": {func(l *log) { l.records = l.records[:9] }, nil, "an anchor is at record 10, the last record is 9"},
		"another end, an anchor":  {func(l *log) { l.records[9].Body = `{}`; l.again(9) }, nil, "the anchor has another hash"},
		"all new, an anchor": {func(l *log) {
			l.records[0].Body = `{}`
			l.again(0)
			l.heads = []*chain.Head{l.head(10, false, otherKey)}
		}, nil, "the anchor has another hash"},
	} {
		l := write(10)
		c.do(l)
		var anchors []chain.Anchor
		if strings.HasSuffix(name, "an anchor") {
			anchors = append(anchors, anchor)
		}
		r := l.verify(c.key, anchors...)
		if !strings.Contains(strings.Join(r.Problems, "\n"), c.want) {
			t.Errorf("%s: found %q, want %q", name, r.Problems, c.want)
		}
	}
	// What can't be found without an anchor: the unsigned end.
	l := write(10)
	l.records = l.records[:9]
	if r := l.verify(nil); len(r.Problems) != 0 || r.SignedTo != 9 {
		t.Errorf("%+v", r)
	}
	// Heads behind their records vouch for nothing, and are told.
	l = write(10)
	v := chain.NewVerifier("n", nil)
	for _, r := range l.records {
		v.Add(r)
	}
	v.AddHead(l.heads[0])
	if r := v.Report(); len(r.Problems) != 1 {
		t.Errorf("%+v", r)
	}
}

// Who has no key can take all heads away, and write another log: it is not signed.
func TestHeadsRemoved(t *testing.T) {
	public := key.Public().(ed25519.PublicKey)
	for name, c := range map[string]struct {
		minutes int64 // between records
		keep    int   // heads
		want    string
	}{
		"all": {10, 0, "the records after 0 are not signed"}, "the later ones": {40, 1, "the records after 3 are not signed"},
		"none": {40, 3, ""}, "of a young log": {1, 0, ""},
	} {
		l := write(10)
		for _, r := range l.records {
			r.Time = c.minutes * 60_000 * r.Seq
		}
		l.again(0)
		for i, h := range l.heads {
			h.Hash = l.records[3*i+2].Hash
			h.Sign(key)
		}
		l.heads = l.heads[:c.keep]
		got := strings.Join(l.verify(public).Problems, "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: found %q, want %q", name, got, c.want)
		}
	}
}

func (l *log) number() {
	for i, r := range l.records {
		c := *r
		c.Seq = int64(i + 1)
		l.records[i] = &c
	}
}

func TestReportsAreBounded(t *testing.T) {
	l := write(1000)
	for _, r := range l.records {
		r.Body = "{}"
	}
	if r := l.verify(nil); len(r.Problems) != 101 || !strings.Contains(r.Problems[100], "more") {
		t.Errorf("%d problems", len(r.Problems))
	}
}

// The hash tells where one part ends and the next begins.
func TestHashIsOfTheParts(t *testing.T) {
	seen := map[string]string{}
	for name, h := range map[string][]byte{
		"a":    chain.Hash(nil, "n", 1, 2, "body"),
		"node": chain.Hash(nil, "n1", 1, 2, "body"),
		"seq":  chain.Hash(nil, "n", 2, 2, "body"),
		"time": chain.Hash(nil, "n", 1, 3, "body"),
		"body": chain.Hash(nil, "n", 1, 2, "body2"),
		"prev": chain.Hash(make([]byte, 31), "n", 1, 2, "body"),
	} {
		if other := seen[string(h)]; other != "" {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[string(h)] = name
	}
}
