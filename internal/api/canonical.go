package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest is the request as signer and server both write it, in one
// buffer. uri is its path, escaped once more.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
func canonicalRequest(sig *signature, r *http.Request, uri, rawQuery, bodyHash string) ([]byte, error) {
	b := make([]byte, 0, 1024)
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = append(b, uri...)
	b = append(b, '\n')
	b, err := appendQuery(b, rawQuery, sig.presigned)
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	for _, name := range sig.signedHeaders {
		b = append(b, name...)
		b = append(b, ':')
		switch name {
		case "host":
			b = append(b, r.Host...)
		case "content-length":
			b = strconv.AppendInt(b, max(r.ContentLength, 0), 10)
		default:
			for i, v := range r.Header[http.CanonicalHeaderKey(name)] {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendFolded(b, v)
			}
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	for i, name := range sig.signedHeaders {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	return append(b, bodyHash...), nil
}

// appendFolded appends a header's value with runs of spaces made one, and none
// at the ends.
func appendFolded(b []byte, v string) []byte {
	v = strings.TrimSpace(v)
	for i := range len(v) {
		if v[i] == ' ' && v[i-1] == ' ' {
			continue
		}
		b = append(b, v[i])
	}
	return b
}

// appendQuery appends the parameters of a query in order of their escaped names,
// then values; that of the signature itself is left out when it is there.
func appendQuery(b []byte, raw string, presigned bool) ([]byte, error) {
	if raw == "" {
		return b, nil
	}
	type pair struct{ name, value string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		n, err := url.QueryUnescape(name)
		if err != nil {
			return nil, mismatch()
		}
		v, err := url.QueryUnescape(value)
		if err != nil {
			return nil, mismatch()
		}
		if presigned && n == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, pair{escape(n, false), escape(v, false)})
	}
	slices.SortFunc(pairs, func(x, y pair) int {
		if c := strings.Compare(x.name, y.name); c != 0 {
			return c
		}
		return strings.Compare(x.value, y.value)
	})
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p.name...)
		b = append(b, '=')
		b = append(b, p.value...)
	}
	return b, nil
}

// escapeAgain escapes a path that came escaped: every service but S3 signs it so.
func escapeAgain(escapedPath string) string {
	if escapedPath == "" {
		return "/"
	}
	return escape(escapedPath, true)
}

// escape leaves the unreserved characters of RFC 3986 alone, and slashes if asked.
func escape(s string, keepSlash bool) string {
	n := 0
	for i := range len(s) {
		if !unreserved(s[i], keepSlash) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unreserved(c, keepSlash) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

func unreserved(c byte, keepSlash bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' || c == '/' && keepSlash
}

// normalize takes empty and dot segments out of a path, as RFC 3986 par. 6.2.2.3
// and some signers do.
func normalize(path string) string {
	if !strings.Contains(path, "//") && !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	for seg := range strings.SplitSeq(path, "/") {
		switch seg {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, seg)
		}
	}
	p := "/" + strings.Join(out, "/")
	if strings.HasSuffix(path, "/") && p != "/" {
		p += "/"
	}
	return p
}
