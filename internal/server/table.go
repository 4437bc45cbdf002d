package server

import (
	"flotilla/internal/api"
	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/table"
)

// routeTables plugs DynamoDB's operations in.
func routeTables(s *api.Server, t *table.Tables) {
	api.Handle(s, dynamodb.BatchGetItem, t.BatchGetItem)
	api.Handle(s, dynamodb.BatchWriteItem, t.BatchWriteItem)
	api.Handle(s, dynamodb.CreateTable, t.CreateTable)
	api.Handle(s, dynamodb.DeleteItem, t.DeleteItem)
	api.Handle(s, dynamodb.DeleteTable, t.DeleteTable)
	api.Handle(s, dynamodb.DescribeTable, t.DescribeTable)
	api.Handle(s, dynamodb.DescribeTimeToLive, t.DescribeTimeToLive)
	api.Handle(s, dynamodb.GetItem, t.GetItem)
	api.Handle(s, dynamodb.ListTables, t.ListTables)
	api.Handle(s, dynamodb.PutItem, t.PutItem)
	api.Handle(s, dynamodb.Query, t.Query)
	api.Handle(s, dynamodb.Scan, t.Scan)
	api.Handle(s, dynamodb.UpdateItem, t.UpdateItem)
	api.Handle(s, dynamodb.UpdateTable, t.UpdateTable)
	api.Handle(s, dynamodb.UpdateTimeToLive, t.UpdateTimeToLive)
}
