package shadow

import (
	"context"
	"encoding/base64"
	"errors"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/shadow/doc"
)

// GetThingShadow returns the classic shadow of a thing, or a named one: JSON
// with state (desired, reported, delta), metadata, version and timestamp.
//
// Errors: ResourceNotFoundException, ThrottlingException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iotdata_GetThingShadow.html
func (s *Shadows) GetThingShadow(ctx context.Context, in *iotdata.GetThingShadowRequest) (*iotdata.GetThingShadowResponse, error) {
	body, err := s.get(ctx, named(in.ThingName, in.ShadowName), "")
	if err != nil {
		return nil, exception(err)
	}
	return &iotdata.GetThingShadowResponse{Payload: body}, nil
}

// UpdateThingShadow updates or creates a shadow and returns what MQTT clients
// see on update/accepted; they see delta and documents as well.
//
//	payload  JSON {"state":{"desired":{…}|null,"reported":{…}|null},"version":int?,"clientToken":string?}
//
// Errors: InvalidRequestException, ResourceNotFoundException (no such thing),
// ConflictException (version), RequestEntityTooLargeException,
// UnsupportedDocumentEncodingException, ThrottlingException. It must not be
// called inside a transaction: it waits for its own.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iotdata_UpdateThingShadow.html
func (s *Shadows) UpdateThingShadow(ctx context.Context, in *iotdata.UpdateThingShadowRequest) (*iotdata.UpdateThingShadowResponse, error) {
	body, _, err := s.update(ctx, named(in.ThingName, in.ShadowName), in.Payload, authorOf(ctx, nil))
	if err != nil {
		return nil, exception(err)
	}
	return &iotdata.UpdateThingShadowResponse{Payload: body}, nil
}

// DeleteThingShadow deletes a shadow and returns its last version and the time,
// as MQTT clients see them on delete/accepted. It must not be called inside a
// transaction.
//
// Errors: ResourceNotFoundException, ThrottlingException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iotdata_DeleteThingShadow.html
func (s *Shadows) DeleteThingShadow(ctx context.Context, in *iotdata.DeleteThingShadowRequest) (*iotdata.DeleteThingShadowResponse, error) {
	body, err := s.delete(ctx, named(in.ThingName, in.ShadowName), "", authorOf(ctx, nil))
	if err != nil {
		return nil, exception(err)
	}
	return &iotdata.DeleteThingShadowResponse{Payload: body}, nil
}

// defaultPage is how many names a page has when the caller does not say.
const defaultPage = 25

// ListNamedShadowsForThing returns the names of a thing's named shadows, in
// order, pageSize (1-100) at a time.
//
// Errors: ResourceNotFoundException (no such thing), InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iotdata_ListNamedShadowsForThing.html
func (s *Shadows) ListNamedShadowsForThing(ctx context.Context, in *iotdata.ListNamedShadowsForThingRequest) (*iotdata.ListNamedShadowsForThingResponse, error) {
	page, after := defaultPage, ""
	if in.PageSize != nil {
		page = int(*in.PageSize)
	}
	if page < 1 || page > 100 {
		return nil, &iotdata.InvalidRequestException{Message: "pageSize must be between 1 and 100"}
	}
	if in.NextToken != nil {
		name, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		if err != nil || !validName(string(name), 64, true) {
			return nil, &iotdata.InvalidRequestException{Message: "Invalid nextToken"}
		}
		after = string(name)
	}
	names, err := s.names(ctx, in.ThingName, after, page+1)
	if err != nil {
		return nil, exception(err)
	}
	out := &iotdata.ListNamedShadowsForThingResponse{Results: names, Timestamp: new(s.cfg.Now().Unix())}
	if len(names) > page {
		out.Results = names[:page]
		out.NextToken = new(base64.RawURLEncoding.EncodeToString([]byte(names[page-1])))
	}
	return out, nil
}

// ShadowDocument returns a shadow as GetThingShadow does; name is "" for the
// classic one. It serves get_thing_shadow of the rules' SQL.
//
// Errors: iotdata.ResourceNotFoundException.
func (s *Shadows) ShadowDocument(ctx context.Context, thing, name string) ([]byte, error) {
	body, err := s.get(ctx, ref{thing, name}, "")
	return body, exception(err)
}

func named(thing string, shadow *string) ref {
	if shadow == nil {
		return ref{thing: thing}
	}
	return ref{thing, *shadow}
}

// exception turns refusals into the API's exceptions.
func exception(err error) error {
	e, ok := errors.AsType[*doc.Error](err)
	if !ok {
		return err
	}
	switch e.Code {
	case 404:
		return &iotdata.ResourceNotFoundException{Message: e.Message}
	case 409:
		return &iotdata.ConflictException{Message: e.Message}
	case 413:
		return &iotdata.RequestEntityTooLargeException{Message: e.Message}
	case 415:
		return &iotdata.UnsupportedDocumentEncodingException{Message: e.Message}
	case 429:
		return &iotdata.ThrottlingException{Message: e.Message}
	case 500:
		return &iotdata.InternalFailureException{Message: e.Message}
	}
	return &iotdata.InvalidRequestException{Message: e.Message}
}
