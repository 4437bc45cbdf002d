package rules

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/rules/sql"
	"flotilla/internal/store"
)

func (e *Engine) arn(name string) string { return e.d.Account.ARN("iot", "rule/"+name) }

// denied is AWS's answer about a rule that does not exist: the operations' model
// has no ResourceNotFoundException, and clients know this text.
func denied(name string) error {
	return &iot.UnauthorizedException{Message: "Access to topic rule '" + name + "' was denied"}
}

func notFound(err error, name string) error {
	if errors.Is(err, store.ErrNotFound) {
		return denied(name)
	}
	return err
}

// CreateTopicRule makes a rule that works on this node when it returns.
//
// Errors: SqlParseException (SQL, templates), InvalidRequestException (names,
// actions), ResourceAlreadyExistsException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateTopicRule.html
func (e *Engine) CreateTopicRule(ctx context.Context, in *iot.CreateTopicRuleRequest) (*iot.CreateTopicRuleResponse, error) {
	r, text, err := e.check(in.RuleName, in.TopicRulePayload)
	if err != nil {
		return nil, err
	}
	tags, err := parseTags(in.Tags)
	if err != nil {
		return nil, err
	}
	if len(tags) > 0 && e.d.Tags == nil {
		return nil, invalid("tags of topic rules are not supported")
	}
	err = e.write(ctx, in.RuleName, func(ctx context.Context, tx store.Tx) error {
		n, err := countRules(tx)
		if err != nil {
			return err
		}
		now := e.now().UnixMilli()
		if err := insertRule(tx, record{name: in.RuleName, created: now, disabled: r.disabled, payload: text}); err != nil {
			if errors.Is(err, store.ErrConflict) {
				return &iot.ResourceAlreadyExistsException{
					Message: "Rule already exists : " + in.RuleName, ResourceId: in.RuleName, ResourceArn: e.arn(in.RuleName),
				}
			}
			return err
		}
		if n >= e.cfg.MaxRules {
			return invalid("There are %d topic rules, the most allowed", n)
		}
		if err := e.setActions(tx, in.RuleName, in.TopicRulePayload, now); err != nil {
			return err
		}
		if err := e.ensureDestinations(ctx, tx, r); err != nil {
			return err
		}
		if len(tags) > 0 {
			_, err = e.d.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: e.arn(in.RuleName), Tags: tags})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	e.advise(ctx, r)
	return &iot.CreateTopicRuleResponse{}, nil
}

// check compiles what a request brings, and gives it as the store keeps it.
func (e *Engine) check(name string, p *iot.TopicRulePayload) (*rule, string, error) {
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	r, err := e.compile(name, p)
	if err != nil {
		return nil, "", err
	}
	if err := e.checkActions(r, p); err != nil {
		return nil, "", err
	}
	for _, a := range append(slices.Clip(r.actions), r.errorAction) {
		if a == nil {
			continue
		}
		if err := a.Check(e.env); err != nil {
			return nil, "", invalid("%s", err)
		}
	}
	text, err := json.Marshal(p)
	return r, string(text), err
}

// write changes a rule: when it returns this node follows the change, and the others
// have been told.
func (e *Engine) write(ctx context.Context, name string, fn store.Func) error {
	err := e.d.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		// Within a larger transaction this runs after its commit.
		e.d.DB.AfterCommit(ctx, func() { e.d.Bus.Changed(kindRule, name) })
		return nil
	})
	if err != nil {
		return err
	}
	// Not ctx, which may have a transaction around this one. A failure is mended by follow.
	if err := e.load(context.Background(), name); err != nil {
		e.log.Warn("rules: a change could not be read", "rule", name, "err", err)
	}
	return nil
}

// parseTags reads the header x-amz-tagging: key1=value1&key2=value2.
func parseTags(header *string) ([]*iot.Tag, error) {
	if header == nil || *header == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(*header)
	if err != nil {
		return nil, invalid("tags are not of the form key1=value1&key2=value2")
	}
	var tags []*iot.Tag
	for key, v := range values {
		if len(v) != 1 {
			return nil, invalid("the tag %s is there more than once", key)
		}
		tags = append(tags, &iot.Tag{Key: key, Value: &v[0]})
	}
	return tags, nil
}

