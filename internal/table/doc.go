// Package table is DynamoDB's tables, in the store: items of a hash key and an optional range key, as DynamoDB JSON.
//
// A table is there as soon as it is created. Keys are bytes whose order is that of the values, so that a Query is a
// range of the primary key. Reads are consistent. There are no secondary indexes, transactions over operations and
// streams; what asks for them is refused by name.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/Welcome.html
package table
