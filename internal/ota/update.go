package ota

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	prefix        = "AFR_OTA-" // of the jobs and streams of updates, as on AWS
	maxJobID      = 64
	defaultExpiry = 1800 // seconds of a presigned URL
)

// CreateOTAUpdate makes a job that tells things of new files, and the stream that they come from unless they come by HTTP
// alone or the request names one. A file whose certificate is given must be signed by its key. All is done, or nothing, when
// this returns: the status is CREATE_COMPLETE at once.
//
// Errors: InvalidRequestException, ResourceAlreadyExistsException, ResourceNotFoundException (a stream, a target),
// LimitExceededException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateOTAUpdate.html
func (o *OTA) CreateOTAUpdate(ctx context.Context, in *iot.CreateOTAUpdateRequest) (*iot.CreateOTAUpdateResponse, error) {
	u := &update{def: *in, job: prefix + in.OtaUpdateId, created: o.nowMS()}
	u.def.Tags = nil
	if len(u.job) > maxJobID {
		return nil, invalid("otaUpdateId has at most %d characters: its job is called %sID", maxJobID-len(prefix), prefix)
	}
	if len(u.def.Protocols) == 0 {
		u.def.Protocols = []string{iot.ProtocolMqtt}
	}
	p, err := o.plan(ctx, u)
	if err != nil {
		return nil, err
	}
	document, err := p.document(u.def.Protocols, u.stream)
	if err != nil {
		return nil, err
	}
	job := o.jobOf(u, document)
	var made *iot.CreateJobResponse
	err = o.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := insertUpdate(tx, u); err != nil {
			return err
		}
		if u.ownsStream {
			if err := o.addStream(ctx, tx, &stream{id: u.stream, role: in.RoleArn, files: p.inStream()}, nil); err != nil {
				return err
			}
		}
		var err error
		if made, err = o.Jobs.CreateJob(ctx, job); err != nil || len(in.Tags) == 0 {
			return err
		}
		_, err = o.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: o.updateARN(in.OtaUpdateId), Tags: in.Tags})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateOTAUpdateResponse{
		OtaUpdateId: &in.OtaUpdateId, OtaUpdateArn: new(o.updateARN(in.OtaUpdateId)),
		AwsIotJobId: &u.job, AwsIotJobArn: made.JobArn, OtaUpdateStatus: new(iot.OTAUpdateStatusCreateComplete),
	}, nil
}

// jobOf is the job of an update.
func (o *OTA) jobOf(u *update, document string) *iot.CreateJobRequest {
	d := &u.def
	job := &iot.CreateJobRequest{
		JobId: u.job, Targets: d.Targets, Document: &document, Description: d.Description, TargetSelection: d.TargetSelection,
		PresignedUrlConfig: &iot.PresignedUrlConfig{RoleArn: &d.RoleArn, ExpiresInSec: new(int64(defaultExpiry))},
	}
	if p := d.AwsJobPresignedUrlConfig; p != nil && p.ExpiresInSec != nil {
		job.PresignedUrlConfig.ExpiresInSec = p.ExpiresInSec
	}
	if t := d.AwsJobTimeoutConfig; t != nil {
		job.TimeoutConfig = &iot.TimeoutConfig{InProgressTimeoutInMinutes: t.InProgressTimeoutInMinutes}
	}
	if r := d.AwsJobExecutionsRolloutConfig; r != nil {
		job.JobExecutionsRolloutConfig = &iot.JobExecutionsRolloutConfig{MaximumPerMinute: r.MaximumPerMinute}
		if e := r.ExponentialRate; e != nil {
			job.JobExecutionsRolloutConfig.ExponentialRate = &iot.ExponentialRolloutRate{
				BaseRatePerMinute: e.BaseRatePerMinute, IncrementFactor: e.IncrementFactor,
			}
			if c := e.RateIncreaseCriteria; c != nil {
				job.JobExecutionsRolloutConfig.ExponentialRate.RateIncreaseCriteria = &iot.RateIncreaseCriteria{
					NumberOfNotifiedThings: c.NumberOfNotifiedThings, NumberOfSucceededThings: c.NumberOfSucceededThings,
				}
			}
		}
	}
	if a := d.AwsJobAbortConfig; a != nil {
		job.AbortConfig = &iot.AbortConfig{}
		for _, c := range a.AbortCriteriaList {
			job.AbortConfig.CriteriaList = append(job.AbortConfig.CriteriaList, new(iot.AbortCriteria(*c)))
		}
	}
	return job
}

