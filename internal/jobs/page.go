package jobs

import "encoding/base64"

// page is where a list goes on.
type page struct {
	after string
	size  int
}

const (
	defaultPage = 25
	maxPage     = 250
)

func newPage(size *int32, token *string) (page, error) {
	p := page{size: defaultPage}
	if size != nil {
		p.size = max(1, min(int(*size), maxPage))
	}
	if token != nil {
		b, err := base64.RawURLEncoding.DecodeString(*token)
		if err != nil {
			return page{}, invalid("Invalid nextToken")
		}
		p.after = string(b)
	}
	return p, nil
}

// cut takes the row too many off a page, which says that there is a further one.
func cut[T any](p page, rows []T, key func(T) string) ([]T, *string) {
	if len(rows) <= p.size {
		return rows, nil
	}
	return rows[:p.size], new(base64.RawURLEncoding.EncodeToString([]byte(key(rows[p.size-1]))))
}
