package ota

import (
	"encoding/base64"
	"fmt"
)

// page is where a list by age goes on: after a row.
type page struct {
	created int64
	id      string
	begun   bool
	size    int
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
	if token == nil {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	if err == nil {
		_, err = fmt.Sscanf(string(b), "%d/%s", &p.created, &p.id)
	}
	if err != nil {
		return page{}, invalid("Invalid nextToken")
	}
	p.begun = true
	return p, nil
}

// query completes SELECT … FROM table by the page's rows, and one more, in order of creation.
func (p page) query(selected, id string, ascending bool) (string, []any) {
	order, compare := "DESC", "<"
	if ascending {
		order, compare = "ASC", ">"
	}
	args := []any{p.size + 1}
	if p.begun {
		selected += fmt.Sprintf(` WHERE (created, %s) %s ($2, $3)`, id, compare)
		args = append(args, p.created, p.id)
	}
	return selected + fmt.Sprintf(` ORDER BY created %s, %s %s LIMIT $1`, order, id, order), args
}

// cut takes the row too many off a page, which says that there is a further one.
func cut[T any](p page, rows []T, place func(T) (created int64, id string)) ([]T, *string) {
	if len(rows) <= p.size {
		return rows, nil
	}
	created, id := place(rows[p.size-1])
	return rows[:p.size], new(base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%s", created, id)))
}
