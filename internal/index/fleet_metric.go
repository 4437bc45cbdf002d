package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// fleetMetric is a row of fleet_metric.
type fleetMetric struct {
	iot.CreateFleetMetricRequest
	version           int64
	created, modified int64 // ms
}

// statistics are the values that a fleet metric of type Statistics can have.
var statistics = map[string]func(*iot.Statistics) *float64{
	"count":        func(s *iot.Statistics) *float64 { return new(float64(value(s.Count))) },
	"average":      func(s *iot.Statistics) *float64 { return s.Average },
	"sum":          func(s *iot.Statistics) *float64 { return s.Sum },
	"minimum":      func(s *iot.Statistics) *float64 { return s.Minimum },
	"maximum":      func(s *iot.Statistics) *float64 { return s.Maximum },
	"sumOfSquares": func(s *iot.Statistics) *float64 { return s.SumOfSquares },
	"variance":     func(s *iot.Statistics) *float64 { return s.Variance },
	"stdDeviation": func(s *iot.Statistics) *float64 { return s.StdDeviation },
}

// cardinality is the one value of a fleet metric of that type; it may be left out.
const cardinality = "cardinality"

func (m *fleetMetric) question() question {
	return question{m.IndexName, m.QueryVersion, m.QueryString, m.AggregationField}
}

// check holds a metric against what there is to aggregate.
func (m *fleetMetric) check(ctx context.Context, x *Index) error {
	if m.Period < 60 || m.Period > 86_400 || m.Period%60 != 0 {
		return invalid("period is a multiple of 60 between 60 and 86400")
	}
	if m.AggregationType == nil {
		return invalid("aggregationType is required")
	}
	return x.over(ctx, m.question(), func(v *values) error { return v.measurable(m.AggregationType) })
}

// measurable tells whether a field has the values that a metric asks for.
func (v *values) measurable(of *iot.AggregationType) error {
	bad := func(format string, args ...any) error {
		return &iot.InvalidAggregationException{Message: fmt.Sprintf(format, args...)}
	}
	if len(of.Values) == 0 && of.Name != iot.AggregationTypeNameCardinality {
		return bad("aggregationType %s needs values", of.Name)
	}
	for i, name := range of.Values {
		if slices.Contains(of.Values[:i], name) {
			return bad("The value %s is given twice", name)
		}
		var known bool
		switch of.Name {
		case iot.AggregationTypeNameStatistics:
			_, known = statistics[name]
		case iot.AggregationTypeNamePercentiles:
			n, err := strconv.ParseUint(name, 10, 8)
			known = err == nil && n <= 100
		case iot.AggregationTypeNameCardinality:
			known = name == cardinality
		}
		if !known {
			return bad("%s is no value of aggregationType %s", name, of.Name)
		}
		if v.typ != iot.FieldTypeNumber && name != "count" && name != cardinality {
			return bad("%s of %s: the field is no Number", name, v.field)
		}
	}
	return nil
}

func (x *Index) metricARN(name string) string { return x.deps.Account.ARN("iot", "fleetmetric/"+name) }

func noMetric(name string) error {
	return &iot.ResourceNotFoundException{Message: "There is no fleet metric " + name}
}

