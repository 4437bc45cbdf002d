package doc

import (
	"encoding/binary"
	"errors"
)

// The stored form, version 1. Integers are unsigned varints.
//
//	document  0x01, values (their number), newest (seconds), sections (bit 0 desired, bit 1 reported), value…
//	value     size<<3 | kind, then
//	          leaf    size bytes of JSON text, age (newest minus its time)
//	          object  size times: key length, key (JSON string without quotes), value
//	          array   size times: value
//
// Text is kept as it goes out again; true, false and numbers too.
const storedVersion = 1

var errStored = errors.New("shadow/doc: stored document is damaged")

// encode returns the stored form.
func (d *document) encode() []byte {
	e := encoder{}
	sections := byte(0)
	size := 0
	for i, s := range [2]*value{d.desired, d.reported} {
		if s != nil {
			sections |= 1 << i
			e.survey(s)
			size += 2 * e.bytes
		}
	}
	out := append(make([]byte, 0, e.bytes+16), storedVersion)
	out = binary.AppendUvarint(out, uint64(e.values))
	out = binary.AppendUvarint(out, uint64(e.newest))
	out = append(out, sections)
	for _, s := range [2]*value{d.desired, d.reported} {
		if s != nil {
			out = e.append(out, s)
		}
	}
	return out
}

type encoder struct {
	values int
	newest int64
	bytes  int // at most so many will be needed, unless ages are great
}

func (e *encoder) survey(v *value) {
	e.values++
	e.bytes += len(v.key) + len(v.text) + 6
	e.newest = max(e.newest, v.time)
	for i := range v.kids {
		e.survey(&v.kids[i])
	}
}

func (e *encoder) append(out []byte, v *value) []byte {
	if v.leaf() {
		out = binary.AppendUvarint(out, uint64(len(v.text))<<3|uint64(v.kind))
		out = append(out, v.text...)
		return binary.AppendUvarint(out, uint64(e.newest-v.time))
	}
	out = binary.AppendUvarint(out, uint64(len(v.kids))<<3|uint64(v.kind))
	for i := range v.kids {
		k := &v.kids[i]
		if v.kind == object {
			out = binary.AppendUvarint(out, uint64(len(k.key)))
			out = append(out, k.key...)
		}
		out = e.append(out, k)
	}
	return out
}

// decode reads the stored form.
func decode(stored []byte) (*document, error) {
	d := decoder{s: string(stored)}
	if len(d.s) == 0 || d.s[0] != storedVersion {
		return nil, errStored
	}
	d.i = 1
	values := d.uvarint()
	d.newest = int64(d.uvarint())
	sections := d.byte()
	if d.bad || values > uint64(len(d.s)) || sections > 3 || d.newest < 0 {
		return nil, errStored
	}
	d.arena = make([]value, 0, values)
	doc := &document{}
	if sections&1 != 0 {
		doc.desired = d.section("desired")
	}
	if sections&2 != 0 {
		doc.reported = d.section("reported")
	}
	if d.bad || d.i != len(d.s) {
		return nil, errStored
	}
	return doc, nil
}

type decoder struct {
	s      string
	i      int
	newest int64
	depth  int
	arena  []value
	bad    bool
}

func (d *decoder) section(key string) *value {
	room := d.room(1)
	if d.bad {
		return nil
	}
	v := &room[0]
	if d.value(v); v.kind != object {
		d.bad = true
	}
	v.key = key
	return v
}

func (d *decoder) byte() byte {
	if d.i >= len(d.s) {
		d.bad = true
		return 0
	}
	d.i++
	return d.s[d.i-1]
}

func (d *decoder) uvarint() uint64 {
	var x uint64
	for shift := 0; shift < 64; shift += 7 {
		b := d.byte()
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return x
		}
	}
	d.bad = true
	return 0
}

func (d *decoder) text(n uint64) string {
	if n > uint64(len(d.s)-d.i) {
		d.bad = true
		return ""
	}
	d.i += int(n)
	return d.s[d.i-int(n) : d.i]
}

// room reserves n values side by side.
func (d *decoder) room(n uint64) []value {
	at := len(d.arena)
	if n > uint64(cap(d.arena)-at) {
		d.bad = true
		return nil
	}
	d.arena = d.arena[:at+int(n)]
	return d.arena[at : at+int(n) : at+int(n)]
}

func (d *decoder) value(v *value) {
	head := d.uvarint()
	v.kind = kind(head & 7)
	if d.bad || v.kind == null || v.kind > array {
		d.bad = true
		return
	}
	if v.leaf() {
		v.text = d.text(head >> 3)
		v.time = d.newest - int64(d.uvarint())
		if len(v.text) == 0 {
			d.bad = true
		}
		return
	}
	if d.depth++; d.depth > maxNesting {
		d.bad = true
	}
	v.kids = d.room(head >> 3)
	for i := range v.kids {
		if d.bad {
			break
		}
		if v.kind == object {
			v.kids[i].key = d.text(d.uvarint())
		}
		d.value(&v.kids[i])
	}
	d.depth--
}
