package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
)

type keysCmd struct {
	Create  keysCreateCmd  `cmd:"" help:"Make a key for an identity."`
	List    keysListCmd    `cmd:"" help:"List keys, without their secrets."`
	Rotate  keysRotateCmd  `cmd:"" help:"Make a new key in the place of one, which goes on for a time."`
	Disable keysDisableCmd `cmd:"" help:"Make a key inactive; its connections end."`
	Enable  keysEnableCmd  `cmd:"" help:"Make an inactive key active."`
	Delete  keysDeleteCmd  `cmd:"" help:"Delete a key."`
}

// secretOutput says where a new secret goes, which is shown once.
type secretOutput struct {
	Profile string `name:"profile" default:"default" help:"Profile in what is printed or written."`
	Out     string `name:"out" placeholder:"FILE" help:"Write an AWS shared-credentials file with mode 0600, instead of printing it; the file must not exist."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// show gives a new key to the user: its only chance.
func (o *secretOutput) show(s *streams, key *flotilla.AccessKey, secret string, answer any) error {
	text := fmt.Sprintf("[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", o.Profile, *key.AccessKeyId, secret)
	switch {
	case o.Out != "":
		f, err := os.OpenFile(o.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return fmt.Errorf("the key %s was made, but can't be written: %w; delete it", *key.AccessKeyId, err)
		}
		if o.JSON {
			return printJSON(s, key)
		}
		fmt.Fprintf(s.out, "%s is written to %s, profile %s\n", *key.AccessKeyId, o.Out, o.Profile)
		return nil
	case o.JSON:
		return printJSON(s, answer)
	}
	_, err := fmt.Fprint(s.out, text)
	return err
}

// free refuses a file that exists before a key is made for it.
func (o *secretOutput) free() error {
	if o.Out == "" {
		return nil
	}
	if _, err := os.Lstat(o.Out); err == nil {
		return usageError{fmt.Errorf("--out %s exists already", o.Out)}
	}
	return nil
}

func printJSON(s *streams, v any) error {
	enc := json.NewEncoder(s.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

type keysCreateCmd struct {
	target       `embed:""`
	secretOutput `embed:""`
	Identity     string `name:"identity" required:"" placeholder:"NAME" help:"Identity that the key is for."`
}

func (c *keysCreateCmd) Help() string {
	return "Example:\n\n  flotilla keys create --identity ci-staging --profile staging >> ~/.aws/credentials\n\nThe secret is shown once.\n"
}

func (c *keysCreateCmd) Run(s *streams) error {
	if err := c.free(); err != nil {
		return err
	}
	var out flotilla.CreateAccessKeyResponse
	if err := c.call(http.MethodPost, "/identities/"+url.PathEscape(c.Identity)+"/access-keys", struct{}{}, &out); err != nil {
		return err
	}
	return c.show(s, out.AccessKey, *out.SecretAccessKey, out)
}

type keysListCmd struct {
	target   `embed:""`
	Identity string `name:"identity" placeholder:"NAME" help:"Only the keys of this identity."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

func (c *keysListCmd) Help() string {
	return "Example:\n\n  flotilla keys list --identity ci-staging\n"
}

func (c *keysListCmd) Run(s *streams) error {
	keys := []*flotilla.AccessKey{}
	query := url.Values{}
	if c.Identity != "" {
		query.Set("identityName", c.Identity)
	}
	for {
		var out flotilla.ListAccessKeysResponse
		if err := c.call(http.MethodGet, "/access-keys?"+query.Encode(), nil, &out); err != nil {
			return err
		}
		keys = append(keys, out.AccessKeys...)
		if out.NextToken == nil {
			break
		}
		query.Set("nextToken", *out.NextToken)
	}
	if c.JSON {
		return printJSON(s, keys)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tIDENTITY\tSTATUS\tCREATED\tLAST USED\tEXPIRES")
	for _, k := range keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", *k.AccessKeyId, *k.IdentityName, *k.Status, day(k.CreationDate), day(k.LastUsedDate), day(k.ExpirationDate))
	}
	return w.Flush()
}

func day(t *aws.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04Z")
}

type keysRotateCmd struct {
	target       `embed:""`
	secretOutput `embed:""`
	ID           string        `arg:"" name:"id" help:"Access key id."`
	Grace        time.Duration `name:"grace" default:"24h" help:"How long the old key goes on to sign; 0 ends it at once."`
}

func (c *keysRotateCmd) Help() string {
	return "Example:\n\n  flotilla keys rotate AKIAIOSFODNN7EXAMPLE --grace 1h --out new-credentials\n\n" +
		"The new key is active at once and its secret is shown once; the old one becomes inactive after the time of grace, and its\n" +
		"connections end then. When it is the key of the data directory's credentials file, the file follows.\n"
}

func (c *keysRotateCmd) Run(s *streams) error {
	if c.Grace < 0 || c.Grace > 30*24*time.Hour {
		return usageError{errors.New("--grace is from 0 to 720h")}
	}
	if err := c.free(); err != nil {
		return err
	}
	var out flotilla.RotateAccessKeyResponse
	in := map[string]any{"graceSeconds": int(c.Grace / time.Second)}
	if err := c.call(http.MethodPost, "/access-keys/"+url.PathEscape(c.ID)+"/rotate", in, &out); err != nil {
		return err
	}
	return c.show(s, out.AccessKey, *out.SecretAccessKey, out)
}

// oneKey is a command about a key.
type oneKey struct {
	target `embed:""`
	ID     string `arg:"" name:"id" help:"Access key id."`
}

func (c *oneKey) set(status string) error {
	var out struct{}
	return c.call(http.MethodPatch, "/access-keys/"+url.PathEscape(c.ID), map[string]string{"status": status}, &out)
}

type keysDisableCmd struct{ oneKey }

func (c *keysDisableCmd) Help() string {
	return "Example:\n\n  flotilla keys disable AKIAIOSFODNN7EXAMPLE\n"
}
func (c *keysDisableCmd) Run() error { return c.set(flotilla.AccessKeyStatusInactive) }

type keysEnableCmd struct{ oneKey }

func (c *keysEnableCmd) Help() string {
	return "Example:\n\n  flotilla keys enable AKIAIOSFODNN7EXAMPLE\n"
}
func (c *keysEnableCmd) Run() error { return c.set(flotilla.AccessKeyStatusActive) }

type keysDeleteCmd struct{ oneKey }

func (c *keysDeleteCmd) Help() string {
	return "Example:\n\n  flotilla keys delete AKIAIOSFODNN7EXAMPLE\n"
}

func (c *keysDeleteCmd) Run() error {
	var out struct{}
	return c.call(http.MethodDelete, "/access-keys/"+url.PathEscape(c.ID), nil, &out)
}

type identitiesCmd struct {
	Create   identitiesCreateCmd   `cmd:"" help:"Make an identity."`
	List     identitiesListCmd     `cmd:"" help:"List identities with their policies."`
	Delete   identitiesDeleteCmd   `cmd:"" help:"Delete an identity and its keys."`
	Attach   identitiesAttachCmd   `cmd:"" help:"Give an identity a policy."`
	Detach   identitiesDetachCmd   `cmd:"" help:"Take a policy from an identity."`
	Tag      identitiesTagCmd      `cmd:"" help:"Replace the tags of an identity."`
	Policies identitiesPoliciesCmd `cmd:"" help:"List the managed policies."`
}

// oneIdentity is a command about an identity.
type oneIdentity struct {
	target `embed:""`
	Name   string `arg:"" name:"name" help:"Name of the identity."`
}

func (c *oneIdentity) path(more ...string) string {
	path := "/identities/" + url.PathEscape(c.Name)
	for _, m := range more {
		path += "/" + url.PathEscape(m)
	}
	return path
}

type identitiesCreateCmd struct {
	oneIdentity
	Policy []string          `name:"policy" sep:"," placeholder:"NAME" help:"Managed policies: admin, ci, device-manufacturer, operator, read-only."`
	Tag    map[string]string `name:"tag" placeholder:"KEY=VALUE" help:"Tags, which policies may name: the policy ci wants prefix or environment."`
	JSON   bool              `name:"json" help:"Print JSON."`
}

func (c *identitiesCreateCmd) Help() string {
	return "Example:\n\n  flotilla identities create ci-staging --policy ci --tag prefix=staging-\n"
}

func (c *identitiesCreateCmd) Run(s *streams) error {
	var out flotilla.CreateIdentityResponse
	if err := c.call(http.MethodPost, c.path(), map[string]any{"policies": c.Policy, "tags": c.Tag}, &out); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s, out.Identity)
	}
	fmt.Fprintln(s.out, *out.Identity.IdentityArn)
	return nil
}

