package ota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-json-experiment/json"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
)

// Filter is the topics that ServeMQTT serves.
const Filter = "$aws/things/+/streams/#"

// description is the payload of …/description.
type description struct {
	Token   *string    `json:"c,omitempty" cbor:"c,omitempty"`
	Version int64      `json:"s" cbor:"s"`
	Text    *string    `json:"d,omitempty" cbor:"d,omitempty"`
	Files   []fileSize `json:"r" cbor:"r"`
}

type fileSize struct {
	ID   int32 `json:"f" cbor:"f"`
	Size int64 `json:"z" cbor:"z"`
}

// block is the payload of …/data. Its data are bytes in CBOR and base64 in JSON. AWS's page says hexadecimal for JSON; base64 is
// what AWS's MQTT file streams library for devices decodes.
type block struct {
	Token *string `json:"c,omitempty" cbor:"c,omitempty"`
	File  int64   `json:"f" cbor:"f"`
	Size  int     `json:"l" cbor:"l"`
	ID    int64   `json:"i" cbor:"i"`
	Data  []byte  `json:"p" cbor:"p"`
}

// rejection is the payload of …/rejected.
type rejection struct {
	Code    string  `json:"o" cbor:"o"`
	Message string  `json:"m" cbor:"m"`
	Token   *string `json:"c,omitempty" cbor:"c,omitempty"`
}

// call is a request and where it is answered.
type call struct {
	thing, stream, verb, format string
}

// parseTopic takes the topic of a request apart. ok is false when there is nowhere to answer.
func parseTopic(topic string) (c call, ok bool) {
	parts := strings.Split(strings.TrimPrefix(topic, "$aws/things/"), "/")
	if len(parts) != 5 || parts[1] != "streams" || parts[0] == "" || parts[2] == "" || parts[4] != "json" && parts[4] != "cbor" {
		return call{}, false
	}
	return call{parts[0], parts[2], parts[3], parts[4]}, true
}

func (c call) topic(verb string) string {
	return "$aws/things/" + c.thing + "/streams/" + c.stream + "/" + verb + "/" + c.format
}

// ServeMQTT serves a request on $aws/things/T/streams/…, and returns once it is answered. A request that is refused is
// answered, and is no error. Requests of a connection come one after the other; of a thing at most four are served at once,
// of all things as many as Config.MaxRequests says.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt-based-file-delivery-in-devices.html
func (o *OTA) ServeMQTT(ctx context.Context, m *mqtt.Message) error {
	c, ok := parseTopic(m.Topic)
	if !ok {
		return fmt.Errorf("ota: %s: %w", m.Topic, mqtt.TopicNameInvalid)
	}
	r, err := o.serve(ctx, c, m.Payload)
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*refusal](err)
	if ok {
		err = nil
	} else {
		refused = &refusal{internalError, "The request can't be served now"}
		err = fmt.Errorf("ota: %s: %w", m.Topic, err)
	}
	o.metrics.refused.WithLabelValues(refused.code).Inc()
	return errors.Join(err, o.publish(ctx, c, "rejected", rejection{refused.code, refused.message, r.token}))
}

func (o *OTA) serve(ctx context.Context, c call, payload []byte) (*request, error) {
	if c.verb != "describe" && c.verb != "get" {
		return &request{}, refuse(invalidTopic, "The topic is neither that of describe nor that of get")
	}
	r, err := parse(c.format, payload, c.verb == "describe")
	if err != nil {
		return r, err
	}
	leave, err := o.enter(ctx, c.thing)
	if err != nil {
		return r, err
	}
	defer leave()
	s, err := o.readStream(ctx, c.stream)
	if _, no := errors.AsType[*iot.ResourceNotFoundException](err); no {
		return r, refuse(resourceNotFound, "There is no stream %s", c.stream)
	}
	if err != nil {
		return r, err
	}
	if c.verb == "describe" {
		d := description{Token: r.token, Version: s.version, Text: s.description, Files: []fileSize{}}
		for _, f := range s.files {
			d.Files = append(d.Files, fileSize{f.ID, f.Size})
		}
		return r, o.publish(ctx, c, "description", d)
	}
	return r, o.get(ctx, c, s, r)
}

// enter waits for the room's turn to serve a thing, and gives what ends it. A thing that has too many requests under way is
// refused at once.
func (o *OTA) enter(ctx context.Context, thing string) (leave func(), err error) {
	o.mu.Lock()
	if o.under[thing] >= perThing {
		o.mu.Unlock()
		return nil, refuse(invalidRequest, "%d requests of the thing are under way; ask again after their answers", perThing)
	}
	o.under[thing]++
	o.mu.Unlock()
	done := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.under[thing]--; o.under[thing] == 0 {
			delete(o.under, thing)
		}
	}
	select {
	case o.slots <- struct{}{}:
		return func() { <-o.slots; done() }, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}

// get publishes the blocks that a request asks for.
func (o *OTA) get(ctx context.Context, c call, s *stream, r *request) error {
	if r.version != nil && *r.version != s.version {
		return refuse(versionMismatch, "The stream has version %d", s.version)
	}
	f := s.file(r.file)
	if f == nil {
		return refuse(resourceNotFound, "The stream has no file %d", r.file)
	}
	ids := r.blocks(f.Size)
	if len(ids) == 0 {
		return refuse(resourceNotFound, "The request names no block of the file, which has %d", (f.Size+r.block-1)/r.block)
	}
	for len(ids) > 0 {
		run := 1
		for run < len(ids) && ids[run] == ids[0]+int64(run) {
			run++
		}
		data, err := o.readBlocks(ctx, f, ids[0]*r.block, int64(run)*r.block)
		if err != nil {
			return err
		}
		for _, id := range ids[:run] {
			part := data[:min(len(data), int(r.block))]
			data = data[len(part):]
			if err := o.publish(ctx, c, "data", block{Token: r.token, File: r.file, Size: len(part), ID: id, Data: part}); err != nil {
				return err
			}
			o.metrics.blocks.Inc()
			o.metrics.bytes.Add(float64(len(part)))
		}
		ids = ids[run:]
	}
	return nil
}

// readBlocks reads a part of a file, if it is still what the stream has: all bytes up to the end of the file.
func (o *OTA) readBlocks(ctx context.Context, f *file, offset, length int64) ([]byte, error) {
	length = min(length, f.Size-offset)
	part, size, version, err := o.Objects.ReadRange(ctx, f.Bucket, f.Key, offset, length)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refuse(resourceNotFound, "The object of file %d is not there any more", f.ID)
	case err != nil:
		return nil, err
	case version != f.ETag || size != f.Size || int64(len(part)) != length:
		return nil, refuse(etagMismatch, "The object of file %d has changed since the stream was made or updated", f.ID)
	}
	return part, nil
}

func (o *OTA) publish(ctx context.Context, c call, verb string, payload any) error {
	var b []byte
	var err error
	if c.format == "cbor" {
		b, err = cbor.Marshal(payload)
	} else {
		b, err = json.Marshal(payload)
	}
	if err != nil {
		return err
	}
	return o.Publisher.Publish(ctx, &mqtt.Message{Topic: c.topic(verb), Payload: b, Received: o.cfg.Now()})
}
