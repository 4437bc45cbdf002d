package gateway

import (
	"math/bits"
	"sync"
)

// buffers recycles byte slices by size class, 512 B to 512 KiB; larger ones are left to the
// collector.
type buffers struct{ classes [11]sync.Pool }

const minBufferBits = 9

// get gives an empty slice with room for at least n bytes.
func (p *buffers) get(n int) []byte {
	class := max(0, bits.Len(uint(max(n, 1)-1))-minBufferBits)
	if class >= len(p.classes) {
		return make([]byte, 0, n)
	}
	if b, _ := p.classes[class].Get().(*[]byte); b != nil {
		return (*b)[:0]
	}
	return make([]byte, 0, 1<<(class+minBufferBits))
}

// put takes a slice back; the caller must not use it any more.
func (p *buffers) put(b []byte) {
	if cap(b) < 1<<minBufferBits {
		return
	}
	class := bits.Len(uint(cap(b))) - 1 - minBufferBits
	if class >= len(p.classes) {
		return
	}
	b = b[:0]
	p.classes[class].Put(&b)
}
