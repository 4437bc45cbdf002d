// Package ticket keeps the keys of TLS session tickets in the store, so that a device resumes its session after a
// restart of the server, and at any node.
//
//	secrets     32 random bytes a period of twelve hours; the present one encrypts, it and two before it decrypt: a ticket
//	            is good for 24 to 36 hours. Older ones are deleted, and with them all chance to open what was recorded
//	new ones    are made three hours before their period, by whichever node is first, and read by all others meanwhile: no
//	            node meets a ticket of another whose key it does not know
//	purposes    no listener uses a secret itself: [Set.For] derives keys for a purpose, such as a domain configuration with
//	            the way in which its clients authenticate. A ticket of one purpose means nothing for another
//
// A ticket proves that its holder has once shown the client certificate in it and proved its key, no more. Whether the
// certificate may connect is asked at each CONNECT and request, of a resumed session as of any other.
//
// docs/adr/0009-session-tickets.md
package ticket
