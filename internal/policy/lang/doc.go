// Package lang is the AWS IoT policy language: it parses, validates and evaluates policy documents.
//
// A document is checked by [Parse], compiled with others by [Compile] into a [Set], and asked through
// [Set.Evaluate] whether one connection may do one action on one resource. The answer is a [Decision] that
// names the policy and the statement behind it, so that a denial can be explained to the operator.
//
// The package is pure: no I/O, no clock, no goroutine. A [Set] is immutable and safe for concurrent use.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-policies.html
package lang
