package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"flotilla/internal/aws"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	basicISO  = "20060102T150405Z"

	maxAuthorization = 8 << 10
	maxSignedHeaders = 128
	maxExpires       = 7 * 24 * time.Hour
	maxSigningKeys   = 1024
)

// signature is what a request says of who signed it, and how.
type signature struct {
	keyID, date, region, service string // the credential and its scope
	signedHeaders                []string
	time                         time.Time
	timeText                     string        // as in X-Amz-Date
	expires                      time.Duration // of a presigned URL; 0 = none
	mac                          [sha256.Size]byte
	presigned                    bool
}

func incomplete(format string, args ...any) error {
	return &aws.CommonError{Status: http.StatusForbidden, Code: "IncompleteSignatureException", Message: fmt.Sprintf(format, args...)}
}

func invalidSignature(format string, args ...any) error {
	return &aws.CommonError{Status: http.StatusForbidden, Code: "InvalidSignatureException", Message: fmt.Sprintf(format, args...)}
}

func unrecognizedClient() error {
	return &aws.CommonError{Status: http.StatusForbidden, Code: "UnrecognizedClientException", Message: "The security token included in the request is invalid."}
}

var errMissingToken = &aws.CommonError{Status: http.StatusForbidden, Code: "MissingAuthenticationTokenException", Message: "Missing Authentication Token"}

// parseSignature reads the signature of a request: from its Authorization
// header, else from its query. Nothing is proved yet.
func parseSignature(r *http.Request, query url.Values) (*signature, error) {
	if auth := r.Header["Authorization"]; len(auth) > 0 {
		return parseAuthorization(auth, r.Header)
	}
	if query.Has("X-Amz-Algorithm") || query.Has("X-Amz-Signature") || query.Has("X-Amz-Credential") {
		return parsePresigned(query)
	}
	return nil, errMissingToken
}

// isSigned tells whether a request bears what looks like a signature.
func isSigned(r *http.Request, query url.Values) bool {
	return query.Has("X-Amz-Algorithm") || query.Has("X-Amz-Signature") || query.Has("X-Amz-Credential") ||
		strings.HasPrefix(first(r.Header["Authorization"]), "AWS4-")
}

// parseAuthorization reads
//
//	AWS4-HMAC-SHA256 Credential=ID/date/region/service/aws4_request, SignedHeaders=a;b, Signature=hex
func parseAuthorization(auth []string, h http.Header) (*signature, error) {
	if len(auth) > 1 || len(auth[0]) > maxAuthorization {
		return nil, incomplete("The Authorization header is too long or given more than once.")
	}
	name, rest, _ := strings.Cut(strings.TrimSpace(auth[0]), " ")
	if name != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm': '%s'.", printable(name))
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return nil, incomplete("'%s' not a valid key=value pair (missing equal-sign) in Authorization header.", printable(part))
		}
		if _, twice := fields[k]; twice {
			return nil, incomplete("'%s' is given more than once in Authorization header.", printable(k))
		}
		fields[k] = v
	}
	date := first(h["X-Amz-Date"])
	if date == "" {
		date = first(h["Date"])
	}
	var missing []string
	for _, k := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[k] == "" {
			missing = append(missing, "Authorization header requires '"+k+"' parameter.")
		}
	}
	if date == "" {
		missing = append(missing, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if missing != nil {
		return nil, incomplete("%s", strings.Join(missing, " "))
	}
	if len(h["X-Amz-Security-Token"]) > 0 {
		return nil, unrecognizedClient() // there are no temporary credentials here
	}
	s := new(signature)
	return s, s.fill(fields["Credential"], fields["SignedHeaders"], fields["Signature"], date)
}

// parsePresigned reads the same from the query of a presigned URL.
func parsePresigned(q url.Values) (*signature, error) {
	var missing []string
	for _, k := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		switch {
		case q.Get(k) == "":
			missing = append(missing, "AWS query-string parameters must include '"+k+"'. Re-examine the query-string parameters.")
		case len(q[k]) > 1:
			return nil, incomplete("'%s' is given more than once.", k)
		case len(q.Get(k)) > maxAuthorization:
			return nil, incomplete("'%s' is too long.", k)
		}
	}
	if missing != nil {
		return nil, incomplete("%s", strings.Join(missing, " "))
	}
	if a := q.Get("X-Amz-Algorithm"); a != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm': '%s'.", printable(a))
	}
	if q.Has("X-Amz-Security-Token") {
		return nil, unrecognizedClient()
	}
	s := &signature{presigned: true, expires: 5 * time.Minute}
	if text := q.Get("X-Amz-Expires"); text != "" {
		n, err := strconv.Atoi(text)
		if s.expires = time.Duration(n) * time.Second; err != nil || n < 1 || n > int(maxExpires/time.Second) {
			return nil, incomplete("X-Amz-Expires must be a number of seconds from 1 to %d.", maxExpires/time.Second)
		}
	}
	return s, s.fill(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), q.Get("X-Amz-Date"))
}