// CreateFleetMetric has an aggregation evaluated again and again. The same call again succeeds.
//
// Errors: iot.InvalidQueryException, InvalidAggregationException, IndexNotReadyException, ResourceNotFoundException (index),
// ResourceAlreadyExistsException, LimitExceededException, InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateFleetMetric.html
func (x *Index) CreateFleetMetric(ctx context.Context, in *iot.CreateFleetMetricRequest) (*iot.CreateFleetMetricResponse, error) {
	m := &fleetMetric{CreateFleetMetricRequest: *in, version: 1, created: x.now().UnixMilli()}
	m.modified, m.Tags = m.created, nil
	if value(m.IndexName) == "" {
		m.IndexName = new(indexNames[things])
	}
	if value(m.QueryVersion) == "" {
		m.QueryVersion = new(queryVersion)
	}
	if err := m.check(ctx, x); err != nil {
		return nil, err
	}
	err := x.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		there, err := selectMetric(tx, in.MetricName)
		if err == nil {
			return sameMetric(there, m)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var n int
		if err := tx.QueryRow(`SELECT COUNT(*) FROM fleet_metric`).Scan(&n); err != nil {
			return err
		}
		if n >= x.cfg.MaxFleetMetrics {
			return &iot.LimitExceededException{Message: fmt.Sprintf("There can be at most %d fleet metrics", x.cfg.MaxFleetMetrics)}
		}
		if err := saveMetric(tx, m); err != nil {
			return err
		}
		x.db.AfterCommit(ctx, func() { x.deps.Changes.Changed(kindMetric, in.MetricName) })
		if len(in.Tags) == 0 {
			return nil
		}
		if x.deps.Tags == nil {
			return invalid("Fleet metrics can't have tags")
		}
		_, err = x.deps.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: x.metricARN(in.MetricName), Tags: in.Tags})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateFleetMetricResponse{MetricName: &in.MetricName, MetricArn: new(x.metricARN(in.MetricName))}, nil
}

func sameMetric(a, b *fleetMetric) error {
	text, err := json.Marshal(a.CreateFleetMetricRequest)
	if err != nil {
		return err
	}
	other, err := json.Marshal(b.CreateFleetMetricRequest)
	if err == nil && string(text) != string(other) {
		err = &iot.ResourceAlreadyExistsException{Message: "There is another fleet metric " + a.MetricName}
	}
	return err
}

// DescribeFleetMetric tells of a fleet metric.
//
// Errors: iot.ResourceNotFoundException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeFleetMetric.html
func (x *Index) DescribeFleetMetric(ctx context.Context, in *iot.DescribeFleetMetricRequest) (*iot.DescribeFleetMetricResponse, error) {
	var m *fleetMetric
	err := x.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		m, err = selectMetric(tx, in.MetricName)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, noMetric(in.MetricName)
	}
	if err != nil {
		return nil, err
	}
	return &iot.DescribeFleetMetricResponse{
		MetricName: &m.MetricName, MetricArn: new(x.metricARN(m.MetricName)), Description: m.Description, Unit: m.Unit, Period: &m.Period,
		IndexName: m.IndexName, QueryString: &m.QueryString, QueryVersion: m.QueryVersion,
		AggregationType: m.AggregationType, AggregationField: &m.AggregationField,
		Version: &m.version, CreationDate: seconds(m.created), LastModifiedDate: seconds(m.modified),
	}, nil
}

func seconds(ms int64) *aws.Time { return &aws.Time{Time: time.UnixMilli(ms)} }

