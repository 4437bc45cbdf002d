package chain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// HashBytes is the length of a hash.
const HashBytes = sha256.Size

// Entry is what a record says: the JSON text that is its body.
type Entry struct {
	Kind        string          `json:"kind"` // KindChange, KindResult or KindDenied
	Time        string          `json:"time"` // RFC 3339, when the request came
	RequestID   string          `json:"requestId"`
	Principal   string          `json:"principal"` // ARN
	AccessKeyID string          `json:"accessKeyId,omitempty"`
	SourceIP    string          `json:"sourceIp,omitempty"`
	UserAgent   string          `json:"userAgent,omitempty"`
	Service     string          `json:"service"`
	Operation   string          `json:"operation"`
	Resources   []string        `json:"resources,omitempty"` // ARNs
	Outcome     string          `json:"outcome"`             // "ok", "denied" or "failed"
	Code        string          `json:"code,omitempty"`      // of what was answered, unless ok
	Message     string          `json:"message,omitempty"`
	Request     json.RawMessage `json:"request,omitempty"`  // the body, without secrets
	Before      json.RawMessage `json:"before,omitempty"`   // the resource as it was, when it can be read
	After       json.RawMessage `json:"after,omitempty"`    // and as it is then
	Response    json.RawMessage `json:"response,omitempty"` // without secrets
	Suppressed  int64           `json:"suppressed,omitempty"`
}

// Kinds of records.
const (
	KindChange = "change" // committed with the change; or an attempt that changed nothing, and failed
	KindResult = "result" // what became of the change with the same request id
	KindDenied = "denied" // an attempt of who may not; Suppressed such attempts before it were too many to record
	KindRead   = "read"
)

// Record is a link of a node's chain.
type Record struct {
	Node string
	Seq  int64  // from 1, without gaps
	Time int64  // milliseconds since 1970, when it was written
	Body string // JSON of an Entry
	Hash []byte // see Hash
}

// Hash is that of a record: SHA-256 over the previous record's hash (32 zero bytes for the first), and the length and
// bytes of node, then seq and time (8 bytes each, big-endian), then the body.
func Hash(previous []byte, node string, seq, time int64, body string) []byte {
	h := sha256.New()
	var zero [HashBytes]byte
	if previous == nil {
		previous = zero[:]
	}
	h.Write(previous)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(node)))
	h.Write(n[:])
	h.Write([]byte(node))
	binary.BigEndian.PutUint64(n[:], uint64(seq))
	h.Write(n[:])
	binary.BigEndian.PutUint64(n[:], uint64(time))
	h.Write(n[:])
	h.Write([]byte(body))
	return h.Sum(nil)
}

// Head is a signed state of a chain: at record Seq the hash is Hash.
type Head struct {
	Node      string
	Seq       int64
	Trimmed   bool // the records up to Seq were deleted, because of their age or for want of space
	Time      int64
	Hash      []byte
	Key       []byte // Ed25519 public key of the node
	Signature []byte
}

func (h *Head) message() []byte {
	return fmt.Appendf(nil, "flotilla audit head 1\n%s\n%d\n%t\n%d\n%s\n", h.Node, h.Seq, h.Trimmed, h.Time, hex.EncodeToString(h.Hash))
}

// Sign signs a head.
func (h *Head) Sign(key ed25519.PrivateKey) {
	h.Key = key.Public().(ed25519.PublicKey)
	h.Signature = ed25519.Sign(key, h.message())
}

// Valid tells whether the signature is that of Key.
func (h *Head) Valid() bool {
	return len(h.Key) == ed25519.PublicKeySize && ed25519.Verify(h.Key, h.message(), h.Signature)
}

// Anchor is a state of a chain that was written down elsewhere, from a log line or an earlier verification.
type Anchor struct {
	Seq  int64
	Hash []byte
}

// MaxUnsigned is the longest time between a record and one after it, when no head between them was signed. Nodes sign
// more often than that.
const MaxUnsigned = time.Hour

// maxProblems bounds a report.
const maxProblems = 100

// Report is what a [Verifier] found.
type Report struct {
	Node     string   `json:"node"`
	Records  int64    `json:"records"`
	First    int64    `json:"first"` // sequence numbers; 0 = there are none
	Last     int64    `json:"last"`
	LastHash string   `json:"lastHash,omitempty"` // hex: the anchor of a later verification
	SignedTo int64    `json:"signedTo"`           // the last record that a head vouches for
	Keys     []string `json:"keys"`               // public keys of the heads, hex
	Problems []string `json:"problems"`
}

// Verifier checks one node's chain. It is given the chain's heads and records in order of their numbers, each head
// before the record of its number, and then asked for its report.
type Verifier struct {
	report  Report
	key     []byte // that heads must be signed with; nil = any
	anchors map[int64][]byte
	heads   map[int64]*Head
	trimmed *Head // the last
	highest int64 // of the heads
	hash    []byte
	keys    map[string]bool
	many    int
	// Times of the first record that no head vouches for, and of the last record.
	unsigned, last int64
}