func (s *signature) fill(credential, headers, mac, date string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || slices.Contains(parts[:4], "") {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'.", printable(credential))
	}
	if parts[4] != "aws4_request" {
		return invalidSignature("Credential should be scoped with a valid terminator: 'aws4_request', not '%s'.", printable(parts[4]))
	}
	s.keyID, s.date, s.region, s.service = parts[0], parts[1], parts[2], parts[3]
	var err error
	if s.time, err = parseDate(date); err != nil {
		return incomplete("Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", printable(date))
	}
	s.timeText = s.time.Format(basicISO)
	if day := s.timeText[:8]; day != s.date {
		return invalidSignature("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.", printable(s.date), day, s.timeText)
	}
	s.signedHeaders = strings.Split(headers, ";")
	if len(s.signedHeaders) > maxSignedHeaders {
		return incomplete("There are too many signed headers.")
	}
	if !slices.Contains(s.signedHeaders, "host") {
		return invalidSignature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	if n, err := hex.Decode(s.mac[:], []byte(mac[:min(len(mac), 2*len(s.mac))])); err != nil || n != len(s.mac) || len(mac) != 2*len(s.mac) {
		return mismatch()
	}
	return nil
}

func mismatch() error {
	return invalidSignature("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

func parseDate(text string) (time.Time, error) {
	t, err := time.Parse(basicISO, text)
	if err != nil {
		t, err = http.ParseTime(text)
	}
	return t.UTC(), err
}

// current refuses a signature that is too old, or from the future.
func (s *signature) current(now time.Time, skew time.Duration) error {
	now = now.UTC()
	life := skew
	if s.presigned {
		life = s.expires
	}
	if oldest := now.Add(-life); s.time.Before(oldest) {
		return invalidSignature("Signature expired: %s is now earlier than %s (%s - %s.)", s.timeText, oldest.Format(basicISO), now.Format(basicISO), minutes(life))
	}
	if newest := now.Add(skew); s.time.After(newest) {
		return invalidSignature("Signature not yet current: %s is still later than %s (%s + %s.)", s.timeText, newest.Format(basicISO), now.Format(basicISO), minutes(skew))
	}
	return nil
}

func minutes(d time.Duration) string {
	if d%time.Minute == 0 {
		return strconv.Itoa(int(d/time.Minute)) + " min"
	}
	return strconv.Itoa(int(d/time.Second)) + " s"
}

// verify computes the signature of a request again and compares. A path with
// empty or dot segments may have been signed as it is, or normalized: SDKs
// differ. The path that was signed is returned, and it alone may be acted on.
func (s *Server) verify(sig *signature, secret string, r *http.Request, path, rawQuery string, body []byte) (signed string, err error) {
	if name := unsigned(sig, r.Header); name != "" {
		return "", invalidSignature("There were headers present in the request which were not signed: %s", name)
	}
	sum := sha256.Sum256(body)
	bodyHash := hex.EncodeToString(sum[:])
	key := s.derived.get(secret, sig.date, sig.region, sig.service)
	for i, signed := range []string{path, normalize(path)} {
		if i > 0 && signed == path {
			break
		}
		request, err := canonicalRequest(sig, r, escapeAgain(signed), rawQuery, bodyHash)
		if err != nil {
			return "", err
		}
		if hmac.Equal(sig.sign(key, request), sig.mac[:]) {
			return signed, nil
		}
	}
	return "", mismatch()
}

// sign computes the signature of a canonical request.
func (sig *signature) sign(key, request []byte) []byte {
	sum := sha256.Sum256(request)
	text := make([]byte, 0, 192)
	text = append(text, algorithm+"\n"...)
	text = append(text, sig.timeText...)
	text = append(text, '\n')
	text = append(text, sig.date+"/"+sig.region+"/"+sig.service+"/aws4_request\n"...)
	text = hex.AppendEncode(text, sum[:])
	m := hmac.New(sha256.New, key)
	m.Write(text)
	return m.Sum(nil)
}

// unsigned names a header with a meaning that the signature does not cover, or
// leaves in doubt because the header is there twice; "" when there is none.
func unsigned(sig *signature, h http.Header) string {
	for name, values := range h {
		if !strings.HasPrefix(name, "X-Amz") || name == "X-Amzn-Trace-Id" || name == "X-Amz-User-Agent" {
			continue
		}
		if lower := strings.ToLower(name); len(values) > 1 || !slices.Contains(sig.signedHeaders, lower) {
			return lower
		}
	}
	return ""
}

// signingKeys caches the keys that are derived for a day, region and service.
type signingKeys struct {
	mu    sync.Mutex
	byFor map[signingFor][]byte
}

type signingFor struct{ secret, date, region, service string }

func (c *signingKeys) get(secret, date, region, service string) []byte {
	of := signingFor{secret, date, region, service}
	c.mu.Lock()
	key := c.byFor[of]
	c.mu.Unlock()
	if key != nil {
		return key
	}
	key = []byte("AWS4" + secret)
	for _, part := range []string{date, region, service, "aws4_request"} {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(part))
		key = m.Sum(nil)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byFor == nil || len(c.byFor) >= maxSigningKeys {
		c.byFor = map[signingFor][]byte{}
	}
	c.byFor[signingFor{strings.Clone(secret), strings.Clone(date), strings.Clone(region), strings.Clone(service)}] = key
	return key
}

// authenticate gives the principal that signed a request, once its body is read
// and proved.
func (s *Server) authenticate(ctx context.Context, x *exchange, sig *signature) (aws.Principal, error) {
	secret, principal, err := s.keys.AccessKey(ctx, sig.keyID)
	if err != nil {
		return aws.Principal{}, fmt.Errorf("api: access key: %w", err)
	}
	if secret == "" {
		return aws.Principal{}, unrecognizedClient()
	}
	if err := sig.current(s.now(), s.cfg.MaxClockSkew); err != nil {
		return aws.Principal{}, err
	}
	if err := x.readBody(); err != nil {
		return aws.Principal{}, err
	}
	x.path, err = s.verify(sig, secret, x.r, x.path, x.rawQuery, x.body)
	return principal, err
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// printable bounds what a stranger sent before it is sent back.
func printable(s string) string {
	const most = 128
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