// GetTopicRule gives a rule as its author wrote it.
//
// Errors: UnauthorizedException for a rule that does not exist, as AWS has it.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetTopicRule.html
func (e *Engine) GetTopicRule(ctx context.Context, in *iot.GetTopicRuleRequest) (*iot.GetTopicRuleResponse, error) {
	var rec record
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		rec, err = selectRule(tx, in.RuleName)
		return err
	})
	if err != nil {
		return nil, notFound(err, in.RuleName)
	}
	var p iot.TopicRulePayload
	if err := json.Unmarshal([]byte(rec.payload), &p); err != nil {
		return nil, fmt.Errorf("rules: rule %s: %w", rec.name, err)
	}
	if p.Actions == nil {
		p.Actions = []*iot.Action{}
	}
	return &iot.GetTopicRuleResponse{
		RuleArn: new(e.arn(rec.name)),
		Rule: &iot.TopicRule{
			RuleName: &rec.name, Sql: &p.Sql, Description: p.Description, CreatedAt: date(rec.created), Actions: p.Actions,
			RuleDisabled: &rec.disabled, AwsIotSqlVersion: new(sqlVersion(&p)), ErrorAction: p.ErrorAction,
		},
	}, nil
}

func date(ms int64) *aws.Time { return new(aws.Time{Time: time.UnixMilli(ms).UTC()}) }

// RuleExists gives an iot.ResourceNotFoundException for a rule that does not exist;
// it joins a transaction in ctx. Tags are for rules that do.
func (e *Engine) RuleExists(ctx context.Context, name string) error {
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := selectRule(tx, name)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: "Topic rule " + name + " was not found."}
	}
	return err
}

const (
	defaultPage = 100
	maxPage     = 10000
	readPage    = 500 // rules read at once while a page is filtered
)

