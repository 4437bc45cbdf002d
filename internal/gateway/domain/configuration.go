package domain

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// CreateDomainConfiguration makes an ENABLED configuration. Without a domainName the deployment makes one below its
// own, without serverCertificateArns its own authority issues the certificate. A certificate must be there, be valid,
// and be for the domain; so must a validation certificate.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateDomainConfiguration.html
func (d *Domains) CreateDomainConfiguration(ctx context.Context, in *iot.CreateDomainConfigurationRequest) (*iot.CreateDomainConfigurationResponse, error) {
	r, err := d.newRecord(in)
	if err != nil {
		return nil, err
	}
	if err := d.checkCertificates(r, value(in.ValidationCertificateArn)); err != nil {
		return nil, err
	}
	err = d.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := d.checkFree(tx, r); err != nil {
			return err
		}
		n, err := countConfigurations(tx)
		if err != nil {
			return err
		}
		if n >= d.cfg.Max {
			return &iot.LimitExceededException{Message: fmt.Sprintf("There are %d domain configurations, the most allowed.", n)}
		}
		if err := d.setAuthorizer(ctx, r, in.AuthorizerConfig); err != nil {
			return err
		}
		if err := insertConfiguration(tx, r); err != nil {
			return err
		}
		d.changed(ctx, r.name)
		if len(in.Tags) > 0 {
			_, err = d.tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: d.arn(r), Tags: in.Tags})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateDomainConfigurationResponse{DomainConfigurationName: &r.name, DomainConfigurationArn: new(d.arn(r))}, nil
}

// newRecord checks all of a request that needs neither the store nor files.
func (d *Domains) newRecord(in *iot.CreateDomainConfigurationRequest) (*record, error) {
	now := d.now().UnixMilli()
	r := &record{
		name: in.DomainConfigurationName, suffix: strings.ToLower(rand.Text()[:5]), domainName: strings.ToLower(value(in.DomainName)),
		domainType: iot.DomainTypeCustomerManaged, status: iot.DomainConfigurationStatusEnabled, securityPolicy: defaultPolicy,
		authentication: iot.AuthenticationTypeDefault, application: iot.ApplicationProtocolDefault,
		created: now, statusChanged: now, modified: now,
	}
	switch {
	case !validName.MatchString(r.name):
		return nil, invalid("Invalid domainConfigurationName.")
	case value(in.ServiceType) != "" && *in.ServiceType != iot.ServiceTypeData:
		return nil, invalid("serviceType must be DATA.")
	case len(in.ServerCertificateArns) > 1:
		return nil, invalid("serverCertificateArns has more than one ARN.")
	case r.domainName == "" && (len(in.ServerCertificateArns) > 0 || value(in.ValidationCertificateArn) != ""):
		return nil, invalid("Certificates need a domainName.")
	case len(in.ServerCertificateArns) == 0 && value(in.ValidationCertificateArn) != "":
		return nil, invalid("validationCertificateArn needs serverCertificateArns.")
	case len(in.Tags) > 0 && d.tags == nil:
		return nil, invalid("tags of domain configurations are not supported.")
	}
	if r.domainName == "" {
		if d.publicHost == "" || net.ParseIP(d.publicHost) != nil {
			return nil, invalid("domainName is required: this deployment has no host name of its own (--public-host).")
		}
		r.domainType = iot.DomainTypeAwsManaged
		r.domainName = strings.ToLower(rand.Text()[:14]) + "." + d.publicHost
	}
	if err := checkDomainName(r.domainName); err != nil {
		return nil, err
	}
	if d.hosts[r.domainName] {
		return nil, invalid("domainName is that of %s.", DefaultName)
	}
	if len(in.ServerCertificateArns) == 1 {
		r.certificateARN = in.ServerCertificateArns[0]
	}
	if err := r.setTLS(in.TlsConfig); err != nil {
		return nil, err
	}
	if err := r.setProtocols(in.AuthenticationType, in.ApplicationProtocol); err != nil {
		return nil, err
	}
	return r, refuseUnsupported(in.ServerCertificateConfig, in.ClientCertificateConfig)
}

