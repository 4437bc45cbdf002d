// Package environment runs the execution environments of functions: processes of this machine that speak the Lambda
// Runtime API, so that custom runtimes and their bootstraps run as they do in Lambda.
//
//	Pool (one a version of a function)
//	  Invoke ── a warm process, or a new one, or a place in the queue
//	                │
//	  process ──── its own listener on loopback: GET next, POST response | error | init/error    (runtime_api.go)
//	     │          one invocation at a time; killed with its process group at the timeout, when it grows too large,
//	     │          when it was idle for long, and at the end
//	     └── stdout, stderr ── Log of the function, and the tail of the invocation                 (log.go)
//
// # What confines a function
//
// A process runs as the user of the server. It gets the variables that Lambda documents, those of the function, and
// nothing of the server's environment; it inherits no file. Its Runtime API takes connections of its own user alone
// (peer.go). Memory is looked at four times a second; open files and the size of a file are bounded by resource
// limits. There is no wall around the file system or the network: who may create functions may do what that user may.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
package environment
