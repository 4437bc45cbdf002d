package doc

import "strconv"

// Outcome is what an accepted update leads to. The slices are the caller's.
type Outcome struct {
	// Version is the document's new version.
	Version int64
	// Stored is the new document as the store keeps it.
	Stored []byte
	// Accepted is the body of update/accepted and of the HTTP response: the
	// sections sent, their metadata, version, timestamp, clientToken.
	Accepted []byte
	// Delta is the body of update/delta; nil when nothing differs.
	Delta []byte
	// Documents is the body of update/documents; nil when it was not asked for.
	Documents []byte
}

// Apply makes the update on a document.
//
//	stored    the document's stored form; nil when the shadow does not exist
//	version   its version; that of the deleted one if it was deleted lately; else 0
//
// An update that names a version is taken only when it is the document's; of a
// shadow that does not exist it may name the last or the first to come.
// Documents is the largest of the bodies, and is made only on request. Errors:
// ErrVersionConflict, ErrTooLarge, or a damaged stored form. u can be applied
// again; stored is not kept.
func Apply(stored []byte, version int64, u *Update, documents bool) (*Outcome, error) {
	exists := stored != nil
	if u.hasVersion && u.version != version && (exists || u.version != version+1) {
		return nil, ErrVersionConflict
	}
	d := &document{}
	if exists {
		var err error
		if d, err = decode(stored); err != nil {
			return nil, err
		}
	}
	out := &Outcome{Version: version + 1}

	// The previous state is written before the merge changes it.
	w := writer{}
	patchSize, patchLeaves := sizes(&u.state)
	if documents {
		before, leaves := d.size()
		w.buf = make([]byte, 0, 2*before+patchSize+(2*leaves+patchLeaves)*metadataBytes+160+len(u.Token))
		w.raw("{")
		if exists {
			w.raw(`"previous":`)
			w.document(d, nil)
			w.raw(`,"version":`)
			w.int(version)
			w.raw("},")
		}
	}
	d.merge(u)
	after, _ := d.size()
	if after > u.limits.Bytes {
		return nil, ErrTooLarge
	}
	if documents {
		w.raw(`"current":`)
		w.document(d, nil)
		w.raw(`,"version":`)
		w.int(out.Version)
		w.raw(`},"timestamp":`)
		w.int(u.now)
		w.token(u.Token)
		out.Documents = w.buf
	}

	w.buf = make([]byte, 0, patchSize+patchLeaves*metadataBytes+112+len(u.Token))
	w.raw(`{"state":`)
	w.state(&u.state)
	w.raw(`,"metadata":`)
	w.metadata(&u.state)
	w.end(out.Version, u.now, u.Token)
	out.Accepted = w.buf

	if delta := d.delta(); delta != nil {
		size, leaves := sizes(delta)
		w.buf = make([]byte, 0, size+leaves*metadataBytes+112+len(u.Token))
		w.raw(`{"version":`)
		w.int(out.Version)
		w.raw(`,"timestamp":`)
		w.int(u.now)
		w.raw(`,"state":`)
		w.state(delta)
		w.raw(`,"metadata":`)
		w.metadata(delta)
		w.token(u.Token)
		out.Delta = w.buf
	}
	out.Stored = d.encode()
	return out, nil
}

// Get returns the body of get/accepted and of the HTTP response in second now:
// state with desired, reported and delta as far as they exist, metadata of the
// first two, version, timestamp, clientToken.
func Get(stored []byte, version, now int64, t Token) ([]byte, error) {
	d, err := decode(stored)
	if err != nil {
		return nil, err
	}
	size, leaves := d.size()
	w := writer{buf: make([]byte, 0, 2*size+leaves*metadataBytes+128+len(t))}
	w.document(d, d.delta())
	w.end(version, now, t)
	return w.buf, nil
}

// Deleted returns the body of delete/accepted and of the HTTP response; version
// is that of the deleted document.
func Deleted(version, now int64, t Token) []byte {
	w := writer{buf: make([]byte, 0, 72+len(t))}
	w.raw(`{"version":`)
	w.int(version)
	w.raw(`,"timestamp":`)
	w.int(now)
	w.token(t)
	return w.buf
}

// Rejected returns the body of a …/rejected message.
func Rejected(code int, message string, now int64, t Token) []byte {
	w := writer{buf: make([]byte, 0, 80+len(message)+len(t))}
	w.raw(`{"code":`)
	w.int(int64(code))
	w.raw(`,"message":"`)
	for _, r := range message {
		w.buf = appendEscaped(w.buf, r)
	}
	w.raw(`","timestamp":`)
	w.int(now)
	w.token(t)
	return w.buf
}

