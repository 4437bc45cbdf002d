package jobs

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"flotilla/internal/aws/iot"
)

// Presigner gives URLs by which a thing fetches an object without credentials of its own.
type Presigner interface {
	// Presign gives a URL that is valid for so long. role is what signs for it on AWS, "" when none is named.
	Presign(ctx context.Context, bucket, key string, expires time.Duration, role string) (url string, err error)
}

// Objects is the object store that documents come from.
type Objects interface {
	// ReadRange gives at most length bytes of an object from an offset on, and the size of the whole.
	ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error)
}

const (
	maxDocument     = 32_768      // characters of a document, as AWS has it
	maxPlaceholders = 10          // presigned URLs of a document, as AWS has it
	expiry          = time.Hour   // of a presigned URL, if the job says none
	openTime        = time.Minute // for a document of an object store
)

// placeholder is what is replaced in documents, by the parts aws:iot:(name):(value).
var placeholder = regexp.MustCompile(`\$\{aws:iot:([A-Za-z0-9-]+):([^}]*)\}`)

// The names of placeholders.
const (
	parameterOf  = "parameter"
	presignedURL = "s3-presigned-url"
	presignedV2  = "s3-presigned-url-v2"
)

// objectOf reads the URL of an object of S3, in its virtual-hosted, path or s3:// style.
func objectOf(link string) (bucket, key string, err error) {
	u, err := url.Parse(link)
	if err != nil {
		return "", "", invalid("%q is no URL of an object", link)
	}
	path := strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme == "s3":
		bucket, key = u.Host, path
	case u.Scheme != "https" && u.Scheme != "http":
	case strings.HasPrefix(u.Host, "s3.") || strings.HasPrefix(u.Host, "s3-"):
		bucket, key, _ = strings.Cut(path, "/")
	default:
		var host string
		var ok bool
		if bucket, host, ok = strings.Cut(u.Host, ".s3"); ok && (strings.HasPrefix(host, ".") || strings.HasPrefix(host, "-")) {
			key = path
		} else {
			bucket = ""
		}
	}
	if bucket == "" || key == "" {
		return "", "", invalid("%q is no URL of an object, such as https://s3.amazonaws.com/bucket/key", link)
	}
	return bucket, key, nil
}

// textOf settles the text of a document: as given, or as the object of a source has it now.
func (j *Jobs) textOf(ctx context.Context, document, source *string) (string, error) {
	switch {
	case document != nil && source != nil:
		return "", invalid("Either document or documentSource is given, not both")
	case document != nil:
		return *document, nil
	case source == nil:
		return "", invalid("The job has no document")
	}
	bucket, key, err := objectOf(*source)
	if err != nil {
		return "", err
	}
	if j.Objects == nil {
		return "", invalid("documentSource: there is no object store")
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	b, size, _, err := j.Objects.ReadRange(ctx, bucket, key, 0, maxDocument+1)
	if err != nil {
		return "", invalid("documentSource: the object %s of bucket %s can't be read", key, bucket)
	}
	if size < 1 || size > maxDocument || int64(len(b)) != size {
		return "", invalid("documentSource: a document has 1 to %d characters", maxDocument)
	}
	return string(b), nil
}

// checkDocument refuses a document with placeholders that can't be resolved.
func (j *Jobs) checkDocument(ctx context.Context, text string, p *iot.PresignedUrlConfig) error {
	if p != nil && p.ExpiresInSec != nil && (*p.ExpiresInSec < 60 || *p.ExpiresInSec > 3600) {
		return invalid("expiresInSec is between 60 and 3600")
	}
	urls := 0
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		switch m[1] {
		case parameterOf:
		case presignedURL, presignedV2:
			urls++
			bucket, key, err := objectOf(m[2])
			if err != nil {
				return err
			}
			if j.Presigner == nil {
				return invalid("The document has a presigned URL, and there is no object store that gives them")
			}
			// One that can't be made would stop each of the job's things at this job.
			if _, err := j.Presigner.Presign(ctx, bucket, key, expiry, ""); err != nil {
				return invalid("The document has a presigned URL of %q, which there can't be: %v", m[2], err)
			}
		default:
			return invalid("The document's placeholder ${aws:iot:%s:...} is not implemented", m[1])
		}
	}
	if urls > maxPlaceholders {
		return invalid("A document has at most %d presigned URLs", maxPlaceholders)
	}
	return nil
}

// parametersIn puts the values of parameters into a document; one that is not given is empty.
func (b *job) parametersIn(text string) string {
	if b.def.DocumentParameters == nil && !b.fromManaged() {
		return text
	}
	return placeholder.ReplaceAllStringFunc(text, func(s string) string {
		m := placeholder.FindStringSubmatch(s)
		if m[1] != parameterOf {
			return s
		}
		return quoted(b.def.DocumentParameters[m[2]])
	})
}

// fromManaged tells whether the document is that of a managed template.
func (b *job) fromManaged() bool {
	return strings.Contains(value(b.def.JobTemplateArn), "::jobtemplate/")
}

// quoted is a value as it stands within a string of JSON.
func quoted(v string) string {
	b, _ := encode(v) // of a string: it can't fail
	return string(b[1 : len(b)-1])
}

// document is a job's document as a thing gets it, with parameters and presigned URLs.
func (j *Jobs) document(ctx context.Context, b *job) (string, error) {
	text := b.parametersIn(b.def.Text)
	if !strings.Contains(text, "${aws:iot:"+presignedURL) {
		return text, nil
	}
	expires, role := expiry, ""
	if p := b.def.PresignedUrlConfig; p != nil {
		role = value(p.RoleArn)
		if p.ExpiresInSec != nil {
			expires = time.Duration(*p.ExpiresInSec) * time.Second
		}
	}
	var failed error
	text = placeholder.ReplaceAllStringFunc(text, func(s string) string {
		m := placeholder.FindStringSubmatch(s)
		if m[1] != presignedURL && m[1] != presignedV2 || failed != nil {
			return s
		}
		bucket, key, err := objectOf(m[2])
		if err == nil && j.Presigner == nil {
			err = fmt.Errorf("no object store gives presigned URLs")
		}
		link := ""
		if err == nil {
			link, err = j.Presigner.Presign(ctx, bucket, key, expires, role)
		}
		if err != nil {
			failed = fmt.Errorf("jobs: presigned URL of job %s: %w", b.id, err)
		}
		return quoted(link)
	})
	return text, failed
}

// GetJobDocument gives the document of a job: with its parameters, or as it was before they were put in. Errors:
// ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetJobDocument.html
func (j *Jobs) GetJobDocument(ctx context.Context, in *iot.GetJobDocumentRequest) (*iot.GetJobDocumentResponse, error) {
	b, err := j.readJob(ctx, in.JobId)
	if err != nil {
		return nil, err
	}
	text := b.def.Text
	if !value(in.BeforeSubstitution) {
		text = b.parametersIn(text)
	}
	return &iot.GetJobDocumentResponse{Document: &text}, nil
}
