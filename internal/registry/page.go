package registry

import (
	"encoding/base64"
	"strings"
)

const (
	defaultPage = 25
	maxPage     = 250
)

// pageSize applies the default; the model's bounds are checked at the door.
func pageSize(n *int32) int {
	if n == nil || *n <= 0 {
		return defaultPage
	}
	return min(int(*n), maxPage)
}

// nextToken makes the opaque token of a page that ends with a key.
func nextToken(key ...string) *string {
	return new(base64.RawURLEncoding.EncodeToString([]byte(strings.Join(key, "\n"))))
}

// parseToken reverses nextToken; on the first page all parts are empty.
func parseToken(token *string, parts int) ([]string, error) {
	if token == nil || *token == "" {
		return make([]string, parts), nil
	}
	text, err := base64.RawURLEncoding.DecodeString(*token)
	key := strings.Split(string(text), "\n")
	if err != nil || len(key) != parts {
		return nil, invalid("Invalid nextToken")
	}
	return key, nil
}

// cut takes the row too many off a page, which says that there is a further one.
func cut[T any](rows []T, size int, key func(T) string) ([]T, *string) {
	if len(rows) <= size {
		return rows, nil
	}
	return rows[:size], nextToken(key(rows[size-1]))
}

// after is the least string that does not start with prefix and follows those
// that do; "" when there is none.
func after(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0x7f { // names and values are ASCII
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}
