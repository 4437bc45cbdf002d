package server

import (
	"context"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/registry"
)

// taggable names the resources of other rooms than the registry that may have
// tags, by the first part of their ARN's resource.
func (r *rooms) taggable() map[string]registry.Exists {
	return map[string]registry.Exists{
		"authorizer": func(ctx context.Context, name string) error {
			_, err := r.authorizers.DescribeAuthorizer(ctx, &iot.DescribeAuthorizerRequest{AuthorizerName: name})
			return err
		},
		"cacert": func(ctx context.Context, id string) error {
			_, err := r.certificates.DescribeCACertificate(ctx, &iot.DescribeCACertificateRequest{CertificateId: id})
			return err
		},
		"certificateprovider": func(ctx context.Context, name string) error {
			_, err := r.certificates.DescribeCertificateProvider(ctx, &iot.DescribeCertificateProviderRequest{CertificateProviderName: name})
			return err
		},
		"command": func(ctx context.Context, id string) error { return r.commands.Exists(ctx, id) },
		"domainconfiguration": func(ctx context.Context, name string) error { // NAME/SUFFIX
			configuration, _, _ := strings.Cut(name, "/")
			out, err := r.domains.DescribeDomainConfiguration(ctx, &iot.DescribeDomainConfigurationRequest{DomainConfigurationName: configuration})
			if err == nil && !strings.HasSuffix(*out.DomainConfigurationArn, ":domainconfiguration/"+name) {
				return &iot.ResourceNotFoundException{Message: "There is no domain configuration with this ARN."}
			}
			return err
		},
		"fleetmetric": func(ctx context.Context, name string) error {
			_, err := r.index.DescribeFleetMetric(ctx, &iot.DescribeFleetMetricRequest{MetricName: name})
			return err
		},
		"job":         func(ctx context.Context, id string) error { return r.jobs.Taggable(ctx, id) },
		"jobtemplate": func(ctx context.Context, id string) error { return r.jobs.TemplateTaggable(ctx, id) },
		"otaupdate":   func(ctx context.Context, id string) error { return r.ota.UpdateTaggable(ctx, id) },
		"policy": func(ctx context.Context, name string) error {
			_, err := r.policies.GetPolicy(ctx, &iot.GetPolicyRequest{PolicyName: name})
			return err
		},
		"provisioningtemplate": func(ctx context.Context, name string) error {
			_, err := r.templates.DescribeProvisioningTemplate(ctx, &iot.DescribeProvisioningTemplateRequest{TemplateName: name})
			return err
		},
		"stream": func(ctx context.Context, id string) error { return r.ota.StreamTaggable(ctx, id) },
		"rule": func(ctx context.Context, name string) error {
			_, err := r.rules.GetTopicRule(ctx, &iot.GetTopicRuleRequest{RuleName: name})
			return err
		},
	}
}
