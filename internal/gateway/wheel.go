package gateway

// wheel holds connections by the second in which they are to be looked at. Arming costs a few
// pointers and no timer. The zero value is ready.
type wheel struct {
	at    int64 // the last second that was advanced to
	slots [2048]*Connection
}

// arm puts c into the slot of a second, taking it from the one it was in. Seconds further
// than the wheel's round are cut: c is then looked at early, and armed again.
func (w *wheel) arm(c *Connection, second int64) {
	w.disarm(c)
	if second <= w.at {
		second = w.at + 1
	}
	if w.at > 0 && second-w.at >= int64(len(w.slots)) {
		second = w.at + int64(len(w.slots)) - 1
	}
	i := int(second % int64(len(w.slots)))
	c.slot = int16(i)
	c.armed = true
	c.wheelNext, c.wheelPrev = w.slots[i], nil
	if c.wheelNext != nil {
		c.wheelNext.wheelPrev = c
	}
	w.slots[i] = c
}

func (w *wheel) disarm(c *Connection) {
	if !c.armed {
		return
	}
	if c.wheelPrev != nil {
		c.wheelPrev.wheelNext = c.wheelNext
	} else {
		w.slots[c.slot] = c.wheelNext
	}
	if c.wheelNext != nil {
		c.wheelNext.wheelPrev = c.wheelPrev
	}
	c.armed, c.wheelNext, c.wheelPrev = false, nil, nil
}

// advance calls due for every connection of the seconds up to now, disarmed.
func (w *wheel) advance(now int64, due func(*Connection)) {
	if w.at == 0 || now-w.at > int64(len(w.slots)) {
		w.at = now - int64(len(w.slots))
	}
	for w.at < now {
		w.at++
		i := w.at % int64(len(w.slots))
		for c := w.slots[i]; c != nil; c = w.slots[i] {
			w.disarm(c)
			due(c)
		}
	}
}
