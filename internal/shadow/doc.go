// Package shadow keeps the shadows of things: JSON documents of what a thing
// should be (desired) and says it is (reported).
//
// A thing has one classic shadow and any number of named ones. They are read
// and written over HTTP (the API operations, which are methods of Shadows) and
// over MQTT (ServeMQTT):
//
//	$aws/things/T/shadow[/name/S]/get      answered on …/accepted | …/rejected
//	$aws/things/T/shadow[/name/S]/update   answered, then …/delta if desired and reported differ, …/documents
//	$aws/things/T/shadow[/name/S]/delete   answered
//
// Every write raises the version by one, in a transaction that sees one state of
// the store (those that wait together share their statements), and is answered
// once it is on stable storage together with what its messages owe to absent
// subscribers. The messages of one shadow leave this node in the order of
// its versions. A deleted shadow leaves its version behind for 48 hours, so that
// a successor counts on.
//
// A client that was away finds the last delta alone, and none if nothing differs any
// more (Config.EveryDelta).
//
// The last changes of a shadow's desired state are kept: who changed what when
// (ListShadowHistory, RestoreShadow; not AWS's).
//
// The arithmetic of documents is in the subpackage doc.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-device-shadows.html
package shadow
