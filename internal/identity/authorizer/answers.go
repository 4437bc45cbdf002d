package authorizer

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// answers keeps Results for HTTP connections, at most as many as most. The zero value with most set is ready.
type answers struct {
	most int
	mu   sync.Mutex
	by   map[[sha256.Size]byte]cachedAnswer
}

type cachedAnswer struct {
	result  *Result
	expires time.Time
}

func (c *answers) get(key [sha256.Size]byte, now time.Time) *Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.by[key]
	if ok && !now.Before(a.expires) {
		delete(c.by, key)
		return nil
	}
	return a.result
}

func (c *answers) put(key [sha256.Size]byte, r *Result, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[[sha256.Size]byte]cachedAnswer{}
	}
	if len(c.by) >= c.most {
		for k := range c.by { // any: the order of a map is as good as chance
			delete(c.by, k)
			break
		}
	}
	c.by[key] = cachedAnswer{r, now.Add(min(r.RefreshAfter, r.DisconnectAfter))}
}

// perRequest are the headers and parameters that say nothing of who sends a request.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iotdata_Publish.html
var perRequest = []string{
	"Accept", "Accept-Encoding", "Connection", "Content-Length", "Content-Type", "Date", "Traceparent", "User-Agent",
	"X-Amz-Mqtt5-Correlation-Data", "X-Amz-Mqtt5-Payload-Format-Indicator", "X-Amz-Mqtt5-User-Properties",
	"qos", "retain", "contentType", "messageExpiry", "responseTopic",
}

// cacheKey is under what the answer to a request is kept, false for one that is not: the connection, the authorizer
// as it is now, and everything in the request that the function may have judged by. A connection may carry requests
// of several senders, behind a proxy for one.
func (a *Authorizers) cacheKey(i *inquiry, r *Request) (key [sha256.Size]byte, ok bool) {
	if r.Protocol != HTTP || !i.caching || r.ConnectionID == "" {
		return key, false
	}
	query, err := parseParameters(strings.TrimPrefix(r.RawQuery, "?"))
	if err != nil {
		return key, false
	}
	h := sha256.New()
	write(h, r.ConnectionID, r.ServerName, r.CertificateID, i.name, i.functionARN, i.token, i.signature)
	_ = binary.Write(h, binary.BigEndian, i.modified)
	_ = binary.Write(h, binary.BigEndian, i.created)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if !slices.Contains(perRequest, name) {
			write(h, name)
			write(h, r.Header[name]...)
		}
	}
	for _, p := range query {
		if !slices.Contains(perRequest, p.name) {
			write(h, p.name, p.value)
		}
	}
	h.Sum(key[:0])
	return key, true
}

// write adds texts to a hash so that no others give the same bytes.
func write(h hash.Hash, texts ...string) {
	_ = binary.Write(h, binary.BigEndian, uint32(len(texts)))
	for _, t := range texts {
		_ = binary.Write(h, binary.BigEndian, uint32(len(t)))
		_, _ = h.Write([]byte(t))
	}
}
