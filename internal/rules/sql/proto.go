package sql

import (
	"encoding/base64"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// decodeProto is decode(value, 'proto', bucket, key, file, message): value is * or the
// message in base64. The answer is the message as Protobuf's JSON.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/binary-payloads.html#binary-payloads-protobuf
func decodeProto(c *compiler, args []expr) eval {
	const name = "decode"
	c.prog.external = true
	c.prog.calls = append(c.prog.calls, name)
	if len(args) != 6 {
		return undefined
	}
	_, star := args[0].(*starExpr)
	of, where := c.expr(args[0]), c.list(args[2:])
	return func(f *frame) value {
		vals := make([]value, len(where))
		for i, arg := range where {
			vals[i] = arg(f)
		}
		switch {
		case f.in.External.Schemas == nil:
			return f.unanswered(name, errNotConfigured)
		case !texts(vals...):
			return f.unanswered(name, errArguments)
		case !f.spend(externalCost):
			return value{}
		}
		data := f.in.Payload
		if !star {
			v := of(f)
			if v.kind != stringKind {
				return f.unanswered(name, errArguments)
			}
			var err error
			if data, err = base64.StdEncoding.DecodeString(v.text); err != nil {
				return value{kind: nullKind}
			}
		}
		if !f.spend(len(data)) {
			return value{}
		}
		set, err := f.in.External.Schemas.DescriptorSet(f.context(), vals[0].text, vals[1].text)
		if err != nil || len(set) > maxAnswer {
			return f.answer(name, set, err)
		}
		text, err := protoToJSON(set, vals[2].text, vals[3].text, data)
		return f.answer(name, text, err)
	}
}

// protoToJSON reads data as a message that a file of a descriptor set declares; message
// is its full name, or its name without the package.
func protoToJSON(set []byte, file, message string, data []byte) ([]byte, error) {
	var descriptors descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(set, &descriptors); err != nil {
		return nil, fmt.Errorf("the descriptor set is not valid: %w", err)
	}
	files, err := protodesc.NewFiles(&descriptors)
	if err != nil {
		return nil, fmt.Errorf("the descriptor set is not valid: %w", err)
	}
	fd, err := files.FindFileByPath(file)
	if err != nil {
		return nil, fmt.Errorf("the descriptor set has no file %q", file)
	}
	name := protoreflect.FullName(message)
	d, err := files.FindDescriptorByName(name)
	if err != nil && fd.Package() != "" {
		d, err = files.FindDescriptorByName(fd.Package() + "." + name)
	}
	md, ok := d.(protoreflect.MessageDescriptor)
	if err != nil || !ok || md.ParentFile().Path() != fd.Path() {
		return nil, errors.New("the file declares no such message")
	}
	m := dynamicpb.NewMessage(md)
	if err := (proto.UnmarshalOptions{RecursionLimit: 100}).Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("the payload is no such message: %w", err)
	}
	return protojson.MarshalOptions{}.Marshal(m)
}
