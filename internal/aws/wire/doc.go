// Package wire reads and writes the bodies of AWS's rest-json protocol for
// generated code.
//
// A [Decoder] walks a JSON document once: generated code switches on the names
// of members, the decoder keeps the path to the value at hand and holds each
// value against the constraints of its shape ([Text], [Number], [Size]). All
// violations are reported together, in the words of AWS ([ConstraintError]); what is
// not JSON, or has a value of another type, ends the walk ([SyntaxError]).
//
// Protocol: https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html
package wire