// NewVerifier makes a verifier of a node's chain. key is the public key of the node, when it is known for certain;
// else heads are checked with the keys that they name, and the report tells which.
func NewVerifier(node string, key []byte, anchors ...Anchor) *Verifier {
	v := &Verifier{report: Report{Node: node, Keys: []string{}, Problems: []string{}}, key: key, anchors: map[int64][]byte{}, heads: map[int64]*Head{}, keys: map[string]bool{}}
	for _, a := range anchors {
		v.anchors[a.Seq] = a.Hash
	}
	return v
}

func (v *Verifier) problem(format string, args ...any) {
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, args...))
		return
	}
	v.many++
}

// AddHead takes a head.
func (v *Verifier) AddHead(h *Head) {
	switch {
	case h.Node != v.report.Node || !h.Valid():
		v.problem("head %d: the signature is not valid", h.Seq)
		return
	case v.key != nil && !bytes.Equal(v.key, h.Key):
		v.problem("head %d: it is signed with another key, %s", h.Seq, hex.EncodeToString(h.Key))
		return
	}
	if name := hex.EncodeToString(h.Key); !v.keys[name] {
		v.keys[name] = true
		v.report.Keys = append(v.report.Keys, name)
	}
	v.highest = max(v.highest, h.Seq)
	if h.Trimmed {
		if v.trimmed == nil || v.trimmed.Seq < h.Seq {
			v.trimmed = h
		}
		return
	}
	if h.Seq <= v.report.Last && v.report.First > 0 {
		v.problem("head %d: it comes after its record", h.Seq)
		return
	}
	v.heads[h.Seq] = h
}

// Add takes the next record.
func (v *Verifier) Add(r *Record) {
	v.report.Records++
	if v.report.First == 0 {
		v.begin(r)
	}
	switch {
	case r.Node != v.report.Node:
		v.problem("record %d: it is of node %s", r.Seq, r.Node)
	case r.Seq == v.report.Last+2:
		v.problem("record %d is missing", r.Seq-1)
	case r.Seq > v.report.Last+1:
		v.problem("records %d to %d are missing", v.report.Last+1, r.Seq-1)
	case r.Seq <= v.report.Last:
		v.problem("record %d: it is there twice or out of order", r.Seq)
	case !bytes.Equal(r.Hash, Hash(v.hash, r.Node, r.Seq, r.Time, r.Body)):
		v.problem("record %d: it was altered, or the one before it was", r.Seq)
	}
	if v.unsigned == 0 {
		v.unsigned = r.Time
	}
	v.last = r.Time
	if h := v.heads[r.Seq]; h != nil {
		delete(v.heads, r.Seq)
		v.report.SignedTo, v.unsigned = r.Seq, 0
		if !bytes.Equal(h.Hash, r.Hash) {
			v.problem("record %d: the signed head has another hash: something up to it was altered", r.Seq)
		}
	}
	if want, ok := v.anchors[r.Seq]; ok {
		delete(v.anchors, r.Seq)
		if !bytes.Equal(want, r.Hash) {
			v.problem("record %d: the anchor has another hash: something up to it was altered", r.Seq)
		}
	}
	v.report.Last, v.hash = r.Seq, r.Hash
}

// begin finds what the first record follows.
func (v *Verifier) begin(r *Record) {
	v.report.First, v.report.Last = r.Seq, r.Seq-1
	switch {
	case r.Seq == 1:
	case v.trimmed != nil && v.trimmed.Seq == r.Seq-1:
		v.hash = v.trimmed.Hash
	default:
		v.problem("records up to %d are missing, and no signed head says that they were deleted because of their age", r.Seq-1)
	}
}

// Report ends the verification.
func (v *Verifier) Report() *Report {
	if v.highest > v.report.Last {
		v.problem("the end is missing: a signed head is at record %d, the last record is %d", v.highest, v.report.Last)
	}
	for seq := range v.heads {
		if seq <= v.report.Last && seq >= v.report.First {
			v.problem("record %d of a signed head is missing", seq)
		}
	}
	for seq := range v.anchors {
		if seq > v.report.Last {
			v.problem("the end is missing: an anchor is at record %d, the last record is %d", seq, v.report.Last)
		} else if seq >= v.report.First {
			v.problem("record %d of an anchor is missing", seq)
		}
	}
	if v.unsigned != 0 && v.last-v.unsigned > MaxUnsigned.Milliseconds() {
		v.problem("the records after %d are not signed, though they are of more than %s: signed heads are missing", v.report.SignedTo, MaxUnsigned)
	}
	if v.many > 0 {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf("and %d more", v.many))
	}
	v.report.LastHash = hex.EncodeToString(v.hash)
	return &v.report
}
