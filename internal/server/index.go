package server

import (
	"flotilla/internal/api"
	"flotilla/internal/aws/iot"
	"flotilla/internal/index"
)

// followIndex has the index hear of what it indexes.
func followIndex(c *changes, x *index.Index) {
	c.things = append(c.things, x.ThingChanged)
	c.groups = append(c.groups, x.GroupChanged)
	c.presences = append(c.presences, x.PresenceChanged)
}

// routeIndex lists the operations of fleet indexing.
func routeIndex(s *api.Server, x *index.Index) {
	api.Handle(s, iot.CreateFleetMetric, x.CreateFleetMetric)
	api.Handle(s, iot.DeleteFleetMetric, x.DeleteFleetMetric)
	api.Handle(s, iot.DescribeFleetMetric, x.DescribeFleetMetric)
	api.Handle(s, iot.DescribeIndex, x.DescribeIndex)
	api.Handle(s, iot.GetBucketsAggregation, x.GetBucketsAggregation)
	api.Handle(s, iot.GetCardinality, x.GetCardinality)
	api.Handle(s, iot.GetIndexingConfiguration, x.GetIndexingConfiguration)
	api.Handle(s, iot.GetPercentiles, x.GetPercentiles)
	api.Handle(s, iot.GetStatistics, x.GetStatistics)
	api.Handle(s, iot.GetThingConnectivityData, x.GetThingConnectivityData)
	api.Handle(s, iot.ListFleetMetrics, x.ListFleetMetrics)
	api.Handle(s, iot.ListIndices, x.ListIndices)
	api.Handle(s, iot.SearchIndex, x.SearchIndex)
	api.Handle(s, iot.UpdateFleetMetric, x.UpdateFleetMetric)
	api.Handle(s, iot.UpdateIndexingConfiguration, x.UpdateIndexingConfiguration)
}
