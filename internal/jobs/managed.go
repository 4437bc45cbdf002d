package jobs

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"flotilla/internal/aws/iot"
)

// managed is a job template that comes with the service.
type managed struct {
	name        string
	description string
	document    string
	parameters  []*iot.DocumentParameter
}

// managedVersion is the only version that there is of any.
const managedVersion = "1.0"

// RotateCertificate is the managed template that has things rotate their certificates; docs/rotation.md has what they do.
const RotateCertificate = "Flotilla-Rotate-Certificate"

func parameter(key, description, regex, example string, optional bool) *iot.DocumentParameter {
	return &iot.DocumentParameter{Key: &key, Description: &description, Regex: &regex, Example: &example, Optional: &optional}
}

func runAsUser() *iot.DocumentParameter {
	return parameter("runAsUser", "Execute handler as another user. If not specified, then handler is executed as the same user as device client.", "(.){0,256}", "user1", true)
}

// handled is a template whose document names a script of the device, with one argument for each parameter.
func handled(action, script, description string, parameters ...*iot.DocumentParameter) managed {
	args := make([]string, len(parameters))
	for i, p := range parameters {
		args[i] = `"${aws:iot:parameter:` + *p.Key + `}"`
	}
	list := ""
	if len(args) > 0 {
		list = `,"args":[` + strings.Join(args, ",") + `]`
	}
	parameters = append(parameters, runAsUser(), parameter("pathToHandler",
		"Path to handler on the device. If not specified, then device client will use the current working directory.", "(.){0,4096}", "/path/to/handler/script", true))
	return managed{
		name: "AWS-" + action, description: "A managed job template for " + description + ".", parameters: parameters,
		document: `{"version":"1.0","steps":[{"action":{"name":"` + action + `","type":"runHandler","input":{"handler":"` + script + `"` + list +
			`,"path":"${aws:iot:parameter:pathToHandler}"},"runAsUser":"${aws:iot:parameter:runAsUser}"}}]}`,
	}
}

// managedTemplates are all, by name: AWS's and our own.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-templates-managed.html
func managedTemplates() []managed {
	packages := parameter("packages", "A space-separated list of one or more applications.", "(.*?)", "nginx", false)
	services := parameter("services", "A space-separated list of one or more applications.", "(.*?)", "nginx", false)
	return []managed{
		handled("Download-File", "download-file.sh", "downloading a file",
			parameter("downloadUrl", "URL of file to download.", "(.*?)", "http://www.example.com/index.html", false),
			parameter("filePath", "Path on the device where downloaded file is written.", "(.*?)", "/path/to/file", false)),
		handled("Install-Application", "install-packages.sh", "installing one or more applications", packages),
		handled("Reboot", "reboot.sh", "rebooting the device"),
		handled("Remove-Application", "remove-packages.sh", "uninstalling one or more applications", packages),
		handled("Restart-Application", "restart-services.sh", "restarting one or more system services", services),
		{
			name: "AWS-Run-Command", description: "A managed job template for running a shell command.",
			document: `{"version":"1.0","steps":[{"action":{"name":"Run-Command","type":"runCommand","input":{"command":"${aws:iot:parameter:command}"},"runAsUser":"${aws:iot:parameter:runAsUser}"}}]}`,
			parameters: []*iot.DocumentParameter{
				parameter("command", "A comma separated string of command. Any comma contained in the command itself must be escaped.", "(.*?)", "echo,hello", false), runAsUser(),
			},
		},
		handled("Start-Application", "start-services.sh", "starting one or more system services", services),
		handled("Stop-Application", "stop-services.sh", "stopping one or more system services", services),
		{
			name: RotateCertificate, description: "A managed job template for rotating the certificate of a thing.",
			document: `{"version":"1.0","operation":"rotate-certificate","certificateId":"${aws:iot:parameter:certificateId}"}`,
			parameters: []*iot.DocumentParameter{
				parameter("certificateId", "The certificate that is to be replaced. If not specified, then it is the one that the thing connects with.", "([0-9a-f]{64})?", strings.Repeat("0a", 32), true),
			},
		},
	}
}

func managedTemplate(name string) (managed, bool) {
	for _, m := range managedTemplates() {
		if m.name == name {
			return m, true
		}
	}
	return managed{}, false
}

func (j *Jobs) managedARN(m managed) string {
	return fmt.Sprintf("arn:aws:iot:%s::jobtemplate/%s:%s", j.Account.Region, m.name, managedVersion)
}

// check holds the values of parameters to what the template takes.
func (m managed) check(values map[string]string) error {
	known := map[string]bool{}
	for _, p := range m.parameters {
		known[*p.Key] = true
		v, given := values[*p.Key]
		if !given && !*p.Optional {
			return invalid("documentParameters: %s takes %s, which is missing", m.name, *p.Key)
		}
		if given && !regexp.MustCompile(`^(?:`+*p.Regex+`)$`).MatchString(v) {
			return invalid("documentParameters: the value of %s does not match %s", *p.Key, *p.Regex)
		}
	}
	for k := range values {
		if !known[k] {
			return invalid("documentParameters: %s takes no %q", m.name, k)
		}
	}
	return nil
}

// ListManagedJobTemplates lists the job templates that come with the service, by name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListManagedJobTemplates.html
func (j *Jobs) ListManagedJobTemplates(_ context.Context, in *iot.ListManagedJobTemplatesRequest) (*iot.ListManagedJobTemplatesResponse, error) {
	p, err := newPage(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &iot.ListManagedJobTemplatesResponse{ManagedJobTemplates: []*iot.ManagedJobTemplateSummary{}}
	for _, m := range managedTemplates() {
		if m.name > p.after && (in.TemplateName == nil || *in.TemplateName == m.name) {
			out.ManagedJobTemplates = append(out.ManagedJobTemplates, &iot.ManagedJobTemplateSummary{
				TemplateArn: new(j.managedARN(m)), TemplateName: &m.name, Description: &m.description, Environments: []string{"LINUX"}, TemplateVersion: new(managedVersion),
			})
		}
	}
	out.ManagedJobTemplates, out.NextToken = cut(p, out.ManagedJobTemplates, func(s *iot.ManagedJobTemplateSummary) string { return *s.TemplateName })
	return out, nil
}

// DescribeManagedJobTemplate gives one of them with its document and parameters. Errors: ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeManagedJobTemplate.html
func (j *Jobs) DescribeManagedJobTemplate(_ context.Context, in *iot.DescribeManagedJobTemplateRequest) (*iot.DescribeManagedJobTemplateResponse, error) {
	m, ok := managedTemplate(in.TemplateName)
	if !ok || in.TemplateVersion != nil && *in.TemplateVersion != managedVersion {
		return nil, &iot.ResourceNotFoundException{Message: fmt.Sprintf("There is no managed job template %s of this version.", in.TemplateName)}
	}
	return &iot.DescribeManagedJobTemplateResponse{
		TemplateName: &m.name, TemplateArn: new(j.managedARN(m)), Description: &m.description, TemplateVersion: new(managedVersion), Environments: []string{"LINUX"},
		DocumentParameters: m.parameters, Document: &m.document,
	}, nil
}
