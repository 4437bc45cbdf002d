package ota_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/ota"
	"flotilla/internal/ota/firmware"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func TestStreams(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, ctx := newWorld(t, db), t.Context()
		w.put("b", "k", image(10))
		w.put("b", "large", image(20))
		in := &iot.CreateStreamRequest{StreamId: "s", RoleArn: role, Description: new("d"), Files: []*iot.StreamFile{inBucket(3, "b", "k")}, Tags: []*iot.Tag{{Key: "k"}}}
		made, err := w.CreateStream(ctx, in)
		if err != nil || *made.StreamVersion != 1 || *made.StreamArn != "arn:aws:iot:us-east-1:123456789012:stream/s" || w.tags[*made.StreamArn] != 1 {
			t.Fatalf("%+v %v %v", made, err, w.tags)
		}
		if _, err := w.CreateStream(ctx, in); !is[*iot.ResourceAlreadyExistsException](err) {
			t.Errorf("again: %v", err)
		}
		for name, files := range map[string][]*iot.StreamFile{
			"no object": {inBucket(0, "b", "none")}, "no id": {{S3Location: in.Files[0].S3Location}}, "no place": {{FileId: new(int32(1))}},
			"twice":   {inBucket(1, "b", "k"), inBucket(1, "b", "large")},
			"version": {{FileId: new(int32(1)), S3Location: &iot.S3Location{Bucket: new("b"), Key: new("k"), Version: new("abc")}}},
		} {
			if _, err := w.CreateStream(ctx, &iot.CreateStreamRequest{StreamId: "x", RoleArn: role, Files: files}); !is[*iot.InvalidRequestException](err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		updated, err := w.UpdateStream(ctx, &iot.UpdateStreamRequest{StreamId: "s", Files: []*iot.StreamFile{inBucket(0, "b", "large")}})
		if err != nil || *updated.StreamVersion != 2 || *updated.Description != "d" {
			t.Fatalf("%+v %v", updated, err)
		}
		w.put("b", "large", image(30))
		if updated, err = w.UpdateStream(ctx, &iot.UpdateStreamRequest{StreamId: "s", Description: new("e")}); err != nil || *updated.StreamVersion != 3 {
			t.Fatalf("%+v %v", updated, err)
		}
		d, err := w.DescribeStream(ctx, &iot.DescribeStreamRequest{StreamId: "s"})
		if err != nil {
			t.Fatal(err)
		}
		want := &iot.StreamInfo{
			StreamId: new("s"), StreamArn: made.StreamArn, StreamVersion: new(int32(3)), Description: new("e"), RoleArn: new(role),
			Files: []*iot.StreamFile{inBucket(0, "b", "large")}, CreatedAt: d.StreamInfo.CreatedAt, LastUpdatedAt: d.StreamInfo.LastUpdatedAt,
		}
		if diff := cmp.Diff(want, d.StreamInfo); diff != "" || !d.StreamInfo.LastUpdatedAt.After(d.StreamInfo.CreatedAt.Time) {
			t.Error(diff)
		}
		if got := w.ask("$aws/things/T/streams/s/get/json", []byte(`{"f":0,"l":256}`)); len(got) != 1 || decode(t, got[0]).L != 30 {
			t.Errorf("the object as the update found it: %+v", got)
		}
		for _, id := range []string{"t", "u", "v"} {
			w.stream(id, "b", "k")
		}
		for ascending, want := range map[bool]string{false: "v u t s", true: "s t u v"} {
			var got []string
			in := &iot.ListStreamsRequest{MaxResults: new(int32(1)), AscendingOrder: &ascending}
			for more := true; more; more = in.NextToken != nil {
				out, err := w.ListStreams(ctx, in)
				if err != nil || len(out.Streams) != 1 {
					t.Fatalf("%+v %v", out, err)
				}
				got = append(got, *out.Streams[0].StreamId)
				in.NextToken = out.NextToken
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%v", got)
			}
		}
		if _, err := w.ListStreams(ctx, &iot.ListStreamsRequest{NextToken: new("?")}); !is[*iot.InvalidRequestException](err) {
			t.Errorf("%v", err)
		}
		if _, err := w.DeleteStream(ctx, &iot.DeleteStreamRequest{StreamId: "s"}); err != nil || len(w.tags) != 0 {
			t.Errorf("%v %v", err, w.tags)
		}
		if _, err := w.DeleteStream(ctx, &iot.DeleteStreamRequest{StreamId: "s"}); !is[*iot.ResourceNotFoundException](err) {
			t.Errorf("%v", err)
		}
		if _, err := w.UpdateStream(ctx, &iot.UpdateStreamRequest{StreamId: "s"}); !is[*iot.ResourceNotFoundException](err) {
			t.Errorf("%v", err)
		}
	})
}

