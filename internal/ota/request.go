package ota

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of requests, as AWS documents them.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt-based-file-delivery-in-devices.html
const (
	minBlock   = 256
	maxBlock   = 131_072
	maxOffset  = 98_304
	maxBlocks  = 98_304
	maxBitmap  = 12_287  // bytes
	maxToken   = 64      // bytes
	maxAnswer  = 131_072 // bytes of blocks for a request
	maxPayload = 65_536  // bytes of a request: more than the longest bitmap takes
)

// refusal is what …/rejected says.
type refusal struct{ code, message string }

func (r *refusal) Error() string { return r.code + ": " + r.message }

func refuse(code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// The codes of refusals.
const (
	invalidTopic     = "InvalidTopic"
	invalidRequest   = "InvalidRequest"
	blockSizeBounds  = "BlockSizeOutOfBounds"
	offsetBounds     = "OffsetOutOfBounds"
	blockCountLimit  = "BlockCountLimitExceeded"
	bitmapLimit      = "BlockBitmapLimitExceeded"
	resourceNotFound = "ResourceNotFound"
	versionMismatch  = "VersionMismatch"
	etagMismatch     = "ETagMismatch"
	internalError    = "InternalError"
)

// request is a request of a thing.
type request struct {
	token   *string
	version *int64 // of the stream
	file    int64
	block   int64  // bytes of a block
	offset  int64  // blocks
	count   int64  // blocks; 0: as many as an answer has
	bitmap  []byte // nil: none. Bit 0 of byte 0 is the block at the offset
}

// members are a request as it is written.
type members struct {
	Token   any `json:"c" cbor:"c"`
	Version any `json:"s" cbor:"s"`
	File    any `json:"f" cbor:"f"`
	Block   any `json:"l" cbor:"l"`
	Offset  any `json:"o" cbor:"o"`
	Count   any `json:"n" cbor:"n"`
	Bitmap  any `json:"b" cbor:"b"`
}

// decode reads a payload strictly: one object, no name twice, valid UTF-8, no tags, bounded nesting. An empty one is {}.
func (m *members) decode(format string, payload []byte) error {
	code := "InvalidJson"
	if format == "cbor" {
		code = "InvalidCbor"
	}
	if len(payload) > maxPayload {
		return refuse(invalidRequest, "The request is longer than %d bytes", maxPayload)
	}
	if len(payload) == 0 {
		return nil
	}
	var err error
	if format == "cbor" {
		var mode cbor.DecMode
		mode, err = cbor.DecOptions{
			DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 4, MaxArrayElements: 64, MaxMapPairs: 64,
			TagsMd: cbor.TagsForbidden, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive, UTF8: cbor.UTF8RejectInvalid,
		}.DecMode()
		if err == nil {
			err = mode.Unmarshal(payload, m)
		}
	} else {
		err = json.Unmarshal(payload, m, json.WithUnmarshalers(json.UnmarshalFromFunc(wholeNumber)))
	}
	if err != nil {
		return refuse(code, "The request is no valid %s object", strings.ToUpper(format))
	}
	return nil
}

// number is the text of a number of JSON.
type number string

// wholeNumber keeps the text of a number that has no type.
func wholeNumber(d *jsontext.Decoder, v *any) error {
	if d.PeekKind() != '0' {
		return errors.ErrUnsupported
	}
	text, err := d.ReadValue()
	*v = number(text.String())
	return err
}

// parse reads a request for blocks, or one for a description, which has a token alone. A token that is in order is given
// with any refusal of the rest.
func parse(format string, payload []byte, describe bool) (*request, error) {
	var m members
	r := &request{}
	if err := m.decode(format, payload); err != nil {
		return r, err
	}
	if m.Token != nil {
		token, ok := m.Token.(string)
		if !ok || len(token) > maxToken {
			return r, refuse(invalidRequest, "c, the client token, is a string of at most %d bytes", maxToken)
		}
		r.token = &token
	}
	if describe {
		return r, nil
	}
	var err error
	if m.Version != nil {
		r.version = new(int64)
	}
	for _, f := range []struct {
		name     string
		from     any
		to       *int64
		required bool
	}{
		{"s, the stream version,", m.Version, r.version, false},
		{"f, the file id,", m.File, &r.file, true},
		{"l, the block size,", m.Block, &r.block, true},
		{"o, the offset,", m.Offset, &r.offset, false},
		{"n, the number of blocks,", m.Count, &r.count, false},
	} {
		if f.from == nil && !f.required {
			continue
		}
		if *f.to, err = integer(f.from); err != nil {
			return r, refuse(invalidRequest, "%s %v", f.name, err)
		}
	}
	if r.bitmap, err = bitmap(m.Bitmap); err != nil {
		return r, err
	}
	switch {
	case r.block < minBlock || r.block > maxBlock:
		return r, refuse(blockSizeBounds, "The block size is out of bounds: %d to %d bytes", minBlock, maxBlock)
	case r.offset < 0 || r.offset > maxOffset:
		return r, refuse(offsetBounds, "The offset is out of bounds: 0 to %d", maxOffset)
	case r.count < 0 || r.count > maxBlocks:
		return r, refuse(blockCountLimit, "The number of blocks is out of bounds: 0 to %d", maxBlocks)
	}
	return r, nil
}

// integer reads a number, also one that is written as a string, as AWS does.
func integer(v any) (int64, error) {
	switch v := v.(type) {
	case nil:
		return 0, fmt.Errorf("is missing")
	case uint64:
		if v <= 1<<53 {
			return int64(v), nil
		}
	case int64:
		return v, nil
	case number:
		return integer(string(v))
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("is no integer")
}

// bitmap reads bytes, or their hexadecimal text such as 0x130080.
func bitmap(v any) (b []byte, err error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []byte:
		b = v
	case string:
		text := strings.TrimPrefix(strings.TrimPrefix(v, "0x"), "0X")
		if b, err = hex.DecodeString(text); err != nil {
			return nil, refuse(invalidRequest, "b, the bitmap, is no string of hexadecimal bytes")
		}
	default:
		return nil, refuse(invalidRequest, "b, the bitmap, is neither bytes nor their hexadecimal text")
	}
	switch {
	case len(b) == 0:
		return nil, refuse(invalidRequest, "b, the bitmap, is empty")
	case len(b) > maxBitmap:
		return nil, refuse(bitmapLimit, "The bitmap has more than %d bytes", maxBitmap)
	}
	return b, nil
}

// blocks are the numbers of the blocks that an answer has, of a file with a number of bytes: in order, as many as were asked
// for and fit in 128 KiB.
func (r *request) blocks(size int64) []int64 {
	limit := max(1, maxAnswer/r.block)
	if r.count > 0 {
		limit = min(limit, r.count)
	}
	end := (size + r.block - 1) / r.block
	var out []int64
	if r.bitmap == nil {
		for n := r.offset; n < end && int64(len(out)) < limit; n++ {
			out = append(out, n)
		}
		return out
	}
	for i := range int64(len(r.bitmap)) * 8 {
		n := r.offset + i
		if n >= end || int64(len(out)) >= limit {
			break
		}
		if r.bitmap[i/8]>>(i%8)&1 == 1 {
			out = append(out, n)
		}
	}
	return out
}
