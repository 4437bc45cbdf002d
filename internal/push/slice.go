package push

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"flotilla/internal/api/client"
	"flotilla/internal/aws/iot"
)

// Slice says which things are meant: one of its members is set.
type Slice struct {
	Query  string   // of the fleet index, as SearchIndex takes it
	Group  string   // a thing group, with the groups below it
	Things []string // by name
}

func (s *Slice) check() error {
	n := 0
	for _, set := range []bool{s.Query != "", s.Group != "", s.Things != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return errors.New("say which things: by a query, a group or a list of names, one of them")
	}
	return nil
}

// names are the things of the slice, each once, as it is now.
func (s *Slice) names(ctx context.Context, api API) ([]string, error) {
	var all []string
	seen := map[string]struct{}{}
	add := func(name string) {
		if _, twice := seen[name]; !twice && name != "" {
			seen[name] = struct{}{}
			all = append(all, name)
		}
	}
	switch {
	case s.Query != "":
		err := search(ctx, api, s.Query, add)
		return all, err
	case s.Group != "":
		err := members(ctx, api, s.Group, add)
		return all, err
	}
	for _, name := range s.Things {
		add(name)
	}
	return all, nil
}

func search(ctx context.Context, api API, query string, add func(string)) error {
	in := iot.SearchIndexRequest{QueryString: query, MaxResults: new(int32(500))}
	for {
		var page iot.SearchIndexResponse
		if err := api.Call(ctx, "iot", http.MethodPost, "/indices/search", &in, &page); err != nil {
			return err
		}
		for _, t := range page.Things {
			if t.ThingName != nil {
				add(*t.ThingName)
			}
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return nil
		}
	}
}

func members(ctx context.Context, api API, group string, add func(string)) error {
	query := url.Values{"recursive": {"true"}, "maxResults": {"250"}}
	for {
		var page iot.ListThingsInThingGroupResponse
		if err := api.Call(ctx, "iot", http.MethodGet, client.Path("thing-groups", group, "things")+"?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		for _, name := range page.Things {
			add(name)
		}
		if page.NextToken == nil {
			return nil
		}
		query.Set("nextToken", *page.NextToken)
	}
}
