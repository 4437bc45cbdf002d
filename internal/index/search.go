package index

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

const (
	defaultPage  = 100
	maxPage      = 500
	queryVersion = "2017-09-30"
	// commonFrom is how many documents must have a term for it to be common.
	commonFrom = 5000
)

// parse reads a query.
func (x *Index) parse(text string, version *string) (*query.Query, error) {
	if version != nil && *version != "" && *version != queryVersion {
		return nil, invalid("Unsupported queryVersion %s", *version)
	}
	q, err := x.read(text)
	if err != nil {
		return nil, &iot.InvalidQueryException{Message: "Invalid query: " + err.Error()}
	}
	for field := range fieldsOf(q.Root, map[string]struct{}{}) {
		if field == "deviceDefender" || strings.HasPrefix(field, "deviceDefender.") {
			return nil, &aws.CommonError{Status: http.StatusNotImplemented, Code: "NotImplementedException", Message: "The field " + field + " is not implemented: Device Defender violations are not indexed."}
		}
	}
	return q, nil
}

// read parses a query; fields that go by two names have the one that documents use.
func (x *Index) read(text string) (*query.Query, error) {
	q, err := query.Parse(text, x.limits)
	if err == nil {
		unalias(q.Root)
	}
	return q, err
}

func unalias(e query.Expr) {
	switch e := e.(type) {
	case query.And:
		for _, s := range e {
			unalias(s)
		}
	case query.Or:
		for _, s := range e {
			unalias(s)
		}
	case query.Not:
		unalias(e.Of)
	case *query.Term:
		e.Field = alias(e.Field)
	}
}

// ready finds an index that can be searched; "" is AWS_Things.
func ready(tx store.Tx, name *string) (*settings, int64, error) {
	s, err := selectSettings(tx)
	if err != nil {
		return nil, 0, err
	}
	if name == nil || *name == "" {
		name = new(indexNames[things])
	}
	kind, err := s.kindOf(*name)
	if err == nil && s.status(kind) == iot.IndexStatusBuilding {
		err = &iot.IndexNotReadyException{Message: "The index " + *name + " is being built"}
	}
	return s, kind, err
}

// compiler makes a compiler that knows the fields of a query.
func (x *Index) compiler(tx store.Tx, kind int64, q *query.Query, args ...any) (*compiler, error) {
	c := &compiler{kind: kind, args: args, fields: map[string]int64{}}
	known := map[string]int64{}
	for name := range fieldsOf(q.Root, map[string]struct{}{}) {
		n, ok, err := x.field(tx, known, kind, name, false)
		if err != nil {
			return nil, err
		}
		if ok {
			c.fields[name] = n
		}
	}
	return c, nil
}

// compile makes the condition of a query: when listing, one on d.number that gives first rows soon, else one on v.document.
func (x *Index) compile(tx store.Tx, kind int64, q *query.Query, listing bool, args ...any) (*compiler, string, error) {
	c, err := x.compiler(tx, kind, q, args...)
	if err != nil {
		return nil, "", err
	}
	c.column, c.hashed = "v.document", true
	if listing {
		c.column, c.hashed = "d.number", x.db.Name() != "sqlite" // which begins with the list
		c.common = func(field int64, text string) (bool, error) {
			var n int
			err := tx.QueryRow(`SELECT COUNT(*) FROM (SELECT 1 AS one FROM index_term WHERE field = $1 AND term = $2 LIMIT $3) AS found`, field, text, commonFrom).Scan(&n)
			return n == commonFrom, err
		}
	}
	where := c.expr(q.Root)
	return c, where, c.err
}

// fieldsOf collects the fields that a query names.
func fieldsOf(e query.Expr, into map[string]struct{}) map[string]struct{} {
	switch e := e.(type) {
	case query.And:
		for _, s := range e {
			fieldsOf(s, into)
		}
	case query.Or:
		for _, s := range e {
			fieldsOf(s, into)
		}
	case query.Not:
		fieldsOf(e.Of, into)
	case *query.Term:
		if e.Field != "" {
			into[e.Field] = struct{}{}
		}
	}
	return into
}

// SearchIndex finds things or thing groups, in the order in which they came into the index.
//
// Errors: iot.InvalidQueryException, IndexNotReadyException, ResourceNotFoundException (index).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_SearchIndex.html
func (x *Index) SearchIndex(ctx context.Context, in *iot.SearchIndexRequest) (*iot.SearchIndexResponse, error) {
	q, err := x.parse(in.QueryString, in.QueryVersion)
	if err != nil {
		return nil, err
	}
	from, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	size := defaultPage
	if in.MaxResults != nil && *in.MaxResults > 0 {
		size = min(int(*in.MaxResults), maxPage)
	}
	out := &iot.SearchIndexResponse{}
	err = x.db.Read(ctx, func(ctx context.Context, tx store.Tx) error {
		*out = iot.SearchIndexResponse{}
		s, kind, err := ready(tx, in.IndexName)
		if err != nil {
			return err
		}
		hits, err := x.find(tx, kind, q, from, size+1)
		if err != nil {
			return err
		}
		if len(hits) > size {
			hits = hits[:size]
			out.NextToken = nextToken(hits[size-1].number)
		}
		for _, h := range hits {
			d, err := x.load(ctx, tx, s, kind, h.name)
			if err != nil {
				return err
			}
			switch {
			case d == nil: // gone meanwhile
			case d.group != nil:
				out.ThingGroups = append(out.ThingGroups, d.group)
			default:
				out.Things = append(out.Things, d.thing)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func nextToken(number int64) *string {
	return new(base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, number, 36)))
}

func parseToken(token *string) (int64, error) {
	if token == nil || *token == "" {
		return 0, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(*token)
	if err == nil {
		var n int64
		if n, err = strconv.ParseInt(string(text), 36, 64); err == nil {
			return n, nil
		}
	}
	return 0, invalid("Invalid nextToken")
}
