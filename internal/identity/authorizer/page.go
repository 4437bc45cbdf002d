package authorizer

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/aws"
)

const (
	defaultPage = 25
	maxPage     = 250
)

// pageKey is where a page begins: after this row.
type pageKey struct {
	created int64
	name    string
}

func marker(r *record) *string {
	return new(base64.StdEncoding.EncodeToString([]byte(strconv.FormatInt(r.created, 10) + " " + r.name)))
}

// parseMarker reverses marker; nil for the first page.
func parseMarker(m *string) (*pageKey, error) {
	if value(m) == "" {
		return nil, nil
	}
	text, err := base64.StdEncoding.DecodeString(*m)
	created, name, ok := strings.Cut(string(text), " ")
	n, numberErr := strconv.ParseInt(created, 10, 64)
	if err != nil || !ok || numberErr != nil {
		return nil, invalid("Invalid marker")
	}
	return &pageKey{n, name}, nil
}

func pageSize(n *int32) int {
	if value(n) <= 0 {
		return defaultPage
	}
	return min(int(*n), maxPage)
}

func date(ms int64) *aws.Time { return new(aws.Time{Time: time.UnixMilli(ms).UTC()}) }

// value is what p points to, the zero value when it is nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// set takes a value that is given.
func set[T any](at, given *T) {
	if given != nil {
		*at = *given
	}
}

// optional is nil for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