type identitiesListCmd struct {
	target `embed:""`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *identitiesListCmd) Help() string { return "Example:\n\n  flotilla identities list\n" }

func (c *identitiesListCmd) Run(s *streams) error {
	list := []*flotilla.Identity{}
	query := url.Values{}
	for {
		var out flotilla.ListIdentitiesResponse
		if err := c.call(http.MethodGet, "/identities?"+query.Encode(), nil, &out); err != nil {
			return err
		}
		list = append(list, out.Identities...)
		if out.NextToken == nil {
			break
		}
		query.Set("nextToken", *out.NextToken)
	}
	if c.JSON {
		return printJSON(s, list)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "IDENTITY\tKEYS\tPOLICIES\tTAGS")
	for _, i := range list {
		var policies, tags []string
		for _, p := range i.Policies {
			policies = append(policies, *p.PolicyName)
		}
		for k, v := range i.Tags {
			tags = append(tags, k+"="+v)
		}
		slices.Sort(tags)
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", *i.IdentityName, *i.AccessKeys, strings.Join(policies, ","), strings.Join(tags, ","))
	}
	return w.Flush()
}

type identitiesDeleteCmd struct{ oneIdentity }

func (c *identitiesDeleteCmd) Help() string {
	return "Example:\n\n  flotilla identities delete ci-staging\n"
}

