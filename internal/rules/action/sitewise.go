package action

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/sql"
)

// propertySource is a value of a property; its numbers are indexes of Record.Fields, -1 when it has none.
type propertySource struct {
	asset, property, alias  int
	variant                 string
	value                   int
	seconds, nanos, quality int
}

type (
	propertyTime struct {
		TimeInSeconds int64 `json:"timeInSeconds"`
		OffsetInNanos int64 `json:"offsetInNanos,omitempty"`
	}
	propertyValue struct {
		Value     map[string]any `json:"value"`
		Timestamp propertyTime   `json:"timestamp"`
		Quality   string         `json:"quality,omitempty"`
	}
	propertyEntry struct {
		EntryId        string          `json:"entryId"`
		AssetId        string          `json:"assetId,omitempty"`
		PropertyId     string          `json:"propertyId,omitempty"`
		PropertyAlias  string          `json:"propertyAlias,omitempty"`
		PropertyValues []propertyValue `json:"propertyValues"`
	}
)

// compileIotSiteWise makes an action that puts values of properties of assets, 10 entries in a call. entryId, which only
// tells entries of an answer apart, is checked and replaced.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iotsitewise-rule-action.html
func compileIotSiteWise(c *compiler, a *iot.Action) *Action {
	p := a.IotSiteWise
	c.role(p.RoleArn)
	if len(p.PutAssetPropertyValueEntries) == 0 {
		c.refuse("putAssetPropertyValueEntries is empty")
	}
	var sources [][]propertySource
	for i, e := range p.PutAssetPropertyValueEntries {
		if e == nil || len(e.PropertyValues) == 0 || (e.PropertyAlias == nil) == (e.AssetId == nil) || (e.AssetId == nil) != (e.PropertyId == nil) {
			c.refuse("putAssetPropertyValueEntries[%d] has propertyValues, and either propertyAlias or both assetId and propertyId", i)
			break
		}
		c.template("entryId", e.EntryId, sql.Generic)
		of := propertySource{asset: c.template("assetId", e.AssetId, sql.Generic), property: c.template("propertyId", e.PropertyId, sql.Generic), alias: c.template("propertyAlias", e.PropertyAlias, sql.Generic)}
		var values []propertySource
		for _, v := range e.PropertyValues {
			values = append(values, c.propertyValue(of, v))
		}
		sources = append(sources, values)
	}
	return onlyAWS(func(env Env) (Sink, error) {
		// A record is a call of its own when it has more entries than one takes.
		s := &awsSink[[]propertyEntry]{limit: weight{10, 1 << 20}, resource: func(*Record) string { return "" }}
		s.entry = func(r *Record) (out []propertyEntry, w weight, err error) {
			for i, values := range sources {
				e := propertyEntry{EntryId: fmt.Sprintf("%d-%d", r.ID, i), AssetId: optional(r, values[0].asset, ""), PropertyId: optional(r, values[0].property, ""), PropertyAlias: optional(r, values[0].alias, "")}
				for _, v := range values {
					filled, err := v.fill(r)
					if err != nil {
						return nil, w, err
					}
					e.PropertyValues = append(e.PropertyValues, filled)
				}
				out = append(out, e)
			}
			return out, weight{len(out), 1024 * len(out)}, nil
		}
		s.send = func(ctx context.Context, _ string, entries [][]propertyEntry) ([]error, error) {
			return putProperties(ctx, s.aws, entries)
		}
		return s.start(env)
	})
}

func (c *compiler) propertyValue(of propertySource, v *iot.AssetPropertyValue) propertySource {
	if v == nil || v.Value == nil || v.Timestamp == nil {
		c.refuse("a value of propertyValues has value and timestamp")
		return of
	}
	n := 0
	for name, text := range map[string]*string{"stringValue": v.Value.StringValue, "integerValue": v.Value.IntegerValue, "doubleValue": v.Value.DoubleValue, "booleanValue": v.Value.BooleanValue} {
		if text != nil {
			n++
			of.variant, of.value = name, c.template(name, text, sql.Generic)
		}
	}
	if n != 1 {
		c.refuse("value has one of stringValue, integerValue, doubleValue and booleanValue")
	}
	of.seconds = c.template("timeInSeconds", &v.Timestamp.TimeInSeconds, sql.Generic)
	of.nanos = c.template("offsetInNanos", v.Timestamp.OffsetInNanos, sql.Generic)
	of.quality = c.template("quality", v.Quality, sql.Generic)
	return of
}

func (p propertySource) fill(r *Record) (out propertyValue, err error) {
	var typed any
	switch text := r.Fields[p.value]; p.variant {
	case "stringValue":
		typed = text
	case "integerValue":
		typed, err = strconv.ParseInt(text, 10, 32)
	case "doubleValue":
		typed, err = strconv.ParseFloat(text, 64)
	case "booleanValue":
		typed, err = strconv.ParseBool(text)
	}
	if err != nil {
		return out, fmt.Errorf("%s %q is not of its type", p.variant, r.Fields[p.value])
	}
	out.Value = map[string]any{p.variant: typed}
	seconds, err1 := strconv.ParseInt(r.Fields[p.seconds], 10, 64)
	nanos, err2 := strconv.ParseInt(optional(r, p.nanos, "0"), 10, 64)
	if err1 != nil || err2 != nil || seconds < 1 || nanos < 0 || nanos > 999_999_999 {
		return out, errors.New("timestamp has timeInSeconds since 1970 and offsetInNanos from 0 to 999999999")
	}
	out.Timestamp = propertyTime{seconds, nanos}
	switch out.Quality = optional(r, p.quality, ""); out.Quality {
	case "", "GOOD", "BAD", "UNCERTAIN":
		return out, nil
	}
	return out, fmt.Errorf("quality %q is none of GOOD, BAD and UNCERTAIN", out.Quality)
}

// putProperties makes calls of 10 entries each.
//
// AWS: https://docs.aws.amazon.com/iot-sitewise/latest/APIReference/API_BatchPutAssetPropertyValue.html
func putProperties(ctx context.Context, to AWS, entries [][]propertyEntry) ([]error, error) {
	owner := map[string]int{}
	var all []propertyEntry
	for i, e := range entries {
		for _, p := range e {
			owner[p.EntryId] = i
		}
		all = append(all, e...)
	}
	failed := make([]error, len(entries))
	for n := 0; n < len(all); n += 10 {
		var out struct {
			ErrorEntries []struct {
				EntryId string
				Errors  []struct{ ErrorCode, ErrorMessage string }
			}
		}
		err := rest(ctx, to, "iotsitewise", "BatchPutAssetPropertyValue", "/properties", map[string]any{"entries": all[n:min(n+10, len(all))]}, &out)
		if err != nil {
			return nil, err
		}
		for _, e := range out.ErrorEntries {
			if i, ok := owner[e.EntryId]; ok && len(e.Errors) > 0 {
				failed[i] = refused(e.Errors[0].ErrorCode, e.Errors[0].ErrorMessage)
			}
		}
	}
	return failed, nil
}
