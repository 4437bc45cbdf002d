// Package expression is the language of DynamoDB's expressions: conditions, filters, key conditions, updates and
// projections, on attribute values of the model. An expression has at most 4 KB, 300 operators and functions, and a
// bounded depth, so that evaluating it takes no longer than its operands are large.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html
package expression
