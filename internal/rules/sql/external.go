package sql

import (
	"encoding/base64"
	"errors"
	"strings"
)

// maxAnswer bounds what another system may answer.
const maxAnswer = 1 << 20

// Why an external function is Undefined, besides what the system itself says.
var (
	errNotConfigured = errors.New("the function is not available here")
	errNotJSON       = errors.New("the answer is not JSON")
	errTooLarge      = errors.New("the answer is too large")
	errArguments     = errors.New("an argument has the wrong type")
)

// answer is the value of what another system said, Undefined when it failed.
func (f *frame) answer(function string, answer []byte, err error) value {
	if ctxErr := f.context().Err(); ctxErr != nil {
		f.fail(ctxErr)
		return value{}
	}
	if err == nil && len(answer) > maxAnswer {
		err = errTooLarge
	}
	text := ""
	if err == nil {
		text = f.built(strings.Trim(string(answer), " \t\r\n"))
		if !isJSON(text) {
			err = errNotJSON
		}
	}
	if err != nil {
		return f.unanswered(function, err)
	}
	return fromJSON(text, f.prog.whole)
}

func (f *frame) unanswered(function string, err error) value {
	if f.in.Failed != nil && !f.failed() {
		f.in.Failed(function, err)
	}
	return value{}
}

// texts are arguments that must be Strings.
func texts(args ...value) bool {
	for _, v := range args {
		if v.kind != stringKind {
			return false
		}
	}
	return true
}

const externalCost = 1000 // steps

func awsLambda(f *frame, args []value) value {
	const name = "aws_lambda"
	switch {
	case f.in.External.Lambda == nil:
		return f.unanswered(name, errNotConfigured)
	case !texts(args[0]) || args[1].isUndefined():
		return f.unanswered(name, errArguments)
	case !f.spend(externalCost):
		return value{}
	}
	input := f.appendValue(nil, args[1])
	if f.failed() {
		return value{}
	}
	answer, err := f.in.External.Lambda.InvokeLambda(f.context(), args[0].text, input)
	return f.answer(name, answer, err)
}

// getThingShadow has the name of the shadow between the others, or not.
func getThingShadow(f *frame, args []value) value {
	const name = "get_thing_shadow"
	thing, shadow, role := args[0], stringValue(""), args[len(args)-1]
	if len(args) == 3 {
		shadow = args[1]
	}
	switch {
	case f.in.External.Shadows == nil:
		return f.unanswered(name, errNotConfigured)
	case !texts(thing, shadow, role):
		return f.unanswered(name, errArguments)
	case !f.spend(externalCost):
		return value{}
	}
	answer, err := f.in.External.Shadows.GetThingShadow(f.context(), thing.text, shadow.text, role.text)
	return f.answer(name, answer, err)
}

func getRegistryData(f *frame, args []value) value {
	const name = "get_registry_data"
	switch {
	case f.in.External.Registry == nil:
		return f.unanswered(name, errNotConfigured)
	case !texts(args...) || args[0].text != "DescribeThing" && args[0].text != "ListThingGroupsForThing":
		return f.unanswered(name, errArguments)
	case !f.spend(externalCost):
		return value{}
	}
	answer, err := f.in.External.Registry.RegistryData(f.context(), args[0].text, args[1].text, args[2].text)
	return f.answer(name, answer, err)
}

// getDynamoDB is allowed once in a statement.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-function-get-dynamodb
func getDynamoDB(c *compiler, args []expr) eval {
	const name = "get_dynamodb"
	c.prog.dynamodb++
	if len(args) == 5 {
		return undefined
	}
	of := c.list(args)
	return func(f *frame) value {
		if f.prog.dynamodb > 1 {
			f.fail(ErrCalls)
			return value{}
		}
		vals := make([]value, len(of))
		for i, arg := range of {
			vals[i] = arg(f)
		}
		role := vals[len(vals)-1]
		key := TableKey{TableName: vals[0].text, PartitionKey: vals[1].text, RoleARN: role.text}
		ok := texts(vals[0], vals[1], role)
		keyValue := func(v value) string {
			ok = ok && (v.kind == stringKind || v.kind == numberKind)
			return string(f.appendValue(nil, v))
		}
		key.PartitionValue = keyValue(vals[2])
		if len(vals) == 6 {
			ok = ok && texts(vals[3])
			key.SortKey, key.SortValue = vals[3].text, keyValue(vals[4])
		}
		switch {
		case f.in.External.Tables == nil:
			return f.unanswered(name, errNotConfigured)
		case !ok:
			return f.unanswered(name, errArguments)
		case !f.spend(externalCost):
			return value{}
		}
		item, err := f.in.External.Tables.GetItem(f.context(), key)
		if err == nil && item == nil {
			return value{}
		}
		return f.answer(name, item, err)
	}
}

// getSecret is the secret, or a key of the JSON object in its SecretString.
func getSecret(f *frame, args []value) value {
	const name = "get_secret"
	id, kind, role := args[0], args[1], args[len(args)-1]
	switch {
	case f.in.External.Secrets == nil:
		return f.unanswered(name, errNotConfigured)
	case !texts(args...) || kind.text != "SecretString" && kind.text != "SecretBinary",
		kind.text == "SecretBinary" && len(args) == 4:
		return f.unanswered(name, errArguments)
	case !f.spend(externalCost):
		return value{}
	}
	secret, err := f.in.External.Secrets.GetSecret(f.context(), id.text, kind.text, role.text)
	switch {
	case err != nil || len(secret) > maxAnswer:
		return f.answer(name, secret, err)
	case kind.text == "SecretBinary":
		return stringValue(f.built(base64.StdEncoding.EncodeToString(secret)))
	}
	v := f.parsed(f.built(string(secret)))
	if len(args) == 3 {
		if v.kind != objectKind {
			return stringValue(string(secret))
		}
		return v
	}
	if v.kind != objectKind {
		return f.unanswered(name, errNotJSON)
	}
	return f.member(v, args[2].text)
}

// predict flattens the record: members that are no simple values become their text.
func predict(f *frame, args []value) value {
	const name = "machinelearning_predict"
	switch {
	case f.in.External.Models == nil:
		return f.unanswered(name, errNotConfigured)
	case !texts(args[0], args[1]) || args[2].kind != objectKind:
		return f.unanswered(name, errArguments)
	case !f.spend(externalCost):
		return value{}
	}
	record := f.members(args[2]).copy()
	f.spend(len(record.keys))
	for i, v := range record.vals {
		if v.kind == arrayKind || v.kind == objectKind {
			s, _ := f.toText(v)
			record.vals[i] = stringValue(s)
		}
	}
	text := f.appendValue(nil, objectValue(record))
	if f.failed() {
		return value{}
	}
	answer, err := f.in.External.Models.Predict(f.context(), args[0].text, args[1].text, text)
	return f.answer(name, answer, err)
}