// ListFleetMetrics lists fleet metrics by name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListFleetMetrics.html
func (x *Index) ListFleetMetrics(ctx context.Context, in *iot.ListFleetMetricsRequest) (*iot.ListFleetMetricsResponse, error) {
	size := 25
	if in.MaxResults != nil && *in.MaxResults > 0 {
		size = min(int(*in.MaxResults), 250)
	}
	var names []string
	err := x.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		names, err = selectNames(tx, `SELECT name FROM fleet_metric WHERE name > $1 ORDER BY name LIMIT $2`, value(in.NextToken), size+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListFleetMetricsResponse{FleetMetrics: []*iot.FleetMetricNameAndArn{}}
	if len(names) > size {
		names = names[:size]
		out.NextToken = &names[size-1]
	}
	for _, n := range names {
		out.FleetMetrics = append(out.FleetMetrics, &iot.FleetMetricNameAndArn{MetricName: &n, MetricArn: new(x.metricARN(n))})
	}
	return out, nil
}

// UpdateFleetMetric changes what is given and raises the version.
//
// Errors: as CreateFleetMetric, and iot.ResourceNotFoundException (metric), VersionConflictException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateFleetMetric.html
func (x *Index) UpdateFleetMetric(ctx context.Context, in *iot.UpdateFleetMetricRequest) (*iot.UpdateFleetMetricResponse, error) {
	err := x.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		m, err := selectMetric(tx, in.MetricName)
		if errors.Is(err, store.ErrNotFound) {
			return noMetric(in.MetricName)
		}
		if err != nil {
			return err
		}
		if in.ExpectedVersion != nil && *in.ExpectedVersion != m.version {
			return metricConflict(m)
		}
		m.update(in)
		if err := m.check(ctx, x); err != nil {
			return err
		}
		m.version, m.modified = m.version+1, x.now().UnixMilli()
		x.db.AfterCommit(ctx, func() { x.deps.Changes.Changed(kindMetric, in.MetricName) })
		return saveMetric(tx, m)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateFleetMetricResponse{}, nil
}

func metricConflict(m *fleetMetric) error {
	return &iot.VersionConflictException{Message: fmt.Sprintf("The fleet metric %s has version %d", m.MetricName, m.version)}
}

func (m *fleetMetric) update(in *iot.UpdateFleetMetricRequest) {
	m.IndexName = &in.IndexName
	if in.QueryString != nil {
		m.QueryString = *in.QueryString
	}
	if in.AggregationType != nil {
		m.AggregationType = in.AggregationType
	}
	if in.Period != nil {
		m.Period = *in.Period
	}
	if in.AggregationField != nil {
		m.AggregationField = *in.AggregationField
	}
	for _, change := range []struct{ to, from **string }{
		{&m.Description, &in.Description},
		{&m.QueryVersion, &in.QueryVersion},
		{&m.Unit, &in.Unit},
	} {
		if *change.from != nil {
			*change.to = *change.from
		}
	}
}

// DeleteFleetMetric ends a fleet metric; one that does not exist is no error.
//
// Errors: iot.VersionConflictException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteFleetMetric.html
func (x *Index) DeleteFleetMetric(ctx context.Context, in *iot.DeleteFleetMetricRequest) (*iot.DeleteFleetMetricResponse, error) {
	err := x.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		m, err := selectMetric(tx, in.MetricName)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if in.ExpectedVersion != nil && *in.ExpectedVersion != m.version {
			return metricConflict(m)
		}
		if _, err := tx.Exec(`DELETE FROM fleet_metric WHERE name = $1`, in.MetricName); err != nil {
			return err
		}
		x.db.AfterCommit(ctx, func() { x.deps.Changes.Changed(kindMetric, in.MetricName) })
		if x.deps.Tags == nil {
			return nil
		}
		return x.deps.Tags.DeleteTags(ctx, x.metricARN(in.MetricName))
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteFleetMetricResponse{}, nil
}

const metricColumns = `SELECT metric, version, created, modified FROM fleet_metric`

func scanMetric(row interface{ Scan(...any) error }) (*fleetMetric, error) {
	m := &fleetMetric{}
	var text string
	if err := row.Scan(&text, &m.version, &m.created, &m.modified); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &m.CreateFleetMetricRequest); err != nil {
		return nil, fmt.Errorf("index: fleet metric: %w", err)
	}
	return m, nil
}

func selectMetric(tx store.Tx, name string) (*fleetMetric, error) {
	return scanMetric(tx.QueryRow(metricColumns+` WHERE name = $1`, name))
}

func selectMetrics(tx store.Tx) (list []*fleetMetric, err error) {
	rows, err := tx.Query(metricColumns + ` ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m, err := scanMetric(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, errors.Join(rows.Err(), rows.Close())
}

func saveMetric(tx store.Tx, m *fleetMetric) error {
	text, err := json.Marshal(m.CreateFleetMetricRequest)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO fleet_metric (name, metric, version, created, modified) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (name) DO UPDATE SET metric = excluded.metric, version = excluded.version, modified = excluded.modified`,
		m.MetricName, string(text), m.version, m.created, m.modified)
	return err
}
