// Package mesh is how nodes talk: who is there, what each is interested in, and
// messages on their way to other nodes' connected clients, over core NATS.
//
// # Members
//
// A node says every 500 ms that it is there. Who is silent for 2.5 s is dropped:
// its interest is forgotten, and what was on its way to it ends with ErrGone. A
// node that is heard again joins anew. A node that restarts has a new incarnation,
// by which it is told from what it was.
//
// # Links
//
// From each node to each other there is a link: a numbered sequence of frames, each
// with many records, that the receiver acknowledges cumulatively. Core NATS sheds
// under overload and loses what is in flight on a reconnect, so frames are sent again
// after a gap or a silence; the receiver takes them in order, each once. A link
// begins with everything that the sender is interested in. When a side has forgotten
// the other, the link begins again, and what was not acknowledged follows once more:
// within one link nothing arrives twice, over a restart of a link it may. The bytes of
// messages on a link are bounded (Config.MaxInFlight); beyond them Send refuses.
//
// # Interest
//
// Nodes announce the filters of their connected clients that no queue serves: of
// filters without wildcards only a 64-bit hash, so that a million cost some 40 MB a
// node, of the others the text. Announce returns once all peers know, so that a SUBACK
// may follow. A hash that two filters share costs a message that nobody wants, never
// one that is missing.
//
// # Questions
//
// What a node wants to know of another it asks by a request on the other's subject,
// beside the links: it is answered once or not at all, by a deadline. Questions,
// answers and how many are worked on at a time are bounded; beyond that the other node
// says at once that it is busy.
//
// # Trust
//
// Whoever has the credentials of NATS can speak as a node. What comes in is
// nevertheless held against its lengths and bounds before it is believed.
package mesh
