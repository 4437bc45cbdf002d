// Package template parses provisioning templates and resolves them into plans.
//
// A provisioning template is a JSON document with the sections Parameters,
// Mappings, Resources (one thing at most, one certificate at most, policies)
// and DeviceConfiguration. Values may be computed by the intrinsic functions
// Ref, Fn::Join, Fn::Select, Fn::FindInMap, Fn::Split and Fn::Sub.
//
//	body --Parse--> Template --Resolve(parameters, certificate)--> Plan
//
// A Plan is plain text: which thing, with what attributes, groups and type;
// which certificate, from what, in which status; which policies; what
// configuration the device is told. What of it exists already, and therefore
// what OverrideSettings mean, is for who carries the plan out.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/provision-template.html
package template