func TestFileLimit(t *testing.T) {
	w := newWorld(t, storetest.Open(t), func(c *ota.Config) { c.MaxFileBytes = 100 })
	w.put("b", "k", image(100))
	w.stream("s", "b", "k")
	for _, n := range []int{0, 101} {
		w.put("b", "k", image(n))
		if _, err := w.CreateStream(t.Context(), &iot.CreateStreamRequest{StreamId: "x", RoleArn: role, Files: []*iot.StreamFile{inBucket(0, "b", "k")}}); !is[*iot.InvalidRequestException](err) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// signer is a key with its certificate in PEM.
func signer(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// signed is the signature of an image.
func signed(t *testing.T, key *ecdsa.PrivateKey, certificate, image []byte) []byte {
	t.Helper()
	s, err := firmware.Sign(key, certificate, "a", "1", bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	var m firmware.Manifest
	if err := json.Unmarshal(s.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	return m.Signature
}

func custom(signature, certificate []byte) *iot.CodeSigning {
	return &iot.CodeSigning{CustomCodeSigning: &iot.CustomCodeSigning{
		Signature:        &iot.CodeSigningSignature{InlineDocument: signature},
		CertificateChain: &iot.CodeSigningCertificateChain{CertificateName: new("/certs/ota.pem"), InlineDocument: new(string(certificate))},
		HashAlgorithm:    new("SHA256"), SignatureAlgorithm: new("ECDSA"),
	}}
}

func update(id string, protocols []string, files ...*iot.OTAUpdateFile) *iot.CreateOTAUpdateRequest {
	return &iot.CreateOTAUpdateRequest{OtaUpdateId: id, Targets: []string{account.ARN("iot", "thing/T")}, RoleArn: role, Protocols: protocols, Files: files}
}

func object(key string) *iot.FileLocation {
	return &iot.FileLocation{S3Location: &iot.S3Location{Bucket: new("b"), Key: &key}}
}

func TestUpdate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, ctx := newWorld(t, db), t.Context()
		data := image(2_500_000)
		w.put("b", "v 1/{x}&.bin", data)
		key, certificate := signer(t)
		signature := signed(t, key, certificate, data)
		in := update("u", []string{"MQTT", "HTTP"}, &iot.OTAUpdateFile{
			FileName: new("/fw.bin"), FileType: new(int32(7)), FileLocation: object("v 1/{x}&.bin"), CodeSigning: custom(signature, certificate),
		})
		in.AwsJobExecutionsRolloutConfig = &iot.AwsJobExecutionsRolloutConfig{MaximumPerMinute: new(int32(9))}
		in.AwsJobAbortConfig = &iot.AwsJobAbortConfig{AbortCriteriaList: []*iot.AwsJobAbortCriteria{{FailureType: "FAILED", Action: "CANCEL", ThresholdPercentage: 1.5, MinNumberOfExecutedThings: 2}}}
		in.AwsJobTimeoutConfig = &iot.AwsJobTimeoutConfig{InProgressTimeoutInMinutes: new(int64(5))}
		in.AdditionalParameters = map[string]string{"a": "b"}
		in.Tags = []*iot.Tag{{Key: "k"}}
		made, err := w.CreateOTAUpdate(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		if *made.AwsIotJobId != "AFR_OTA-u" || *made.OtaUpdateStatus != "CREATE_COMPLETE" || *made.OtaUpdateArn != "arn:aws:iot:us-east-1:123456789012:otaupdate/u" || w.tags[*made.OtaUpdateArn] != 1 {
			t.Errorf("%+v %v", made, w.tags)
		}
		streams, err := w.ListStreams(ctx, &iot.ListStreamsRequest{})
		if err != nil || len(streams.Streams) != 1 {
			t.Fatalf("%+v %v", streams, err)
		}
		stream := *streams.Streams[0].StreamId
		job := w.job("AFR_OTA-u")
		var document map[string]any
		if err := json.Unmarshal([]byte(*job.Document), &document); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"afr_ota": map[string]any{
			"protocols": []any{"MQTT", "HTTP"}, "streamname": stream,
			"files": []any{map[string]any{
				"filepath": "/fw.bin", "filesize": 2_500_000.0, "fileid": 0.0, "fileType": 7.0, "certfile": "/certs/ota.pem",
				"sig-sha256-ecdsa": base64.StdEncoding.EncodeToString(signature), "auth_scheme": "aws.s3.presigned",
				"update_data_url": "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/v%201/%7Bx%7D&.bin}",
			}},
		}}
		if diff := cmp.Diff(want, document); diff != "" {
			t.Error(diff)
		}
		if *job.PresignedUrlConfig.ExpiresInSec != 1800 || *job.PresignedUrlConfig.RoleArn != role || *job.JobExecutionsRolloutConfig.MaximumPerMinute != 9 ||
			job.AbortConfig.CriteriaList[0].ThresholdPercentage != 1.5 || *job.TimeoutConfig.InProgressTimeoutInMinutes != 5 || job.Targets[0] != in.Targets[0] {
			t.Errorf("%+v", job)
		}
		got, err := w.GetOTAUpdate(ctx, &iot.GetOTAUpdateRequest{OtaUpdateId: "u"})
		if err != nil || *got.OtaUpdateInfo.OtaUpdateFiles[0].FileLocation.Stream.StreamId != stream || got.OtaUpdateInfo.AdditionalParameters["a"] != "b" || *got.OtaUpdateInfo.AwsIotJobId != "AFR_OTA-u" {
			t.Errorf("%+v %v", got, err)
		}
		if _, err := w.CreateOTAUpdate(ctx, in); !is[*iot.ResourceAlreadyExistsException](err) {
			t.Errorf("again: %v", err)
		}
		if streams, err = w.ListStreams(ctx, &iot.ListStreamsRequest{}); err != nil || len(streams.Streams) != 1 {
			t.Errorf("a refused update left a stream: %+v %v", streams, err)
		}
		if _, err := w.DeleteStream(ctx, &iot.DeleteStreamRequest{StreamId: stream}); !is[*iot.DeleteConflictException](err) {
			t.Errorf("%v", err)
		}

		// Another that uses the stream; by HTTP alone there is none.
		second := update("second", nil, &iot.OTAUpdateFile{FileName: new("f"), FileLocation: &iot.FileLocation{Stream: &iot.Stream{StreamId: &stream, FileId: new(int32(0))}}})
		if _, err := w.CreateOTAUpdate(ctx, second); err != nil {
			t.Fatal(err)
		}
		if _, err := w.CreateOTAUpdate(ctx, update("http", []string{"HTTP"}, &iot.OTAUpdateFile{FileName: new("f"), FileLocation: object("v 1/{x}&.bin")})); err != nil {
			t.Fatal(err)
		}
		if d := *w.job("AFR_OTA-http").Document; strings.Contains(d, "streamname") || !strings.Contains(d, `"fileType":0`) {
			t.Error(d)
		}
		list, err := w.ListOTAUpdates(ctx, &iot.ListOTAUpdatesRequest{MaxResults: new(int32(2))})
		if err != nil || len(list.OtaUpdates) != 2 || *list.OtaUpdates[0].OtaUpdateId != "http" || list.NextToken == nil {
			t.Fatalf("%+v %v", list, err)
		}
		if list, err = w.ListOTAUpdates(ctx, &iot.ListOTAUpdatesRequest{NextToken: list.NextToken}); err != nil || len(list.OtaUpdates) != 1 || *list.OtaUpdates[0].OtaUpdateId != "u" || list.NextToken != nil {
			t.Errorf("%+v %v", list, err)
		}
		if list, err = w.ListOTAUpdates(ctx, &iot.ListOTAUpdatesRequest{OtaUpdateStatus: new("CREATE_FAILED")}); err != nil || len(list.OtaUpdates) != 0 {
			t.Errorf("%+v %v", list, err)
		}

		w.running = true
		if _, err := w.DeleteOTAUpdate(ctx, &iot.DeleteOTAUpdateRequest{OtaUpdateId: "u"}); !is[*iot.InvalidRequestException](err) {
			t.Errorf("%v", err)
		}
		if _, err := w.DeleteOTAUpdate(ctx, &iot.DeleteOTAUpdateRequest{OtaUpdateId: "u", ForceDeleteAWSJob: new(true), DeleteStream: new(true)}); err != nil || w.job("AFR_OTA-u") != nil || len(w.tags) != 0 {
			t.Errorf("%v %v", err, w.tags)
		}
		if err := w.StreamTaggable(ctx, stream); err != nil {
			t.Errorf("the stream of another update is gone: %v", err)
		}
		w.running = false
		if _, err := w.DeleteOTAUpdate(ctx, &iot.DeleteOTAUpdateRequest{OtaUpdateId: "second", DeleteStream: new(true)}); err != nil {
			t.Error(err)
		}
		if _, err := w.DeleteStream(ctx, &iot.DeleteStreamRequest{StreamId: stream}); err != nil {
			t.Errorf("%v", err)
		}
		if err := w.UpdateTaggable(ctx, "u"); !is[*iot.ResourceNotFoundException](err) {
			t.Errorf("%v", err)
		}
	})
}

func TestUpdateRefused(t *testing.T) {
	w, ctx := newWorld(t, storetest.Open(t)), t.Context()
	data := image(3000)
	w.put("b", "k", data)
	w.put("b", "other", image(3001))
	w.stream("s", "b", "k")
	key, certificate := signer(t)
	signature := signed(t, key, certificate, data)
	_, stranger := signer(t)
	file := func(l *iot.FileLocation, s *iot.CodeSigning) *iot.OTAUpdateFile {
		return &iot.OTAUpdateFile{FileName: new("f"), FileLocation: l, CodeSigning: s}
	}
	inStream := &iot.FileLocation{Stream: &iot.Stream{StreamId: new("s"), FileId: new(int32(0))}}
	sha1 := custom(signature, certificate)
	sha1.CustomCodeSigning.HashAlgorithm = new("SHA1")
	md5 := custom(signature, nil)
	md5.CustomCodeSigning.HashAlgorithm = new("MD5")
	for name, files := range map[string][]*iot.OTAUpdateFile{
		"no location":           {file(nil, nil)},
		"two locations":         {file(&iot.FileLocation{Stream: inStream.Stream, S3Location: object("k").S3Location}, nil)},
		"no object":             {file(object("none"), nil)},
		"no such file":          {file(&iot.FileLocation{Stream: &iot.Stream{StreamId: new("s"), FileId: new(int32(1))}}, nil)},
		"stream and object":     {file(inStream, nil), file(object("k"), nil)},
		"AWS Signer":            {file(object("k"), &iot.CodeSigning{AwsSignerJobId: new("x")})},
		"a signing job":         {file(object("k"), &iot.CodeSigning{StartSigningJobParameter: &iot.StartSigningJobParameter{}})},
		"no signature":          {file(object("k"), custom(nil, certificate))},
		"of another image":      {file(object("other"), custom(signature, certificate))},
		"by another key":        {file(object("k"), custom(signature, stranger))},
		"not a certificate":     {file(object("k"), custom(signature, []byte("x")))},
		"an algorithm":          {file(object("k"), md5)},
		"SHA-1, to be verified": {file(object("k"), sha1)},
	} {
		if _, err := w.CreateOTAUpdate(ctx, update("u", nil, files...)); !is[*iot.InvalidRequestException](err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.CreateOTAUpdate(ctx, update("u", nil, file(&iot.FileLocation{Stream: &iot.Stream{StreamId: new("none")}}, nil))); !is[*iot.ResourceNotFoundException](err) {
		t.Errorf("%v", err)
	}
	if _, err := w.CreateOTAUpdate(ctx, update(strings.Repeat("x", 57), nil, file(object("k"), nil))); !is[*iot.InvalidRequestException](err) {
		t.Errorf("%v", err)
	}
	// A signature that is base64 already is taken as it is, and verified too.
	twice := []byte(base64.StdEncoding.EncodeToString(signature))
	if _, err := w.CreateOTAUpdate(ctx, update("u", nil, file(inStream, custom(twice, certificate)))); err != nil {
		t.Error(err)
	}
	if d := *w.job("AFR_OTA-u").Document; !strings.Contains(d, `"sig-sha256-ecdsa":"`+string(twice)+`"`) || !strings.Contains(d, `"streamname":"s"`) || strings.Contains(d, "update_data_url") {
		t.Error(d)
	}
}
