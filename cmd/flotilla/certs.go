package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs"
)

type certsCmd struct {
	List     certsListCmd     `cmd:"" help:"Certificates of devices, those that end first at the top."`
	Expiring certsExpiringCmd `cmd:"" help:"Certificates that end soon."`
	Revoke   certsRevokeCmd   `cmd:"" help:"Revoke a certificate: its connections end, and it gets on the revocation list."`
	Rotate   certsRotateCmd   `cmd:"" help:"Have a certificate replaced by the next that its device asks for."`
}

type certsListCmd struct {
	target `embed:""`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *certsListCmd) Help() string { return "Example:\n\n  flotilla certs list --json\n" }

func (c *certsListCmd) Run(s *streams) error { return c.listCertificates(s, nil, c.JSON) }

type certsExpiringCmd struct {
	target `embed:""`
	Within string `name:"within" default:"30d" help:"How soon: days (30d), or hours (12h)."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *certsExpiringCmd) Help() string {
	return "Example:\n\n  flotilla certs expiring --within 30d\n\n" +
		"Lists certificates that end within a time. Those that AWS IoT and this server issue by default end in 2049:\n--identity.certificate-validity makes new ones end sooner.\n"
}

func (c *certsExpiringCmd) Run(s *streams) error {
	within, err := days(c.Within)
	if err != nil {
		return usageError{err}
	}
	return c.listCertificates(s, &within, c.JSON)
}

// days reads a duration that may be in days.
func days(text string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if days, err := strconv.ParseUint(n, 10, 16); err == nil {
			return time.Duration(days) * 24 * time.Hour, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("--within %q is not a time such as 30d or 12h", text)
}

func (t *target) listCertificates(s *streams, within *time.Duration, asJSON bool) error {
	query := url.Values{}
	if within != nil {
		query.Set("expiresWithinSeconds", strconv.FormatInt(int64(within.Seconds()), 10))
	}
	list := []*flotilla.CertificateDetail{}
	for {
		var page flotilla.ListCertificateDetailsResponse
		if err := t.call(http.MethodGet, "/certificate-details?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		list = append(list, page.Certificates...)
		if page.NextMarker == nil {
			break
		}
		query.Set("marker", *page.NextMarker)
	}
	if asJSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CERTIFICATE\tSTATUS\tENDS\tTHINGS\tROTATION")
	for _, d := range list {
		rotation := "-"
		if d.Rotation != nil {
			rotation = *d.Rotation
		}
		things := strings.Join(d.Things, ",")
		if things == "" {
			things = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", *d.CertificateId, *d.Status, d.NotAfter.UTC().Format(time.DateOnly), things, rotation)
	}
	return w.Flush()
}

type certsRevokeCmd struct {
	target `embed:""`
	ID     string `arg:"" name:"id" help:"Certificate id."`
}

func (c *certsRevokeCmd) Help() string {
	return "Example:\n\n  flotilla certs revoke 3e1f…\n\nThe same as UpdateCertificate with status REVOKED.\n"
}

func (c *certsRevokeCmd) Run(s *streams) error {
	var out struct{}
	if err := c.callService("iot", http.MethodPut, "/certificates/"+url.PathEscape(c.ID)+"?newStatus=REVOKED", nil, &out); err != nil {
		return err
	}
	fmt.Fprintln(s.out, c.ID, "is revoked")
	return nil
}

type certsRotateCmd struct {
	target `embed:""`
	ID     string `arg:"" name:"id" help:"Id of the certificate that is to be replaced."`
	NoJob  bool   `name:"no-job" help:"Start no job: you tell the device yourself."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *certsRotateCmd) Help() string {
	return "Example:\n\n  flotilla certs rotate 3e1f…\n\n" +
		"The device then asks for another certificate over the connection that it has: a CSR on $aws/certificates/create-from-csr/json, and a fleet\n" +
		"provisioning template for its thing. The old certificate becomes INACTIVE once the new one has connected, and not before.\n" +
		"The device is told by a job from the managed template Flotilla-Rotate-Certificate; docs/rotation.md has what it does then.\n"
}

func (c *certsRotateCmd) Run(s *streams) error {
	var out flotilla.RotateCertificateResponse
	if err := c.call(http.MethodPut, "/certificate-details/"+url.PathEscape(c.ID)+"/rotation", nil, &out); err != nil {
		return err
	}
	result := rotation{RotateCertificateResponse: out}
	if !c.NoJob && len(out.Things) > 0 {
		var err error
		if result.JobID, err = c.startJob(out.Things); err != nil {
			return fmt.Errorf("the rotation is asked for, but there is no job that tells the device: %w", err)
		}
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(result)
	}
	fmt.Fprintf(s.out, "%s is replaced by the next certificate that %s asks for and connects with\n", c.ID, strings.Join(out.Things, ", "))
	if result.JobID != "" {
		fmt.Fprintf(s.out, "job %s tells it\n", result.JobID)
	}
	return nil
}

// rotation is what rotate prints.
type rotation struct {
	flotilla.RotateCertificateResponse
	JobID string `json:"jobId,omitempty"`
}

// startJob creates the job that has things rotate the certificate, and gives its id.
func (c *certsRotateCmd) startJob(things []string) (string, error) {
	in := iot.CreateJobRequest{DocumentParameters: map[string]string{"certificateId": c.ID}}
	for _, t := range things {
		var thing iot.DescribeThingResponse
		if err := c.callService("iot", http.MethodGet, "/things/"+url.PathEscape(t), nil, &thing); err != nil {
			return "", err
		}
		in.Targets = append(in.Targets, *thing.ThingArn)
	}
	region := strings.Split(in.Targets[0], ":")[3]
	in.JobTemplateArn = new("arn:aws:iot:" + region + "::jobtemplate/" + jobs.RotateCertificate + ":1.0")
	id := fmt.Sprintf("rotate-%.16s-%d", c.ID, time.Now().UnixMilli())
	var out iot.CreateJobResponse
	return id, c.callService("iot", http.MethodPut, "/jobs/"+id, in, &out)
}
