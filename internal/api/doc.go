// Package api is the HTTP door of the AWS APIs.
//
// A request passes these steps, in [Server.ServeHTTP]:
//
//	signature   SigV4, in the header or the query, gives the access key (sigv4.go, canonical.go)
//	body        read whole within a limit and a deadline, and proved by the signature
//	route       the service of the credential scope, then the method and the escaped path (route.go)
//	permission  the IAM policies of the key's identity, on each resource that the request names (authorize.go, resource.go)
//	decode      the generated shape and its constraints (aws.Operation)
//	handler     the method of a room that [Handle] plugged in
//	answer      the encoded response, or the exception, however deep it was made (answer.go)
//
// Devices come in by [Server.Device] with a client certificate instead of a
// signature; each operation is decided by the IoT policies of the certificate
// before it is decoded.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
package api
