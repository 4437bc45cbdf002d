package api_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdkiot "github.com/aws/aws-sdk-go-v2/service/iot"
	sdktypes "github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	datatypes "github.com/aws/aws-sdk-go-v2/service/iotdataplane/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/api"
	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
)

// TestSDKControlPlane: AWS's SDK encodes and decodes, this project never.
func TestSDKControlPlane(t *testing.T) {
	w := newWorld(t, api.Config{})
	ctx := t.Context()
	var created *iot.CreateThingRequest
	var caller *aws.Caller
	api.Handle(w.Server, iot.CreateThing, func(ctx context.Context, in *iot.CreateThingRequest) (*iot.CreateThingResponse, error) {
		created, caller = in, aws.CallerFrom(ctx)
		return &iot.CreateThingResponse{ThingName: &in.ThingName, ThingArn: new(account.ARN("iot", "thing/"+in.ThingName)), ThingId: new("id\u00e9\"\n")}, nil
	})
	out, err := w.iot().CreateThing(ctx, &sdkiot.CreateThingInput{
		ThingName: new("a:b_c-d"), ThingTypeName: new("lamp"),
		AttributePayload: &sdktypes.AttributePayload{Attributes: map[string]string{"site": "x,y", "k": ""}, Merge: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &iot.CreateThingRequest{
		ThingName: "a:b_c-d", ThingTypeName: new("lamp"),
		AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"site": "x,y", "k": ""}, Merge: new(true)},
	}
	if d := cmp.Diff(want, created); d != "" {
		t.Error(d)
	}
	if *out.ThingName != "a:b_c-d" || *out.ThingArn != "arn:aws:iot:us-east-1:123456789012:thing/a:b_c-d" || *out.ThingId != "id\u00e9\"\n" {
		t.Errorf("%+v", out)
	}
	if caller == nil || caller.ARN != "arn:aws:iam::123456789012:user/admin" || caller.Account != account.ID || caller.SourceIP != "127.0.0.1" || caller.RequestID == "" {
		t.Errorf("caller %+v", caller)
	}

	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	api.Handle(w.Server, iot.DescribeCertificate, func(_ context.Context, in *iot.DescribeCertificateRequest) (*iot.DescribeCertificateResponse, error) {
		return &iot.DescribeCertificateResponse{CertificateDescription: &iot.CertificateDescription{
			CertificateId: &in.CertificateId, CreationDate: &aws.Time{Time: at}, CustomerVersion: new(int32(7)),
			Validity: &iot.CertificateValidity{NotAfter: &aws.Time{Time: at.Truncate(time.Second)}},
		}}, nil
	})
	id := strings.Repeat("0a", 32)
	d, err := w.iot().DescribeCertificate(ctx, &sdkiot.DescribeCertificateInput{CertificateId: &id})
	if err != nil {
		t.Fatal(err)
	}
	c := d.CertificateDescription
	if *c.CertificateId != id || !c.CreationDate.Equal(at) || !c.Validity.NotAfter.Equal(at.Truncate(time.Second)) || *c.CustomerVersion != 7 || c.Validity.NotBefore != nil {
		t.Errorf("%+v", c)
	}
}

// TestSDKHeadersAndQuery: principals travel in headers, pages in the query.
func TestSDKHeadersAndQuery(t *testing.T) {
	w := newWorld(t, api.Config{})
	ctx := t.Context()
	principal := "arn:aws:iot:us-east-1:123456789012:cert/00"
	api.Handle(w.Server, iot.ListPrincipalThings, func(_ context.Context, in *iot.ListPrincipalThingsRequest) (*iot.ListPrincipalThingsResponse, error) {
		if in.Principal != principal || *in.MaxResults != 3 || *in.NextToken != "a b+c/d=&é" {
			return nil, fmt.Errorf("got %+v", in)
		}
		return &iot.ListPrincipalThingsResponse{}, nil
	})
	out, err := w.iot().ListPrincipalThings(ctx, &sdkiot.ListPrincipalThingsInput{Principal: &principal, MaxResults: new(int32(3)), NextToken: new("a b+c/d=&é")})
	if err != nil {
		t.Fatal(err)
	}
	if out.Things == nil {
		t.Error("an empty list is not there")
	}
	api.Handle(w.Server, iot.CreateTopicRule, func(_ context.Context, in *iot.CreateTopicRuleRequest) (*iot.CreateTopicRuleResponse, error) {
		a := in.TopicRulePayload.Actions[0].Republish
		if in.RuleName != "r" || in.TopicRulePayload.Sql != "SELECT * FROM 'a/#'" || a.Topic != "b" || *a.Qos != 1 || *in.Tags != "k=v" {
			return nil, fmt.Errorf("got %+v", in)
		}
		return &iot.CreateTopicRuleResponse{}, nil
	})
	_, err = w.iot().CreateTopicRule(ctx, &sdkiot.CreateTopicRuleInput{
		RuleName: new("r"), Tags: new("k=v"),
		TopicRulePayload: &sdktypes.TopicRulePayload{Sql: new("SELECT * FROM 'a/#'"), Actions: []sdktypes.Action{
			{Republish: &sdktypes.RepublishAction{Topic: new("b"), RoleArn: new("arn:aws:iam::123456789012:role/r"), Qos: new(int32(1))}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSDKExceptions: exceptions made deep inside arrive as the SDK's types, with
// their members.
func TestSDKExceptions(t *testing.T) {
	w := newWorld(t, api.Config{})
	var fail error
	api.Handle(w.Server, iot.CreateThing, func(context.Context, *iot.CreateThingRequest) (*iot.CreateThingResponse, error) { return nil, fail })
	call := func(err error) error {
		fail = err
		_, err = w.iot().CreateThing(t.Context(), &sdkiot.CreateThingInput{ThingName: new("t")})
		return err
	}
	err := call(fmt.Errorf("registry: %w", errors.Join(errors.New("x"), &iot.ResourceAlreadyExistsException{Message: "Thing t exists", ResourceId: "t", ResourceArn: "arn"})))
	var exists *sdktypes.ResourceAlreadyExistsException
	if !errors.As(err, &exists) || exists.ErrorMessage() != "Thing t exists" || *exists.ResourceId != "t" || *exists.ResourceArn != "arn" {
		t.Errorf("%v", err)
	}
	err = call(&iot.ThrottlingException{Message: "slow"})
	var throttled *sdktypes.ThrottlingException
	if !errors.As(err, &throttled) {
		t.Errorf("%v", err)
	}
	err = call(errors.New("disk is full of secrets"))
	var internal smithy.APIError
	if !errors.As(err, &internal) || internal.ErrorCode() != "InternalFailureException" || strings.Contains(err.Error(), "disk") {
		t.Errorf("%v", err)
	}
	if log := w.log.String(); strings.Count(log, "disk is full") != 1 || !strings.Contains(log, "op=CreateThing requestId=") {
		t.Errorf("log:\n%s", log)
	}
	_, err = w.iot().ListThings(t.Context(), &sdkiot.ListThingsInput{})
	if !errors.As(err, &internal) || internal.ErrorCode() != "NotImplementedException" || !strings.Contains(internal.ErrorMessage(), "ListThings") {
		t.Errorf("%v", err)
	}
}

func TestSDKDataPlane(t *testing.T) {
	w := newWorld(t, api.Config{})
	ctx := t.Context()
	var published *iotdata.PublishRequest
	api.Handle(w.Server, iotdata.Publish, func(_ context.Context, in *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
		published = in
		return &iotdata.PublishResponse{}, nil
	})
	api.Handle(w.Server, iotdata.UpdateThingShadow, func(_ context.Context, in *iotdata.UpdateThingShadowRequest) (*iotdata.UpdateThingShadowResponse, error) {
		if *in.ShadowName != "$a:b" {
			return nil, &iotdata.ConflictException{Message: "Version conflict"}
		}
		return &iotdata.UpdateThingShadowResponse{Payload: in.Payload}, nil
	})
	topics := []string{"a", "/a/b//c/", "$aws/rules/r/x", "a%2Fb", "é ü+&=?#", "a:b"}
	for _, topic := range topics {
		payload := []byte{0, 1, 255}
		_, err := w.data().Publish(ctx, &iotdataplane.PublishInput{
			Topic: &topic, Payload: payload, Qos: 1, Retain: true,
			UserProperties: new(`[{"k":"v"}]`), PayloadFormatIndicator: datatypes.PayloadFormatIndicatorUtf8Data, MessageExpiry: 60,
			ContentType: new("text/plain"), ResponseTopic: new("r/t"), CorrelationData: new("Yw=="),
		})
		if err != nil {
			t.Errorf("%q: %v", topic, err)
			continue
		}
		want := &iotdata.PublishRequest{
			Topic: topic, Payload: payload, Qos: new(int32(1)), Retain: new(true), UserProperties: new(`[{"k":"v"}]`), PayloadFormatIndicator: new("UTF8_DATA"),
			MessageExpiry: new(int64(60)), ContentType: new("text/plain"), ResponseTopic: new("r/t"), CorrelationData: new("Yw=="),
		}
		if d := cmp.Diff(want, published); d != "" {
			t.Errorf("%q: %s", topic, d)
		}
	}
	doc := []byte(`{"state":{"desired":{"a":1}}}`)
	out, err := w.data().UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{ThingName: new("t"), ShadowName: new("$a:b"), Payload: doc})
	if err != nil || string(out.Payload) != string(doc) {
		t.Errorf("%v %v", out, err)
	}
	_, err = w.data().UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{ThingName: new("t"), ShadowName: new("x"), Payload: doc})
	var conflict *datatypes.ConflictException
	if !errors.As(err, &conflict) || conflict.ErrorMessage() != "Version conflict" {
		t.Errorf("%v", err)
	}
}
