// Package authorizer lets connections in that a function of the operator's vouches for.
//
// A custom authorizer is a name for such a function, with the public keys that sign tokens. It is asked at connect,
// in place of a certificate:
//
//	device ── name, token, signature ──►  which authorizer?     named by the request, else the domain
//	          user name, password                               configuration's default, else the account's
//	                                          │ ACTIVE
//	                                          ▼
//	                                      signature of token?   RSA PKCS #1 v1.5, SHA-256; unless signing is disabled
//	                                          │                 nothing is called for a token that nobody signed
//	                                          ▼
//	                                      function, 5 s         one JSON document in, one out
//	                                          │
//	                                          ▼
//	                                      Result                principal, policies, how long they hold
//
// [Authorizers.Authenticate] is that walk. Its Result governs the connection by itself: policies come from the answer
// and are compiled once; they are asked for again by [Authorizers.Refresh] when RefreshAfter has passed, and the
// connection ends when DisconnectAfter has. What goes wrong is a [RefusedError] for the operator; the stranger is told
// nothing.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-authentication.html
package authorizer
