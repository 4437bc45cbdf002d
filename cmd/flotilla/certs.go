package main

import (
	"errors"
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
	Expiring certsExpiringCmd `cmd:"" help:"Certificates that are due for rotation soon."`
	Revoke   certsRevokeCmd   `cmd:"" help:"Revoke a certificate: its connections end, and it gets on the revocation list."`
	Rotate   certsRotateCmd   `cmd:"" help:"Have certificates replaced by the next ones that their devices ask for."`
}

type certsListCmd struct {
	target `embed:""`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *certsListCmd) Help() string { return "Example:\n\n  flotilla certs list --json\n" }

func (c *certsListCmd) Run(s *streams) error {
	list, err := c.certificates(nil)
	if err != nil {
		return err
	}
	return printCertificates(s, list, c.JSON)
}

type certsExpiringCmd struct {
	target `embed:""`
	Within string `name:"within" default:"30d" help:"How soon: days (30d), or hours (12h)."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *certsExpiringCmd) Help() string {
	return "Example:\n\n  flotilla certs expiring --within 30d\n\n" +
		"Lists certificates that are due for rotation within a time: since they end, or since they are as old as --identity.rotation-age of the\n" +
		"server says, a year by default. (Those that AWS IoT and this server issue by default end in 2049; --identity.certificate-validity makes\nnew ones end sooner.)\n"
}

func (c *certsExpiringCmd) Run(s *streams) error {
	within, err := days(c.Within)
	if err != nil {
		return usageError{err}
	}
	list, err := c.certificates(&within)
	if err != nil {
		return err
	}
	return printCertificates(s, list, c.JSON)
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

// certificates are all of devices, or those that are due for rotation within a time.
func (t *target) certificates(within *time.Duration) ([]*flotilla.CertificateDetail, error) {
	query := url.Values{}
	if within != nil {
		query.Set("dueWithinSeconds", strconv.FormatInt(int64(within.Seconds()), 10))
	}
	list := []*flotilla.CertificateDetail{}
	for {
		var page flotilla.ListCertificateDetailsResponse
		if err := t.call(http.MethodGet, "/certificate-details?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		list = append(list, page.Certificates...)
		if page.NextMarker == nil {
			return list, nil
		}
		query.Set("marker", *page.NextMarker)
	}
}

func printCertificates(s *streams, list []*flotilla.CertificateDetail, asJSON bool) error {
	if asJSON {
		return printJSON(s, list)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CERTIFICATE\tSTATUS\tENDS\tDUE\tWHY\tTHINGS\tROTATION")
	for _, d := range list {
		things := strings.Join(d.Things, ",")
		if things == "" {
			things = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", *d.CertificateId, *d.Status, d.NotAfter.UTC().Format(time.DateOnly),
			d.Due.UTC().Format(time.DateOnly), strings.ToLower(*d.DueReason), things, dash(d.Rotation))
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
	ID     string  `arg:"" name:"id" optional:"" help:"Id of the certificate that is to be replaced."`
	Due    bool    `name:"due" help:"Instead of one: all that are due for rotation, see 'flotilla certs expiring'."`
	Within string  `name:"within" default:"30d" help:"With --due: how soon, in days (30d) or hours (12h)."`
	Rate   float64 `name:"rate" default:"10" help:"With --due: most rotations that are begun in a second."`
	DryRun bool    `name:"dry-run" help:"Show what would be rotated, and rotate nothing."`
	NoJob  bool    `name:"no-job" help:"Start no job: you tell the device yourself."`
	JSON   bool    `name:"json" help:"Print JSON."`
}

func (c *certsRotateCmd) Help() string {
	return "Example:\n\n  flotilla certs rotate 3e1f…\n  flotilla certs rotate --due --within 30d\n\n" +
		"The device then asks for another certificate over the connection that it has: a CSR on $aws/certificates/create-from-csr/json, and a fleet\n" +
		"provisioning template for its thing. The old certificate becomes INACTIVE once the new one has connected, and not before.\n" +
		"The device is told by a job from the managed template Flotilla-Rotate-Certificate; docs/rotation.md has what it does then.\n" +
		"With --due, certificates without a thing and those whose rotation has begun are left out: run it daily, and the fleet rotates once a year.\n"
}

func (c *certsRotateCmd) Run(s *streams) error {
	if c.Due == (c.ID != "") {
		return usageError{errors.New("name one certificate, or say --due")}
	}
	if !(c.Rate > 0) {
		return usageError{fmt.Errorf("--rate %v is not more than 0", c.Rate)}
	}
	ids := []string{c.ID}
	if c.Due {
		within, err := days(c.Within)
		if err != nil {
			return usageError{err}
		}
		list, err := c.certificates(&within)
		if err != nil {
			return err
		}
		ids = ids[:0]
		for _, d := range list {
			if len(d.Things) > 0 && d.Rotation == nil {
				ids = append(ids, *d.CertificateId)
			}
		}
	}
	done := []rotation{}
	pace := time.NewTicker(max(time.Duration(float64(time.Second)/c.Rate), time.Microsecond))
	defer pace.Stop()
	for i, id := range ids {
		r := rotation{CertificateID: id}
		if !c.DryRun {
			if i > 0 {
				<-pace.C
			}
			var err error
			if r, err = c.rotate(id); err != nil {
				return fmt.Errorf("%s: %w (%d of %d are done)", id, err, i, len(ids))
			}
		}
		done = append(done, r)
		if !c.JSON {
			c.print(s, r)
		}
	}
	if !c.JSON {
		return nil
	}
	if !c.Due {
		return printJSON(s, done[0])
	}
	return printJSON(s, done)
}

func (c *certsRotateCmd) print(s *streams, r rotation) {
	switch {
	case c.DryRun:
		fmt.Fprintln(s.out, r.CertificateID, "would be rotated")
	default:
		fmt.Fprintf(s.out, "%s is replaced by the next certificate that %s asks for and connects with\n", r.CertificateID, strings.Join(r.Things, ", "))
		if r.JobID != "" {
			fmt.Fprintf(s.out, "job %s tells it\n", r.JobID)
		}
	}
}

func (c *certsRotateCmd) rotate(id string) (rotation, error) {
	r := rotation{CertificateID: id}
	if err := c.call(http.MethodPut, "/certificate-details/"+url.PathEscape(id)+"/rotation", nil, &r.RotateCertificateResponse); err != nil {
		return r, err
	}
	if c.NoJob || len(r.Things) == 0 {
		return r, nil
	}
	var err error
	if r.JobID, err = c.startJob(id, r.Things); err != nil {
		return r, fmt.Errorf("the rotation is asked for, but there is no job that tells the device: %w", err)
	}
	return r, nil
}

// rotation is what rotate prints.
type rotation struct {
	CertificateID string `json:"certificateId"`
	flotilla.RotateCertificateResponse
	JobID string `json:"jobId,omitempty"`
}

// startJob creates the job that has things rotate the certificate, and gives its id.
func (c *certsRotateCmd) startJob(certificateID string, things []string) (string, error) {
	in := iot.CreateJobRequest{DocumentParameters: map[string]string{"certificateId": certificateID}}
	for _, t := range things {
		var thing iot.DescribeThingResponse
		if err := c.callService("iot", http.MethodGet, "/things/"+url.PathEscape(t), nil, &thing); err != nil {
			return "", err
		}
		in.Targets = append(in.Targets, *thing.ThingArn)
	}
	region := strings.Split(in.Targets[0], ":")[3]
	in.JobTemplateArn = new("arn:aws:iot:" + region + "::jobtemplate/" + jobs.RotateCertificate + ":1.0")
	id := fmt.Sprintf("rotate-%.16s-%d", certificateID, time.Now().UnixMilli())
	var out iot.CreateJobResponse
	return id, c.callService("iot", http.MethodPut, "/jobs/"+id, in, &out)
}
