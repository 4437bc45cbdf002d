// Package doc is the arithmetic of shadow documents: what an update makes of a
// document, and the bodies that tell the world.
//
// A document has two sections, desired and reported, each a tree of JSON
// values; every leaf carries the second in which it was last written. An update
// names some leaves and leaves the others alone:
//
//	object    merged member by member
//	null      removes the member, or the whole section
//	array     a value like any other: replaced whole, never holds null
//	{}        adds an empty object, removes nothing
//
// The delta is what desired holds and reported lacks or has otherwise. Numbers
// compare by value (1 is 1.0) and are kept to the digit; member order is the
// order of arrival, so equal histories give equal bytes.
//
// Nothing here does I/O, reads a clock or keeps a reference to what it was
// given.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-document.html,
// device-shadow-mqtt.html, device-shadow-data-flow.html, device-shadow-error-messages.html
package doc
