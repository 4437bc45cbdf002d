package policy

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
)

const defaultPage = 25 // of the List operations with a marker

// pageSize applies the default; the model's bounds are checked at the door.
func pageSize(n *int32) int {
	if n == nil || *n <= 0 {
		return defaultPage
	}
	return min(int(*n), 250)
}

// marker makes the opaque marker of a page that ends with a key; of the alphabet the model's shape Marker allows.
func marker(key ...string) *string {
	return new(base64.StdEncoding.EncodeToString([]byte(strings.Join(key, "\n"))))
}

// parseMarker reverses marker; nil for the first page.
func parseMarker(m *string, parts int) ([]string, error) {
	if m == nil || *m == "" {
		return nil, nil
	}
	text, err := base64.StdEncoding.DecodeString(*m)
	key := strings.SplitN(string(text), "\n", parts)
	if err != nil || len(key) != parts {
		return nil, &iot.InvalidRequestException{Message: "Invalid marker"}
	}
	if parts == 2 {
		if _, err := strconv.ParseInt(key[0], 10, 64); err != nil {
			return nil, &iot.InvalidRequestException{Message: "Invalid marker"}
		}
	}
	return key, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func versionID(n int64) *string { return new(strconv.FormatInt(n, 10)) }

func date(ms int64) *aws.Time { return new(aws.Time{Time: time.UnixMilli(ms).UTC()}) }
