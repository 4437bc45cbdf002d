package sql

import (
	"context"
	"unicode/utf8"

	"flotilla/internal/mqtt"
)

// Bounds of one evaluation.
const (
	maxSteps  = 250_000 // rows, elements, function calls; long texts count more
	maxString = 1 << 20 // bytes of one value as text, and of the output
	maxBuilt  = 8 << 20 // bytes of all values built
	maxFrames = 32      // kept for a message, besides those with variables
)

// cache is what Input keeps between statements.
type cache struct {
	text  string // the payload
	state payloadState
	topic string // what topic() shows
	known bool   // topic is set

	frames []*frame
	one    [1]*frame // frames while there is one
	first  frame     // the first of frames, without an allocation

	steps, bytes int
	err          error
}

type payloadState uint8

const (
	unseen payloadState = iota
	notUTF8
	readable // valid UTF-8
)

// begin prepares the cache for one evaluation.
func (in *Input) begin() {
	in.cache.steps, in.cache.bytes, in.cache.err = maxSteps, maxBuilt, nil
}

// frame is the frame of a program for this message; it keeps what has been read and
// the values of the program's variables.
func (in *Input) frame(p *program) *frame {
	c := &in.cache
	for i := len(c.frames) - 1; i >= 0; i-- {
		if c.frames[i].prog == p {
			return c.frames[i]
		}
	}
	f := &c.first
	switch {
	case c.frames == nil:
		c.one[0] = f
		c.frames = c.one[:]
	case len(c.frames) < maxFrames || len(p.vars) > 0:
		f = new(frame)
		c.frames = append(c.frames, f)
	default:
		f = new(frame)
	}
	f.prog, f.in = p, in
	if p.slots <= len(f.inline) {
		f.slots = f.inline[:p.slots]
	} else {
		f.slots = make([]slot, p.slots)
	}
	if p.rows > 0 {
		f.rows = make([]value, p.rows)
	}
	if len(p.vars) > 0 {
		f.vars = make([]variable, len(p.vars))
	}
	return f
}

// frame is a program at work on one message.
type frame struct {
	prog    *program
	in      *Input
	slots   []slot // what the program reads of the payload, by pathNode.slot
	inline  [4]slot
	scanned bool
	json    bool // the payload is JSON; known once scanned
	whole   slot // the payload
	rows    []value
	vars    []variable
}

// slot is a place of the payload; raw is empty when there is nothing.
type slot struct {
	raw  string
	val  value
	done bool // val is set
}

type variable struct {
	val  value
	done bool
}

func (f *frame) fail(err error) {
	if f.in.cache.err == nil {
		f.in.cache.err = err
	}
}

func (f *frame) failed() bool { return f.in.cache.err != nil }

// spend takes steps from the budget; it is false when none are left.
func (f *frame) spend(n int) bool {
	f.in.cache.steps -= n
	if f.in.cache.steps < 0 {
		f.fail(ErrBudget)
	}
	return f.in.cache.err == nil
}

// fits tells whether a text may have n bytes.
func (f *frame) fits(n int) bool {
	if n > maxString {
		f.fail(ErrBudget)
	}
	return f.in.cache.err == nil
}

// built takes the bytes of a new text from the budget; it is empty when they were too many.
func (f *frame) built(s string) string {
	f.in.cache.bytes -= len(s)
	if f.in.cache.bytes < 0 || len(s) > maxString {
		f.fail(ErrBudget)
		return ""
	}
	return s
}

func (f *frame) context() context.Context {
	if f.in.Context == nil {
		return context.Background()
	}
	return f.in.Context
}

// payload is the payload as text, readable as UTF-8 when ok.
func (in *Input) payload() (text string, ok bool) {
	c := &in.cache
	if c.state == unseen {
		c.text = string(in.Payload)
		c.state = notUTF8
		if utf8.ValidString(c.text) {
			c.state = readable
		}
	}
	return c.text, c.state == readable
}

// scan finds what the program reads in the payload.
func (f *frame) scan() {
	f.scanned = true
	text, ok := f.in.payload()
	if !ok {
		return
	}
	p := scanner{s: text}
	p.space()
	start := p.i
	if p.i < len(text) && text[p.i] == '{' {
		ok = p.object(&f.prog.root, f.slots)
	} else {
		ok = p.skip()
	}
	end := p.i
	p.space()
	if !ok || p.i != len(text) {
		clear(f.slots)
		return
	}
	f.json = true
	f.whole.raw = text[start:end]
}

// read is the value of a slot.
func (f *frame) read(i int) value {
	if !f.scanned {
		f.scan()
	}
	return f.slots[i].value(f.prog.whole)
}

// star is the whole payload, Undefined when it is not JSON.
func (f *frame) star() value {
	if !f.scanned {
		f.scan()
	}
	return f.whole.value(f.prog.whole)
}

func (s *slot) value(whole bool) value {
	if s.raw == "" {
		return value{}
	}
	if !s.done {
		s.val, s.done = fromJSON(s.raw, whole), true
	}
	return s.val
}

// variable is a SET variable of a program, evaluated at its first use.
func (f *frame) variable(owner *program, i int) value {
	if f.prog != owner {
		f = f.in.frame(owner)
	}
	v := &f.vars[i]
	if !v.done {
		v.val = owner.vars[i].eval(f)
		v.done = true
	}
	return v.val
}

// topic is the topic without a Basic Ingest prefix.
func (in *Input) topic() string {
	if c := &in.cache; !c.known {
		c.topic, c.known = in.Topic, true
		if _, rest, ok := mqtt.BasicIngest(in.Topic); ok {
			c.topic = rest
		}
	}
	return in.cache.topic
}
