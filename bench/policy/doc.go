// Package policybench decides one question in Flotilla's policy language, in Open Policy Agent's Rego and in Cedar, each
// as a Go library, and measures it. It is a module of its own, in a workspace with the project's, so that neither engine
// enters the project's go.mod. Run it with make bench-policy.
package policybench
