// Package lint finds in IoT policies what allows too much, what can never match, and what was probably meant otherwise.
//
// [Document] checks one policy document and returns [Finding]s: a rule, its severity, the statement and the resource,
// the reason and the fix. [Rules] lists the rules. A finding is advice: nothing here decides about an action.
//
// The package is pure: no I/O, no clock, no goroutine.
//
// AWS: https://docs.aws.amazon.com/iot-device-defender/latest/devguide/audit-chk-iot-policy-permissive.html,
// https://docs.aws.amazon.com/iot-device-defender/latest/devguide/audit-chk-iot-misconfigured-policies.html
package lint
