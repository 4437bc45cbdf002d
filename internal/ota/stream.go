package ota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// settle looks the objects of a stream's files up. It refuses what is not there, is empty or too large, or is named twice.
func (o *OTA) settle(ctx context.Context, in []*iot.StreamFile) ([]file, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var out []file
	seen := map[int32]bool{}
	for i, f := range in {
		switch {
		case f == nil || f.FileId == nil:
			return nil, invalid("files[%d] has no fileId", i)
		case seen[*f.FileId]:
			return nil, invalid("fileId %d is there twice", *f.FileId)
		}
		seen[*f.FileId] = true
		s, err := o.locate(ctx, f.S3Location)
		if err != nil {
			return nil, fmt.Errorf("ota: file %d: %w", *f.FileId, err)
		}
		s.ID = *f.FileId
		out = append(out, *s)
	}
	return out, nil
}

// locate looks one object up.
func (o *OTA) locate(ctx context.Context, l *iot.S3Location) (*file, error) {
	if l == nil || value(l.Bucket) == "" || value(l.Key) == "" {
		return nil, invalid("s3Location has both bucket and key")
	}
	if v := value(l.Version); v != "" && v != "null" {
		return nil, invalid("s3Location.version: versions of objects are not implemented")
	}
	f := &file{Bucket: *l.Bucket, Key: *l.Key}
	_, size, version, err := o.Objects.ReadRange(ctx, f.Bucket, f.Key, 0, 1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid("There is no object %s in bucket %s", f.Key, f.Bucket)
	}
	if err != nil {
		o.Log.Warn("an object of a stream can't be read", "err", err)
		return nil, invalid("The object %s of bucket %s can't be read", f.Key, f.Bucket)
	}
	if size < 1 || size > o.cfg.MaxFileBytes {
		return nil, invalid("The object %s of bucket %s has %d bytes; a file has 1 to %d", f.Key, f.Bucket, size, o.cfg.MaxFileBytes)
	}
	f.Size, f.ETag = size, version
	return f, nil
}

// CreateStream makes a stream of objects as they are now.
//
// Errors: InvalidRequestException (also: an object can't be read), ResourceAlreadyExistsException, LimitExceededException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateStream.html
func (o *OTA) CreateStream(ctx context.Context, in *iot.CreateStreamRequest) (*iot.CreateStreamResponse, error) {
	files, err := o.settle(ctx, in.Files)
	if err != nil {
		return nil, err
	}
	s := &stream{id: in.StreamId, description: in.Description, role: in.RoleArn, files: files}
	err = o.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error { return o.addStream(ctx, tx, s, in.Tags) })
	if err != nil {
		return nil, err
	}
	return &iot.CreateStreamResponse{StreamId: &s.id, StreamArn: new(o.streamARN(s.id)), Description: s.description, StreamVersion: new(int32(1))}, nil
}

