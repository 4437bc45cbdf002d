package mqtt

import "context"

// Handler serves messages on reserved topics. It returns once what it acknowledges is
// durable; its error is for the log, the client hears of failures on a topic of the
// room's. It must not write to the message and is called from several goroutines.
type Handler func(ctx context.Context, m *Message) error

// Mux finds the handler of a reserved topic. Handle is for wiring time; Match is safe
// for concurrent use afterwards. The zero value is empty and ready.
type Mux struct{ entries []muxEntry }

type muxEntry struct {
	filter  string
	handler Handler
}

// Handle has h serve the topics that filter matches. The first filter that matches a
// topic wins. It panics on an invalid filter, which is a mistake in the wiring.
func (m *Mux) Handle(filter string, h Handler) {
	if err := ValidTopicFilter(filter); err != nil {
		panic("mqtt: " + filter + ": " + err.Error())
	}
	m.entries = append(m.entries, muxEntry{filter, h})
}

// Match returns the handler of a topic.
func (m *Mux) Match(topic string) (Handler, bool) {
	for i := range m.entries {
		if Match(m.entries[i].filter, topic) {
			return m.entries[i].handler, true
		}
	}
	return nil, false
}
