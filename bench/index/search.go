package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// question is a query that differs each time it is asked.
type question struct {
	what string
	text func(k int) string
}

// ask times a call; note tells of the last answer.
func (b *bench) ask(q question, call func(text string) (note string, err error)) error {
	var took []time.Duration
	var note string
	before, err := b.CPU()
	if err != nil {
		return err
	}
	for k := range b.reps {
		began := time.Now()
		if note, err = call(q.text(k)); err != nil {
			return fmt.Errorf("%s: %w", q.text(k), err)
		}
		took = append(took, time.Since(began))
	}
	after, err := b.CPU()
	if err != nil {
		return err
	}
	b.printCPU(q.what, took, after-before, q.text(b.reps-1)+": "+note)
	return nil
}

// searches ask for first pages of at most 100 things.
func (b *bench) searches(ctx context.Context) error {
	for _, q := range []question{
		{"search: one thing by a value", func(k int) string { return fmt.Sprintf("shadow.reported.serial:SN-%07d", mix(k, 40, b.things)) }},
		{"search: one thing by its name", func(k int) string { return "thingName:" + thing(mix(k, 41, b.things)) }},
		{"search: prefix", func(k int) string { return fmt.Sprintf("thingName:thing-%05d*", mix(k, 42, max(1, b.things/100))) }},
		{"search: a thousandth", func(k int) string { return fmt.Sprintf("shadow.reported.site:site-%d", mix(k, 43, 1000)) }},
		{"search: most things", func(int) string { return "shadow.reported.status:running" }},
		{"search: narrow range", func(k int) string {
			return fmt.Sprintf("shadow.reported.uptime:[%d TO %d]", 10_000*(k%400), 10_000*(k%400)+500)
		}},
		{"search: wide range", func(k int) string { return fmt.Sprintf("shadow.reported.battery<%d", 30+k%40) }},
		{"search: two rare of common", func(k int) string {
			return fmt.Sprintf("shadow.reported.status:fault AND shadow.reported.battery<%d", 1+k%5)
		}},
		{"search: boolean", func(k int) string {
			return fmt.Sprintf("shadow.reported.site:site-%d AND (shadow.reported.battery<20 OR shadow.reported.status:fault) AND NOT shadow.reported.firmware:2.4.1", mix(k, 44, 1000))
		}},
		{"search: within 20 km", func(k int) string {
			return fmt.Sprintf("shadow.reported.at:geo_distance,%d.5,%d.5,20km", 35+k%25, k%50-10)
		}},
		{"search: a word in any field", func(k int) string { return fmt.Sprintf("SN-%07d", mix(k, 45, b.things)) }},
		{"search: nothing", func(k int) string {
			return fmt.Sprintf("shadow.reported.status:running AND shadow.reported.site:none%d", k)
		}},
	} {
		err := b.ask(q, func(text string) (string, error) {
			out, err := b.iot.SearchIndex(ctx, &iot.SearchIndexInput{QueryString: &text, MaxResults: new(int32(100))})
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d things, more %t", len(out.Things), out.NextToken != nil), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// counts ask how many things there are, exactly.
func (b *bench) counts(ctx context.Context) error {
	for _, q := range []question{
		{"count: everything", func(int) string { return "*" }},
		{"count: of rare", func(k int) string {
			return fmt.Sprintf("shadow.reported.status:fault AND shadow.reported.battery<%d", 20+k%5)
		}},
		{"count: a site without a firmware", func(k int) string {
			return fmt.Sprintf("shadow.reported.site:site-%d AND NOT shadow.reported.firmware:2.4.1", mix(k, 46, 1000))
		}},
		{"count: either of two", func(k int) string {
			return fmt.Sprintf("shadow.reported.status:fault OR shadow.reported.battery<%d", 2+k%5)
		}},
		{"count: most things of a common range", func(k int) string {
			return fmt.Sprintf("shadow.reported.status:running AND shadow.reported.battery>%d", 50+k%5)
		}},
		{"count: three common", func(k int) string {
			return fmt.Sprintf("shadow.reported.status:running AND shadow.reported.interval:60 AND NOT shadow.reported.firmware:2.4.%d", k%3)
		}},
	} {
		err := b.ask(q, func(text string) (string, error) {
			out, err := b.iot.GetStatistics(ctx, &iot.GetStatisticsInput{QueryString: &text})
			if err != nil {
				return "", err
			}
			return fmt.Sprint(out.Statistics.Count), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// groups has things come into a dynamic group, one after the other.
func (b *bench) groups(ctx context.Context) error {
	group := fmt.Sprintf("probe-%d", time.Now().UnixNano())
	_, err := b.iot.CreateDynamicThingGroup(ctx, &iot.CreateDynamicThingGroupInput{ThingGroupName: &group, QueryString: new("shadow.reported." + group + ":*")})
	if err != nil {
		return err
	}
	began := time.Now()
	for {
		d, err := b.iot.DescribeThingGroup(ctx, &iot.DescribeThingGroupInput{ThingGroupName: &group})
		if err != nil {
			return err
		}
		if d.Status == types.DynamicGroupStatusActive {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.print("dynamic group of nothing, until ACTIVE", []time.Duration{time.Since(began)}, "")
	d, err := b.device(ctx, "groups", 0)
	if err != nil {
		return err
	}
	defer d.Disconnect()
	var took []time.Duration
	for k := range b.reps {
		name := thing(mix(k, 47, b.things))
		began := time.Now()
		if err := d.update(ctx, name, fmt.Sprintf(`{"state":{"reported":{"%s":1}}}`, group)); err != nil {
			return err
		}
		for {
			out, err := b.iot.ListThingsInThingGroup(ctx, &iot.ListThingsInThingGroupInput{ThingGroupName: &group, MaxResults: new(int32(250))})
			if err != nil {
				return err
			}
			if slices.Contains(out.Things, name) {
				break
			}
			if time.Since(began) > time.Minute {
				return fmt.Errorf("%s does not come into %s", name, group)
			}
			time.Sleep(2 * time.Millisecond)
		}
		took = append(took, time.Since(began))
	}
	b.print("dynamic group: from an update of a shadow to the membership", took, "")
	_, err = b.iot.DeleteDynamicThingGroup(ctx, &iot.DeleteDynamicThingGroupInput{ThingGroupName: &group})
	return err
}
