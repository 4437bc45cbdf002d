package sql

import (
	"math"
)

// function is a function of the language. One of compile, none, one, two and many is
// set; a call with another number of arguments is Undefined.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html
type function struct {
	since    version
	min, max int
	external bool // reads other systems

	compile func(c *compiler, args []expr) eval
	none    func(f *frame) value
	one     func(f *frame, v value) value
	two     func(f *frame, a, b value) value
	many    func(f *frame, args []value) value
}

const anyNumber = math.MaxInt

func none(since version, fn func(f *frame) value) *function {
	return &function{since: since, none: fn}
}

func one(since version, fn func(f *frame, v value) value) *function {
	return &function{since: since, min: 1, max: 1, one: fn}
}

func two(since version, fn func(f *frame, a, b value) value) *function {
	return &function{since: since, min: 2, max: 2, two: fn}
}

func many(since version, least, most int, fn func(f *frame, args []value) value) *function {
	return &function{since: since, min: least, max: most, many: fn}
}

func compiled(since version, least, most int, fn func(c *compiler, args []expr) eval) *function {
	return &function{since: since, min: least, max: most, compile: fn}
}

func external(least, most int, fn func(f *frame, args []value) value) *function {
	return &function{since: v2, min: least, max: most, external: true, many: fn}
}

// functions are all functions by their names in small letters, but for cast, which
// has a syntax of its own. It is never changed.
var functions = map[string]*function{
	// numbers
	"abs":       one(v1, abs),
	"acos":      double(math.Acos),
	"asin":      double(math.Asin),
	"atan":      double(math.Atan),
	"atan2":     double2(math.Atan2),
	"bitand":    bitwise(bitAnd),
	"bitor":     bitwise(bitOr),
	"bitxor":    bitwise(bitXor),
	"bitnot":    one(v1, bitNot),
	"ceil":      rounded(up),
	"cos":       double(math.Cos),
	"cosh":      double(math.Cosh),
	"exp":       double(math.Exp),
	"floor":     rounded(down),
	"ln":        double(math.Log),
	"log":       double(math.Log10),
	"mod":       two(v1, mod),
	"nanvl":     two(v1, nanvl),
	"power":     double2(math.Pow),
	"rand":      none(v1, random),
	"remainder": two(v1, mod),
	"round":     rounded(nearest),
	"sign":      one(v1, sign),
	"sin":       double(math.Sin),
	"sinh":      double(math.Sinh),
	"sqrt":      double(math.Sqrt),
	"tan":       double(math.Tan),
	"tanh":      double(math.Tanh),
	"trunc":     two(v1, trunc),

	// texts
	"chr":            one(v1, chr),
	"concat":         many(v1, 0, anyNumber, concat),
	"endswith":       two(v1, endsWith),
	"indexof":        two(v2, indexOf),
	"length":         one(v2, length),
	"lower":          one(v1, lower),
	"lpad":           two(v1, padLeft),
	"ltrim":          one(v1, trimLeft),
	"numbytes":       one(v2, numBytes),
	"regexp_matches": compiled(v1, 2, 2, regexpMatches),
	"regexp_replace": compiled(v1, 3, 3, regexpReplace),
	"regexp_substr":  compiled(v1, 2, 2, regexpSubstr),
	"replace":        many(v1, 3, 3, replace),
	"rpad":           two(v1, padRight),
	"rtrim":          one(v1, trimRight),
	"startswith":     two(v1, startsWith),
	"substring":      many(v1, 2, 3, substring),
	"trim":           one(v1, trim),
	"upper":          one(v1, upper),

	// hashes
	"md2":    hash(md2Sum),
	"md5":    hash(md5Sum),
	"sha1":   hash(sha1Sum),
	"sha224": hash(sha224Sum),
	"sha256": hash(sha256Sum),
	"sha384": hash(sha384Sum),
	"sha512": hash(sha512Sum),

	// values
	"decode":         compiled(v2, 2, 6, decode),
	"encode":         compiled(v2, 2, 2, encode),
	"get":            two(v1, get),
	"get_or_default": many(v2, 1, 2, getOrDefault),
	"isnull":         one(v1, isNull),
	"isundefined":    one(v2, isUndefined),
	"transform":      many(v2, 3, 3, transform),

	// times
	"parse_time":    compiled(v2, 2, 3, parseTime),
	"time_to_epoch": compiled(v2, 2, 2, timeToEpoch),
	"timestamp":     none(v1, timestamp),

	// the message
	"accountid":           none(v1, accountID),
	"clientid":            none(v1, clientID),
	"get_mqtt_property":   one(v2, mqttProperty),
	"get_user_properties": many(v2, 0, 1, userProperties),
	"newuuid":             none(v1, newUUID),
	"principal":           none(v1, principal),
	"sourceip":            none(v1, sourceIP),
	"sql_version":         none(v1, sqlVersion),
	"topic":               compiled(v1, 0, 1, topicSegment),
	"traceid":             none(v1, traceID),

	// other systems
	"aws_lambda":              {since: v1, min: 2, max: 2, external: true, many: awsLambda},
	"get_dynamodb":            {since: v2, min: 4, max: 6, external: true, compile: getDynamoDB},
	"get_registry_data":       external(3, 3, getRegistryData),
	"get_secret":              external(3, 4, getSecret),
	"get_thing_shadow":        external(2, 3, getThingShadow),
	"machinelearning_predict": {since: v1, min: 3, max: 3, external: true, many: predict},
}
