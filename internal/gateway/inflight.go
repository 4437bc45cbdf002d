package gateway

// inflight gives packet identifiers to QoS 1 messages on their way to a client, and
// remembers what is unacknowledged. Identifiers go round from 1 to 65,535; a client that
// leaves an early one unanswered stops the window when it has gone once round the ring.
// The zero value, with limit set, is ready.
type inflight struct {
	limit int
	base  uint32  // count of the oldest identifier in use
	next  uint32  // count of the next one
	n     int     // unacknowledged
	ring  []int64 // by count; 0 free, else the message
}

// clean marks a message that no queue knows; less are direct messages that wait for their
// confirmation.
const clean = -1

func identifier(count uint32) uint16 { return uint16(count%65535) + 1 }

// room tells whether another message may be sent.
func (f *inflight) room() bool { return f.n < f.limit && int(f.next-f.base) < f.span() }

func (f *inflight) span() int { return min(65535, max(2*f.limit, 64)) }

// take gives an identifier to a message: its id in the queue, or clean. There must be room.
func (f *inflight) take(message int64) uint16 {
	if int(f.next-f.base) >= len(f.ring) {
		f.grow()
	}
	count := f.next
	f.ring[int(count)&(len(f.ring)-1)] = message
	f.next++
	f.n++
	return identifier(count)
}

// grow doubles the ring, whose size is a power of two.
func (f *inflight) grow() {
	ring := make([]int64, max(8, 2*len(f.ring)))
	for count := f.base; count != f.next; count++ {
		ring[int(count)&(len(ring)-1)] = f.ring[int(count)&(len(f.ring)-1)]
	}
	f.ring = ring
}

// ack frees an identifier and returns its message; 0 when it is not in use.
func (f *inflight) ack(id uint16) int64 {
	ahead := (uint32(id) - 1 + 65535 - f.base%65535) % 65535
	if id == 0 || ahead >= f.next-f.base {
		return 0
	}
	slot := &f.ring[int(f.base+ahead)&(len(f.ring)-1)]
	message := *slot
	if message == 0 {
		return 0
	}
	*slot = 0
	f.n--
	for f.base != f.next && f.ring[int(f.base)&(len(f.ring)-1)] == 0 {
		f.base++
	}
	if f.n == 0 && len(f.ring) > 64 {
		f.ring = nil // an idle client holds none
	}
	return message
}
