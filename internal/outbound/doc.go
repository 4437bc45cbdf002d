// Package outbound is the HTTP client for addresses that users of the API name.
//
// Whoever may create a rule or a subscription names a URL, and the server sends a request there: from inside the
// network that the server is in. So requests go by https to public addresses at ports 443 and 8443 only, unless the
// operator says otherwise; the address is checked when the connection is made, after the name is resolved, so a name
// that resolves to something else the second time gains nothing. Redirects are not followed, no proxy is asked, and
// answers are bounded in size and time.
package outbound