// metadataBytes is about what one leaf takes in metadata beyond its key.
const metadataBytes = len(`{"timestamp":1700000000},`)

// sizes returns the length of v as JSON, and with that of its keys again the
// base of an estimate of its metadata; and the number of its leaves.
func sizes(v *value) (bytes, leaves int) {
	size := stateSize(v)
	return size + keys(v, &leaves), leaves
}

func keys(v *value, leaves *int) int {
	n := 2
	for i := range v.kids {
		n += len(v.kids[i].key) + 4 + keys(&v.kids[i], leaves)
	}
	if v.leaf() {
		*leaves++
	}
	return n
}

// size is the length of the document's state as JSON, and its leaves.
func (d *document) size() (bytes, leaves int) {
	bytes = len(`{}`)
	for i, s := range [2]*value{d.desired, d.reported} {
		if s != nil {
			keys(s, &leaves)
			bytes += stateSize(s) + len(`"reported":,`)*i + len(`"desired":`)*(1-i)
		}
	}
	if d.desired == nil && d.reported != nil {
		bytes-- // no comma
	}
	return bytes, leaves
}

// stateSize is the length of v as compact JSON.
func stateSize(v *value) int {
	if v.leaf() {
		return len(v.text)
	}
	n := 2 + max(0, len(v.kids)-1)
	for i := range v.kids {
		if v.kind == object {
			n += len(v.kids[i].key) + 3
		}
		n += stateSize(&v.kids[i])
	}
	return n
}

// writer appends JSON.
type writer struct {
	buf   []byte
	stamp []byte // the metadata of a leaf written in second at
	at    int64
}

func (w *writer) raw(s string) { w.buf = append(w.buf, s...) }
func (w *writer) int(n int64)  { w.buf = strconv.AppendInt(w.buf, n, 10) }
func (w *writer) key(v *value) {
	w.buf = append(w.buf, '"')
	w.buf = append(w.buf, v.key...)
	w.buf = append(w.buf, '"', ':')
}

// document writes `{"state":{…},"metadata":{…}` and leaves it open.
func (w *writer) document(d *document, delta *value) {
	w.raw(`{"state":{`)
	w.sections(d, delta, w.state)
	w.raw(`},"metadata":{`)
	w.sections(d, nil, w.metadata)
	w.raw(`}`)
}

func (w *writer) sections(d *document, delta *value, write func(*value)) {
	comma := ""
	for i, s := range [3]*value{d.desired, d.reported, delta} {
		if s == nil {
			continue
		}
		w.raw(comma)
		w.raw([3]string{`"desired":`, `"reported":`, `"delta":`}[i])
		write(s)
		comma = ","
	}
}

// end writes version, timestamp and token and closes the object.
func (w *writer) end(version, now int64, t Token) {
	w.raw(`,"version":`)
	w.int(version)
	w.raw(`,"timestamp":`)
	w.int(now)
	w.token(t)
}

func (w *writer) token(t Token) {
	if t != "" {
		w.raw(`,"clientToken":`)
		w.raw(string(t))
	}
	w.raw("}")
}

func (w *writer) state(v *value) {
	switch v.kind {
	case object:
		w.buf = append(w.buf, '{')
		for i := range v.kids {
			if i > 0 {
				w.buf = append(w.buf, ',')
			}
			w.key(&v.kids[i])
			w.state(&v.kids[i])
		}
		w.buf = append(w.buf, '}')
	case array:
		w.buf = append(w.buf, '[')
		for i := range v.kids {
			if i > 0 {
				w.buf = append(w.buf, ',')
			}
			w.state(&v.kids[i])
		}
		w.buf = append(w.buf, ']')
	default:
		w.buf = append(w.buf, v.text...)
	}
}

// metadata writes the shape of v with each leaf's time in its place.
func (w *writer) metadata(v *value) {
	switch v.kind {
	case object:
		w.buf = append(w.buf, '{')
		for i := range v.kids {
			if i > 0 {
				w.buf = append(w.buf, ',')
			}
			w.key(&v.kids[i])
			w.metadata(&v.kids[i])
		}
		w.buf = append(w.buf, '}')
	case array:
		w.buf = append(w.buf, '[')
		for i := range v.kids {
			if i > 0 {
				w.buf = append(w.buf, ',')
			}
			w.metadata(&v.kids[i])
		}
		w.buf = append(w.buf, ']')
	default:
		if w.stamp == nil || w.at != v.time {
			w.at = v.time
			w.stamp = strconv.AppendInt(append(w.stamp[:0], `{"timestamp":`...), v.time, 10)
			w.stamp = append(w.stamp, '}')
		}
		w.buf = append(w.buf, w.stamp...)
	}
}
