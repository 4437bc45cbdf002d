package domain

import (
	"encoding/base64"
	"time"

	"flotilla/internal/aws"
)

const (
	defaultPage = 25
	maxPage     = 250
)

func marker(name string) *string { return new(base64.StdEncoding.EncodeToString([]byte(name))) }

// parseMarker reverses marker; "" for the first page.
func parseMarker(m *string) (string, error) {
	name, err := base64.StdEncoding.DecodeString(value(m))
	if err != nil {
		return "", invalid("Invalid marker")
	}
	return string(name), nil
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
