package gateway

import "runtime/debug"

// tidy gives the memory of handshakes back once a storm of connects is over. A TLS handshake leaves
// several times what the connection keeps; in an idle process the collector would not
// look at it for minutes.
type tidy struct {
	seen int64 // connects at the last look
	done int64 // connects when memory was last given back
}

// tidyAfter is how many connects are worth it, unless a quarter of the connections is more.
const tidyAfter = 1000

// check is called every second with the number of connects so far, and of connections.
func (t *tidy) check(connects, connected int64) {
	quiet := connects == t.seen
	t.seen = connects
	if quiet && connects-t.done >= max(tidyAfter, connected/4) {
		t.done = connects
		debug.FreeOSMemory()
	}
}
