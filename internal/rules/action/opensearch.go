package action

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/awsclient"
	"flotilla/internal/rules/sql"
)

// compileOpenSearch makes an action that indexes the message as a document of a domain of OpenSearch.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/opensearch-rule-action.html
func compileOpenSearch(c *compiler, a *iot.Action) *Action {
	p := a.OpenSearch
	return searchAction(c, p.RoleArn, p.Endpoint, p.Index, p.Type, p.Id)
}

// compileElasticsearch is compileOpenSearch for the older name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/elasticsearch-rule-action.html
func compileElasticsearch(c *compiler, a *iot.Action) *Action {
	p := a.Elasticsearch
	return searchAction(c, p.RoleArn, p.Endpoint, p.Index, p.Type, p.Id)
}

// searchAction puts documents by PUT ENDPOINT/INDEX/TYPE/ID. The endpoint is a domain of AWS, or one that the deployment
// knows: a rule's author sends requests nowhere else.
func searchAction(c *compiler, role, endpoint, index, kind, id string) *Action {
	c.role(role)
	base, err := url.Parse(endpoint)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" || strings.Contains(endpoint, "${") {
		c.refuse("endpoint %q is not an http or https URL", endpoint)
		return &Action{}
	}
	root := base.Scheme + "://" + base.Host
	fields := []int{c.checked("index", index, searchName("index")), c.checked("type", kind, searchName("type")), c.template("id", &id, sql.Generic)}
	out := onlyAWS(func(env Env) (Sink, error) {
		if err := knownSearch(env, base); err != nil {
			return nil, err
		}
		type put struct {
			path string
			body []byte
		}
		s := &awsSink[put]{limit: weight{awsInFlight, 4 << 20}, resource: func(*Record) string { return endpoint }}
		s.key = func(r *Record) string { return r.Fields[fields[0]] + "/" + r.Fields[fields[2]] }
		s.entry = func(r *Record) (put, weight, error) {
			path := strings.TrimSuffix(base.EscapedPath(), "/")
			for _, f := range fields {
				if err := searchName("index, type and id")(r.Fields[f]); err != nil {
					return put{}, weight{}, err
				}
				path += "/" + url.PathEscape(r.Fields[f])
			}
			return put{root + path, r.Payload}, one(r, len(path)), nil
		}
		s.send = func(ctx context.Context, _ string, entries []put) ([]error, error) {
			return each(ctx, entries, func(ctx context.Context, e put) error {
				status, answer, err := s.aws.REST(ctx, "es", http.MethodPut, e.path, nil, e.body)
				if err == nil && status/100 != 2 {
					return awsclient.Refusal("es", "PUT", status, answer)
				}
				return err
			})
		}
		return s.start(env)
	})
	out.check = func(env Env) error { return knownSearch(env, base) }
	return out
}

func searchName(field string) func(string) error {
	return func(s string) error {
		if s == "" || len(s) > 512 || s == "." || s == ".." {
			return fmt.Errorf("%s %q has 1 to 512 bytes and is no dots", field, s)
		}
		return nil
	}
}

// knownSearch tells why requests may not be sent to an endpoint.
func knownSearch(env Env, base *url.URL) error {
	host := base.Hostname()
	ours := strings.HasSuffix(host, ".es.amazonaws.com") || strings.HasSuffix(host, ".es.amazonaws.com.cn")
	if ours && base.Scheme == "https" && (base.Port() == "" || base.Port() == "443") || slices.Contains(env.SearchEndpoints, base.Scheme+"://"+base.Host) {
		return nil
	}
	return errors.New("the endpoint is neither a domain of Amazon OpenSearch Service nor one of --rules.search-endpoints")
}