func (c *identitiesDeleteCmd) Run() error {
	var out struct{}
	return c.call(http.MethodDelete, c.path(), nil, &out)
}

type identitiesAttachCmd struct {
	oneIdentity
	Policy   string `arg:"" name:"policy" help:"A managed policy, or the name of the policy in --document."`
	Document string `name:"document" placeholder:"FILE" help:"IAM policy document: the policy is the identity's own."`
}

func (c *identitiesAttachCmd) Help() string {
	return "Example:\n\n  flotilla identities attach ann operator\n  flotilla identities attach ann reports --document reports.json\n"
}

func (c *identitiesAttachCmd) Run() error {
	in := map[string]string{}
	if c.Document != "" {
		text, err := os.ReadFile(c.Document)
		if err != nil {
			return err
		}
		in["document"] = string(text)
	}
	var out struct{}
	return c.call(http.MethodPut, c.path("policies", c.Policy), in, &out)
}

type identitiesDetachCmd struct {
	oneIdentity
	Policy string `arg:"" name:"policy" help:"Name of the policy."`
}

func (c *identitiesDetachCmd) Help() string {
	return "Example:\n\n  flotilla identities detach ann operator\n"
}

func (c *identitiesDetachCmd) Run() error {
	var out struct{}
	return c.call(http.MethodDelete, c.path("policies", c.Policy), nil, &out)
}

type identitiesTagCmd struct {
	oneIdentity
	Tag map[string]string `arg:"" optional:"" name:"tag" help:"KEY=VALUE; none takes all tags away."`
}

func (c *identitiesTagCmd) Help() string {
	return "Example:\n\n  flotilla identities tag ci-staging prefix=staging- environment=staging\n"
}

func (c *identitiesTagCmd) Run() error {
	if c.Tag == nil {
		c.Tag = map[string]string{}
	}
	var out struct{}
	return c.call(http.MethodPatch, c.path(), map[string]any{"tags": c.Tag}, &out)
}

type identitiesPoliciesCmd struct {
	target `embed:""`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *identitiesPoliciesCmd) Help() string {
	return "Example:\n\n  flotilla identities policies --json\n"
}

func (c *identitiesPoliciesCmd) Run(s *streams) error {
	var out flotilla.ListManagedPoliciesResponse
	if err := c.call(http.MethodGet, "/managed-policies", nil, &out); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s, out.Policies)
	}
	for _, p := range out.Policies {
		fmt.Fprintf(s.out, "%s\n%s\n", *p.PolicyName, *p.Document)
	}
	return nil
}