// GetOTAUpdate gives an update. What became of it is told by its job. Errors: ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetOTAUpdate.html
func (o *OTA) GetOTAUpdate(ctx context.Context, in *iot.GetOTAUpdateRequest) (*iot.GetOTAUpdateResponse, error) {
	u, err := o.readUpdate(ctx, in.OtaUpdateId)
	if err != nil {
		return nil, err
	}
	d := &u.def
	for i, f := range d.Files { // on AWS too the stream is what the answer names
		if u.ownsStream && value(f.FileLocation).S3Location != nil {
			f.FileLocation = &iot.FileLocation{Stream: &iot.Stream{StreamId: &u.stream, FileId: new(int32(i))}, S3Location: f.FileLocation.S3Location}
		}
	}
	return &iot.GetOTAUpdateResponse{OtaUpdateInfo: &iot.OTAUpdateInfo{
		OtaUpdateId: &d.OtaUpdateId, OtaUpdateArn: new(o.updateARN(d.OtaUpdateId)), CreationDate: timeOf(u.created), LastModifiedDate: timeOf(u.created),
		Description: d.Description, Targets: d.Targets, Protocols: d.Protocols, AwsJobExecutionsRolloutConfig: d.AwsJobExecutionsRolloutConfig,
		AwsJobPresignedUrlConfig: d.AwsJobPresignedUrlConfig, TargetSelection: d.TargetSelection, OtaUpdateFiles: d.Files,
		OtaUpdateStatus: new(iot.OTAUpdateStatusCreateComplete), AwsIotJobId: &u.job, AwsIotJobArn: new(o.Account.ARN("iot", "job/"+u.job)),
		AdditionalParameters: d.AdditionalParameters,
	}}, nil
}

func (o *OTA) readUpdate(ctx context.Context, id string) (u *update, err error) {
	err = o.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		u, err = getUpdate(tx, id)
		return err
	})
	return u, err
}

