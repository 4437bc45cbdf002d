// Package query is the fleet indexing query language: it parses a query string into a tree and holds documents against it.
//
//	query    all *("OR" all)
//	all      item *(["AND"] item)                     side by side means AND
//	item     ("NOT" | "-") item | "(" query ")" | [field ":"] test | field ("<" | "<=" | ">" | ">=") word
//	test     "(" query ")"                            its terms are about the field
//	         word | "\"" words "\""                   word may have * and ?
//	         ("[" | "{") low "TO" high ("]" | "}")    [ ] with, { } without the bound; * is open
//	         ("<" | "<=" | ">" | ">=") word
//	         geo_distance,LAT,LON,NUMBER(m|km|mi) | geo_bounding_box,LAT,LON,LAT,LON | geo_polygon,LAT,LON,LAT,LON,LAT,LON,...
//
// White space may stand before and after the colon or comparison that follows a field.
//
// Fields are case-sensitive, values are not. A value is searched word by word; words are what white space separates.
// A backslash takes the meaning from the character that follows it. NOT binds closer than AND, AND than OR.
//
// The package is pure: a [Query] is immutable and safe for concurrent use.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/query-syntax.html
// and https://docs.aws.amazon.com/iot/latest/developerguide/example-queries.html
package query