// addStream inserts a new stream.
func (o *OTA) addStream(ctx context.Context, tx store.Tx, s *stream, tags []*iot.Tag) error {
	if o.cfg.Limits == "aws" {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM stream`).Scan(&n); err != nil {
			return err
		}
		if n >= maxStreams {
			return &iot.LimitExceededException{Message: fmt.Sprintf("An account has at most %d streams.", maxStreams)}
		}
	}
	s.version, s.created = 1, o.nowMS()
	s.modified = s.created
	if err := insertStream(tx, s); err != nil || len(tags) == 0 {
		return err
	}
	_, err := o.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: o.streamARN(s.id), Tags: tags})
	return err
}

func (o *OTA) readStream(ctx context.Context, id string) (s *stream, err error) {
	err = o.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		s, err = getStream(tx, id)
		return err
	})
	return s, err
}

// DescribeStream gives a stream. Errors: ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeStream.html
func (o *OTA) DescribeStream(ctx context.Context, in *iot.DescribeStreamRequest) (*iot.DescribeStreamResponse, error) {
	s, err := o.readStream(ctx, in.StreamId)
	if err != nil {
		return nil, err
	}
	info := &iot.StreamInfo{
		StreamId: &s.id, StreamArn: new(o.streamARN(s.id)), StreamVersion: new(int32(s.version)), Description: s.description,
		CreatedAt: timeOf(s.created), LastUpdatedAt: timeOf(s.modified), RoleArn: &s.role,
	}
	for _, f := range s.files {
		info.Files = append(info.Files, &iot.StreamFile{FileId: &f.ID, S3Location: &iot.S3Location{Bucket: &f.Bucket, Key: &f.Key}})
	}
	return &iot.DescribeStreamResponse{StreamInfo: info}, nil
}

// ListStreams lists in order of creation, the newest first unless isAscendingOrder.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListStreams.html
func (o *OTA) ListStreams(ctx context.Context, in *iot.ListStreamsRequest) (*iot.ListStreamsResponse, error) {
	p, err := newPage(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	var list []*stream
	err = o.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		list, err = selectStreams(tx, p, value(in.AscendingOrder))
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListStreamsResponse{Streams: []*iot.StreamSummary{}}
	list, out.NextToken = cut(p, list, func(s *stream) (int64, string) { return s.created, s.id })
	for _, s := range list {
		out.Streams = append(out.Streams, &iot.StreamSummary{
			StreamId: &s.id, StreamArn: new(o.streamARN(s.id)), StreamVersion: new(int32(s.version)), Description: s.description,
		})
	}
	return out, nil
}

// UpdateStream replaces what is given, and looks the objects of the files up again; the version is one more then.
//
// Errors: InvalidRequestException, ResourceNotFoundException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateStream.html
func (o *OTA) UpdateStream(ctx context.Context, in *iot.UpdateStreamRequest) (*iot.UpdateStreamResponse, error) {
	before, err := o.readStream(ctx, in.StreamId)
	if err != nil {
		return nil, err
	}
	named := in.Files
	if len(named) == 0 {
		for _, f := range before.files {
			named = append(named, &iot.StreamFile{FileId: &f.ID, S3Location: &iot.S3Location{Bucket: &f.Bucket, Key: &f.Key}})
		}
	}
	files, err := o.settle(ctx, named)
	if err != nil {
		return nil, err
	}
	var s *stream
	err = o.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		if s, err = getStream(tx, in.StreamId); err != nil {
			return err
		}
		if len(in.Files) == 0 && s.version != before.version {
			return invalid("The stream was updated by somebody else at the same time")
		}
		s.version, s.files, s.modified = s.version+1, files, o.nowMS()
		if in.Description != nil {
			s.description = in.Description
		}
		if in.RoleArn != nil {
			s.role = *in.RoleArn
		}
		return saveStream(tx, s)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateStreamResponse{StreamId: &s.id, StreamArn: new(o.streamARN(s.id)), Description: s.description, StreamVersion: new(int32(s.version))}, nil
}

// DeleteStream deletes a stream; the objects stay. Errors: ResourceNotFoundException, DeleteConflictException (an OTA update
// has it).
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteStream.html
func (o *OTA) DeleteStream(ctx context.Context, in *iot.DeleteStreamRequest) (*iot.DeleteStreamResponse, error) {
	err := o.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := getStream(tx, in.StreamId); err != nil {
			return err
		}
		var user string
		err := tx.QueryRow(`SELECT ota_update_id FROM ota_update WHERE stream_id <> '' AND stream_id = $1 LIMIT 1`, in.StreamId).Scan(&user)
		if err == nil {
			return &iot.DeleteConflictException{Message: fmt.Sprintf("OTA update %s has stream %s.", user, in.StreamId)}
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return o.dropStream(ctx, tx, in.StreamId)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteStreamResponse{}, nil
}

func (o *OTA) dropStream(ctx context.Context, tx store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM stream WHERE stream_id = $1`, id)
	return errors.Join(err, o.Tags.DeleteTags(ctx, o.streamARN(id)))
}

// StreamTaggable tells whether a stream exists; for tags.
func (o *OTA) StreamTaggable(ctx context.Context, id string) error {
	_, err := o.readStream(ctx, id)
	return err
}