// ListOTAUpdates lists in order of creation, the newest first.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListOTAUpdates.html
func (o *OTA) ListOTAUpdates(ctx context.Context, in *iot.ListOTAUpdatesRequest) (*iot.ListOTAUpdatesResponse, error) {
	p, err := newPage(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &iot.ListOTAUpdatesResponse{OtaUpdates: []*iot.OTAUpdateSummary{}}
	if s := in.OtaUpdateStatus; s != nil && *s != iot.OTAUpdateStatusCreateComplete {
		return out, nil // updates have no other
	}
	var list []*update
	err = o.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		list, err = selectUpdates(tx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	list, out.NextToken = cut(p, list, func(u *update) (int64, string) { return u.created, u.def.OtaUpdateId })
	for _, u := range list {
		out.OtaUpdates = append(out.OtaUpdates, &iot.OTAUpdateSummary{
			OtaUpdateId: &u.def.OtaUpdateId, OtaUpdateArn: new(o.updateARN(u.def.OtaUpdateId)), CreationDate: timeOf(u.created),
		})
	}
	return out, nil
}

// DeleteOTAUpdate deletes an update with its job, and with the stream that was made for it if deleteStream says so.
//
// Errors: ResourceNotFoundException, InvalidRequestException (the job has not ended, and forceDeleteAWSJob is not set).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteOTAUpdate.html
func (o *OTA) DeleteOTAUpdate(ctx context.Context, in *iot.DeleteOTAUpdateRequest) (*iot.DeleteOTAUpdateResponse, error) {
	err := o.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		u, err := getUpdate(tx, in.OtaUpdateId)
		if err != nil {
			return err
		}
		_, err = o.Jobs.DeleteJob(ctx, &iot.DeleteJobRequest{JobId: u.job, Force: in.ForceDeleteAWSJob})
		if _, running := errors.AsType[*iot.InvalidStateTransitionException](err); running {
			return invalid("Job %s has not ended: forceDeleteAWSJob deletes it all the same", u.job)
		}
		if _, gone := errors.AsType[*iot.ResourceNotFoundException](err); err != nil && !gone {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM ota_update WHERE ota_update_id = $1`, in.OtaUpdateId); err != nil {
			return err
		}
		if u.ownsStream && value(in.DeleteStream) {
			var others int
			if err := tx.QueryRow(`SELECT count(*) FROM ota_update WHERE stream_id <> '' AND stream_id = $1`, u.stream).Scan(&others); err != nil {
				return err
			}
			if others == 0 {
				if err := o.dropStream(ctx, tx, u.stream); err != nil {
					return err
				}
			}
		}
		return o.Tags.DeleteTags(ctx, o.updateARN(in.OtaUpdateId))
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteOTAUpdateResponse{}, nil
}

// UpdateTaggable tells whether an OTA update exists; for tags.
func (o *OTA) UpdateTaggable(ctx context.Context, id string) error {
	_, err := o.readUpdate(ctx, id)
	return err
}

// planned is a file of an update, found and with its signature checked.
type planned struct {
	file
	of *iot.OTAUpdateFile
}

type plan []planned

// inStream are the files as a stream has them.
func (p plan) inStream() (out []file) {
	for _, f := range p {
		out = append(out, f.file)
	}
	return out
}

// plan looks the files of an update up and settles its stream.
func (o *OTA) plan(ctx context.Context, u *update) (plan, error) {
	mqtt := false
	for _, p := range u.def.Protocols {
		mqtt = mqtt || p == iot.ProtocolMqtt
	}
	var p plan
	var of *stream // that the request names
	located := 0
	for i, f := range u.def.Files {
		if f == nil || f.FileLocation == nil || (f.FileLocation.Stream == nil) == (f.FileLocation.S3Location == nil) {
			return nil, invalid("files[%d].fileLocation has either stream or s3Location", i)
		}
		next := planned{of: f}
		if l := f.FileLocation.Stream; l != nil {
			id := value(l.StreamId)
			if of == nil {
				var err error
				if of, err = o.readStream(ctx, id); err != nil {
					return nil, err
				}
			}
			found := of.file(int64(value(l.FileId)))
			if of.id != id || found == nil {
				return nil, invalid("files[%d]: the files of an update are in one stream, and there is no file %d in %s", i, value(l.FileId), of.id)
			}
			next.file = *found
		} else {
			found, err := o.find(ctx, f.FileLocation.S3Location)
			if err != nil {
				return nil, err
			}
			located++
			next.file, next.ID = *found, int32(i)
		}
		if err := o.checkSigning(ctx, i, &next); err != nil {
			return nil, err
		}
		p = append(p, next)
	}
	switch {
	case of != nil && located > 0:
		return nil, invalid("The files of an update are either all in a stream or all objects")
	case of != nil:
		u.stream = of.id
	case mqtt:
		if len(p) > 50 {
			return nil, invalid("A stream has at most 50 files")
		}
		u.stream, u.ownsStream = prefix+uuid.NewString(), true
	}
	return p, nil
}

// find is locate within the time that it may take.
func (o *OTA) find(ctx context.Context, l *iot.S3Location) (*file, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	f, err := o.locate(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("ota: %w", err)
	}
	return f, nil
}
