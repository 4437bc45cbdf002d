// Package sql is the SQL of AWS IoT rules: it parses and evaluates statements and substitution templates.
//
//	SET @t = (temperature - 32) * 5 / 9
//	SELECT @t AS celsius, topic(2) AS site FROM 'a/+/b' WHERE @t > 20
//
// [Parse] compiles the text of a rule into a [Statement], immutable and safe for concurrent use;
// [Statement.Evaluate] runs it on one message. The package is pure: the clock, random numbers and
// other systems come in through [Input].
//
// # For who runs rules
//
// FROM. [Statement.From] is the topic filter, empty when the statement has none (a rule that only Basic
// Ingest feeds). Evaluate does not look at it: a rule is found by its filter in the caller's trie, or by
// [Statement.Matches], which knows Basic Ingest topics and the empty filter. Input.Topic is the topic as
// published; topic() hides the Basic Ingest prefix.
//
// Blocking. [Statement.MayBlock] tells that the statement calls functions that read other systems
// (aws_lambda, get_thing_shadow, get_registry_data, get_dynamodb, get_secret, machinelearning_predict,
// decode with a Protobuf schema). Only such a statement uses Input.Context and Input.External, and only
// it may block. [Template.MayBlock] tells the same of a template. A function whose implementation in
// [External] is nil or fails is Undefined, as in AWS; Input.Failed hears why.
//
// Results. Evaluate returns an [Output], whether the message was selected, and an error.
//
//   - selected is false, with a nil error, when WHERE is anything but true (false, Undefined, Null, a
//     number): no action runs.
//   - Output.Payload is the outgoing payload. It aliases Input.Payload for a bare SELECT *, so neither
//     may be written to. Output.JSON tells whether it is a JSON text: all results are, except the raw
//     bytes of SELECT * on a payload that is not JSON, and the empty payload of SELECT VALUE x when x is
//     Undefined.
//   - An Undefined column is left out of the object, a Null one is kept.
//
// Errors. What AWS calls Undefined is no error: wrong types, missing keys, invalid arguments, division
// by zero, payloads that are not JSON. A [*RuntimeError] means that the message can not be processed by
// this rule, at most once per evaluation, never by chance: [ErrBudget] (too many steps, too much output,
// too deep), [ErrPayload] (* is merged with other columns, but the payload is not a JSON object),
// [ErrCalls] (get_dynamodb more than once) or the end of Input.Context. Log it; no action runs and no error action either, as in AWS.
//
// Templates. [Statement.ParseTemplate] compiles an action's field when the rule is created: a [*ParseError]
// there means the rule is invalid. [Template.Expand] sees the original payload and the SET variables of the
// statement, not its aliases. An Undefined value expands to nothing, Null to "null", an array or object to
// its compact JSON. Expand fails only with a [*RuntimeError].
//
// One [Input] serves all rules and templates for one message: it keeps the parsed payload and the
// values of SET variables, so that external functions in SET are called once per rule and message.
//
// # Where the documentation leaves room
//
// Regular expressions are RE2: what Java has beyond it (lookaround, back references) is an invalid
// expression and so Undefined. Int / Int is an Int; fractions are rounded down wherever an Int is needed.
// Names in a nested query are members of the row or aliases, never of the payload. A column without
// alias is named by the last name of its path, or by its text. != is <>; a doubled quote in a string
// stands for itself. Undefined elements of arrays are left out.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-reference.html
package sql