// ListTopicRules lists rules by name: with topic, those whose FROM matches it; with
// ruleDisabled, those that are disabled, or enabled.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListTopicRules.html
func (e *Engine) ListTopicRules(ctx context.Context, in *iot.ListTopicRulesRequest) (*iot.ListTopicRulesResponse, error) {
	page, after := defaultPage, ""
	if in.MaxResults != nil {
		page = int(*in.MaxResults)
	}
	if page < 1 || page > maxPage {
		return nil, invalid("maxResults is between 1 and %d", maxPage)
	}
	if in.NextToken != nil && *in.NextToken != "" {
		name, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		if err != nil || checkName(string(name)) != nil {
			return nil, invalid("Invalid nextToken")
		}
		after = string(name)
	}
	out := &iot.ListTopicRulesResponse{Rules: []*iot.TopicRuleListItem{}}
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		out.Rules, out.NextToken = out.Rules[:0], nil
		for at := after; ; {
			records, err := selectRules(tx, at, readPage)
			if err != nil || len(records) == 0 {
				return err
			}
			for _, rec := range records {
				at = rec.name
				item := e.listItem(rec)
				if in.RuleDisabled != nil && *in.RuleDisabled != rec.disabled || in.Topic != nil && !mqtt.Match(*item.TopicPattern, *in.Topic) {
					continue
				}
				if len(out.Rules) == page {
					last := *out.Rules[page-1].RuleName
					out.NextToken = new(base64.RawURLEncoding.EncodeToString([]byte(last)))
					return nil
				}
				out.Rules = append(out.Rules, item)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (e *Engine) listItem(rec record) *iot.TopicRuleListItem {
	return &iot.TopicRuleListItem{
		RuleArn: new(e.arn(rec.name)), RuleName: &rec.name, TopicPattern: new(e.from(rec)), CreatedAt: date(rec.created), RuleDisabled: &rec.disabled,
	}
}

// from is the filter in a stored rule's FROM, "" when it has none.
func (e *Engine) from(rec record) string {
	e.mu.RLock()
	r := e.byName[rec.name]
	e.mu.RUnlock()
	if r != nil && r.sql != nil && r.stored == rec.payload {
		return r.sql.From()
	}
	var p iot.TopicRulePayload
	if json.Unmarshal([]byte(rec.payload), &p) != nil {
		return ""
	}
	statement, err := sql.Parse(p.Sql, sqlVersion(&p))
	if err != nil {
		return ""
	}
	return statement.From()
}

// ReplaceTopicRule puts another payload in the place of a rule's. Actions that are
// the same as before keep what they owe; others finish it with their old definition.
//
// Errors: those of CreateTopicRule; UnauthorizedException for a rule that does not exist.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ReplaceTopicRule.html
func (e *Engine) ReplaceTopicRule(ctx context.Context, in *iot.ReplaceTopicRuleRequest) (*iot.ReplaceTopicRuleResponse, error) {
	r, text, err := e.check(in.RuleName, in.TopicRulePayload)
	if err != nil {
		return nil, err
	}
	err = e.write(ctx, in.RuleName, func(ctx context.Context, tx store.Tx) error {
		rec, err := selectRule(tx, in.RuleName)
		if err != nil {
			return notFound(err, in.RuleName)
		}
		if err := e.ensureDestinations(ctx, tx, r); err != nil {
			return err
		}
		rec.payload, rec.disabled = text, r.disabled
		if err := updateRule(tx, rec); err != nil {
			return err
		}
		return e.setActions(tx, in.RuleName, in.TopicRulePayload, e.now().UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	e.advise(ctx, r)
	return &iot.ReplaceTopicRuleResponse{}, nil
}

// DeleteTopicRule deletes a rule. What it owes is still executed.
//
// Errors: UnauthorizedException for a rule that does not exist.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteTopicRule.html
func (e *Engine) DeleteTopicRule(ctx context.Context, in *iot.DeleteTopicRuleRequest) (*iot.DeleteTopicRuleResponse, error) {
	err := e.write(ctx, in.RuleName, func(ctx context.Context, tx store.Tx) error {
		n, err := tx.Exec(`DELETE FROM topic_rule WHERE name = $1`, in.RuleName)
		if err != nil {
			return err
		}
		if n == 0 {
			return denied(in.RuleName)
		}
		if e.d.Tags != nil {
			if err := e.d.Tags.DeleteTags(ctx, e.arn(in.RuleName)); err != nil {
				return err
			}
		}
		return e.setActions(tx, in.RuleName, nil, e.now().UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteTopicRuleResponse{}, nil
}

// EnableTopicRule lets a rule see messages again.
//
// Errors: UnauthorizedException for a rule that does not exist.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_EnableTopicRule.html
func (e *Engine) EnableTopicRule(ctx context.Context, in *iot.EnableTopicRuleRequest) (*iot.EnableTopicRuleResponse, error) {
	if err := e.setDisabled(ctx, in.RuleName, false); err != nil {
		return nil, err
	}
	return &iot.EnableTopicRuleResponse{}, nil
}

// DisableTopicRule keeps messages from a rule. What it owes is still executed.
//
// Errors: UnauthorizedException for a rule that does not exist.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DisableTopicRule.html
func (e *Engine) DisableTopicRule(ctx context.Context, in *iot.DisableTopicRuleRequest) (*iot.DisableTopicRuleResponse, error) {
	if err := e.setDisabled(ctx, in.RuleName, true); err != nil {
		return nil, err
	}
	return &iot.DisableTopicRuleResponse{}, nil
}

func (e *Engine) setDisabled(ctx context.Context, name string, disabled bool) error {
	return e.write(ctx, name, func(_ context.Context, tx store.Tx) error {
		n, err := tx.Exec(`UPDATE topic_rule SET disabled = $2 WHERE name = $1`, name, disabled)
		if err == nil && n == 0 {
			return denied(name)
		}
		return err
	})
}