// checkCertificates looks at the files that a new configuration names.
func (d *Domains) checkCertificates(r *record, validationARN string) error {
	if r.certificateARN != "" {
		id, err := certificateID(r.certificateARN)
		if err != nil {
			return err
		}
		if err := d.certificates.check(id, r.domainName); err != nil {
			return &iot.CertificateValidationException{Message: fmt.Sprintf("Server certificate %s: %v.", r.certificateARN, err)}
		}
	}
	if validationARN != "" {
		id, err := certificateID(validationARN)
		if err != nil {
			return err
		}
		if err := d.certificates.checkValidation(id, r.domainName); err != nil {
			return &iot.CertificateValidationException{Message: fmt.Sprintf("Validation certificate %s: %v.", validationARN, err)}
		}
	}
	return nil
}

// checkFree refuses a name or a domain that is taken.
func (d *Domains) checkFree(tx store.Tx, r *record) error {
	other, err := selectConfiguration(tx, r.name)
	if errors.Is(err, store.ErrNotFound) {
		other, err = selectByDomain(tx, r.domainName)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	what := "Domain configuration " + r.name
	if other.name != r.name {
		what = "A domain configuration of " + r.domainName
	}
	return &iot.ResourceAlreadyExistsException{Message: what + " exists already.", ResourceId: other.name, ResourceArn: d.arn(other)}
}

// setAuthorizer sets the authorizerConfig; nil leaves it as it is.
func (d *Domains) setAuthorizer(ctx context.Context, r *record, c *iot.AuthorizerConfig) error {
	if c == nil {
		return nil
	}
	r.hasAuthorizer, r.authorizer, r.allowOverride = true, value(c.DefaultAuthorizerName), value(c.AllowAuthorizerOverride)
	if r.authorizer == "" {
		return nil
	}
	_, err := d.authorizers.DescribeAuthorizer(ctx, &iot.DescribeAuthorizerRequest{AuthorizerName: r.authorizer})
	if e, ok := errors.AsType[*iot.ResourceNotFoundException](err); ok {
		return invalid("authorizerConfig.defaultAuthorizerName: %s", e.Message)
	}
	return err
}

// UpdateDomainConfiguration changes what is given. The domain name and the certificate's ARN stay as they are.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateDomainConfiguration.html
func (d *Domains) UpdateDomainConfiguration(ctx context.Context, in *iot.UpdateDomainConfigurationRequest) (*iot.UpdateDomainConfigurationResponse, error) {
	remove := value(in.RemoveAuthorizerConfig)
	switch status := value(in.DomainConfigurationStatus); {
	case status != "" && status != iot.DomainConfigurationStatusEnabled && status != iot.DomainConfigurationStatusDisabled:
		return nil, invalid("Invalid domainConfigurationStatus: %q", bounded(status))
	case remove && in.AuthorizerConfig != nil:
		return nil, invalid("authorizerConfig and removeAuthorizerConfig can't be given together.")
	}
	if err := refuseUnsupported(in.ServerCertificateConfig, in.ClientCertificateConfig); err != nil {
		return nil, err
	}
	var arn string
	err := d.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := d.find(tx, in.DomainConfigurationName)
		if err != nil {
			return err
		}
		arn = d.arn(r)
		now := d.now().UnixMilli()
		if s := value(in.DomainConfigurationStatus); s != "" && s != r.status {
			r.status, r.statusChanged = s, now
		}
		if remove {
			r.hasAuthorizer, r.authorizer, r.allowOverride = false, "", false
		}
		if err := r.setTLS(in.TlsConfig); err != nil {
			return err
		}
		if err := r.setProtocols(in.AuthenticationType, in.ApplicationProtocol); err != nil {
			return err
		}
		if err := d.setAuthorizer(ctx, r, in.AuthorizerConfig); err != nil {
			return err
		}
		r.modified = now
		d.changed(ctx, r.name)
		return upsertConfiguration(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateDomainConfigurationResponse{DomainConfigurationName: &in.DomainConfigurationName, DomainConfigurationArn: &arn}, nil
}

// find reads a configuration; DefaultName is always there.
func (d *Domains) find(tx store.Tx, name string) (*record, error) {
	r, err := selectConfiguration(tx, name)
	if errors.Is(err, store.ErrNotFound) {
		if name == DefaultName {
			return defaultRecord(), nil
		}
		return nil, &iot.ResourceNotFoundException{Message: fmt.Sprintf("Domain configuration %s was not found.", name)}
	}
	return r, err
}

// defaultRecord is DefaultName before anyone changes it.
func defaultRecord() *record {
	return &record{
		name: DefaultName, domainType: iot.DomainTypeEndpoint, status: iot.DomainConfigurationStatusEnabled, securityPolicy: defaultPolicy,
		authentication: iot.AuthenticationTypeDefault, application: iot.ApplicationProtocolDefault,
	}
}

// DescribeDomainConfiguration describes one, with the state of its server certificate.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeDomainConfiguration.html
func (d *Domains) DescribeDomainConfiguration(ctx context.Context, in *iot.DescribeDomainConfigurationRequest) (*iot.DescribeDomainConfigurationResponse, error) {
	var r *record
	err := d.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		r, err = d.find(tx, in.DomainConfigurationName)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.DescribeDomainConfigurationResponse{
		DomainConfigurationName: &r.name, DomainConfigurationArn: new(d.arn(r)), DomainName: &r.domainName,
		DomainConfigurationStatus: &r.status, ServiceType: new(iot.ServiceTypeData), DomainType: &r.domainType,
		TlsConfig:               &iot.TlsConfig{SecurityPolicy: &r.securityPolicy},
		ServerCertificateConfig: &iot.ServerCertificateConfig{EnableOCSPCheck: new(false)},
		AuthenticationType:      &r.authentication, ApplicationProtocol: &r.application,
	}
	if r.name == DefaultName {
		out.DomainName = &d.publicHost
	}
	if r.statusChanged > 0 {
		out.LastStatusChangeDate = date(r.statusChanged)
	}
	if r.hasAuthorizer {
		out.AuthorizerConfig = &iot.AuthorizerConfig{DefaultAuthorizerName: optional(r.authorizer), AllowAuthorizerOverride: &r.allowOverride}
	}
	if r.certificateARN != "" {
		s := &iot.ServerCertificateSummary{ServerCertificateArn: &r.certificateARN, ServerCertificateStatus: new(iot.ServerCertificateStatusValid)}
		id, err := certificateID(r.certificateARN)
		if err == nil {
			err = d.certificates.check(id, r.domainName)
		}
		if err != nil {
			s.ServerCertificateStatus, s.ServerCertificateStatusDetail = new(iot.ServerCertificateStatusInvalid), new(err.Error())
		}
		out.ServerCertificates = append(out.ServerCertificates, s)
	}
	return out, nil
}

// ListDomainConfigurations lists by name, DefaultName first.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListDomainConfigurations.html
func (d *Domains) ListDomainConfigurations(ctx context.Context, in *iot.ListDomainConfigurationsRequest) (*iot.ListDomainConfigurationsResponse, error) {
	after, err := parseMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	out := &iot.ListDomainConfigurationsResponse{}
	if s := value(in.ServiceType); s != "" && s != iot.ServiceTypeData {
		return out, nil
	}
	limit := pageSize(in.PageSize)
	var rows []record
	err = d.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		rows, err = selectConfigurations(tx, after, limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	if after == "" {
		rows = append([]record{*defaultRecord()}, rows...)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		out.NextMarker = marker(rows[limit-1].name)
	}
	for i := range rows {
		out.DomainConfigurations = append(out.DomainConfigurations, &iot.DomainConfigurationSummary{
			DomainConfigurationName: &rows[i].name, DomainConfigurationArn: new(d.arn(&rows[i])), ServiceType: new(iot.ServiceTypeData),
		})
	}
	return out, nil
}

// DeleteDomainConfiguration deletes one that is DISABLED.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteDomainConfiguration.html
func (d *Domains) DeleteDomainConfiguration(ctx context.Context, in *iot.DeleteDomainConfigurationRequest) (*iot.DeleteDomainConfigurationResponse, error) {
	err := d.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := d.find(tx, in.DomainConfigurationName)
		switch {
		case err != nil:
			return err
		case r.name == DefaultName:
			return invalid("%s can't be deleted.", DefaultName)
		case r.status != iot.DomainConfigurationStatusDisabled:
			return invalid("Domain configuration %s is not DISABLED.", r.name)
		}
		if d.tags != nil {
			if err := d.tags.DeleteTags(ctx, d.arn(r)); err != nil {
				return err
			}
		}
		d.changed(ctx, r.name)
		return deleteConfiguration(tx, r.name)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteDomainConfigurationResponse{}, nil
}

// UsesAuthorizer gives the name of a configuration whose default authorizer has that name, "" when there is none. It
// joins a transaction in ctx.
func (d *Domains) UsesAuthorizer(ctx context.Context, authorizerName string) (domainConfiguration string, err error) {
	err = d.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		domainConfiguration, err = selectUser(tx, authorizerName)
		return err
	})
	return domainConfiguration, err
}
