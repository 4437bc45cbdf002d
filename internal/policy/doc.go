// Package policy keeps IoT policies and decides by them.
//
// A Policy has up to five immutable PolicyVersions, one of them the default, which is in force. It is attached to
// targets: certificates and thing groups. What governs a connection is the union of the policies of its certificate
// and of the groups (and their parents) of the things attached to that certificate; package lang evaluates it.
//
// [Policies.Open] gives a connection its [lang.Authorizer]. Decisions are cached per connection; every change of a
// policy, an attachment, a thing or a certificate raises a generation counter, so that the next decision looks
// whether the change concerns its connection and, if so, reads the policies again. See [Policies.Changed].
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-policies.html
package policy
