package server

import (
	"flotilla/internal/api"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
)

// route lists every operation that has a handler: the method of a room.
func route(s *api.Server, r *rooms) {
	// The account as a whole.
	api.Handle(s, iot.DescribeEndpoint, r.account.DescribeEndpoint)
	api.Handle(s, iot.DescribeEventConfigurations, r.account.DescribeEventConfigurations)
	api.Handle(s, iot.UpdateEventConfigurations, r.account.UpdateEventConfigurations)

	// Things, types, groups, tags.
	api.Handle(s, iot.AddThingToBillingGroup, r.registry.AddThingToBillingGroup)
	api.Handle(s, iot.AddThingToThingGroup, r.registry.AddThingToThingGroup)
	api.Handle(s, iot.AttachThingPrincipal, r.registry.AttachThingPrincipal)
	api.Handle(s, iot.CreateBillingGroup, r.registry.CreateBillingGroup)
	api.Handle(s, iot.CreateThing, r.registry.CreateThing)
	api.Handle(s, iot.CreateThingGroup, r.registry.CreateThingGroup)
	api.Handle(s, iot.CreateThingType, r.registry.CreateThingType)
	api.Handle(s, iot.DeleteBillingGroup, r.registry.DeleteBillingGroup)
	api.Handle(s, iot.DeleteThing, r.registry.DeleteThing)
	api.Handle(s, iot.DeleteThingGroup, r.registry.DeleteThingGroup)
	api.Handle(s, iot.DeleteThingType, r.registry.DeleteThingType)
	api.Handle(s, iot.DeprecateThingType, r.registry.DeprecateThingType)
	api.Handle(s, iot.DescribeBillingGroup, r.registry.DescribeBillingGroup)
	api.Handle(s, iot.DescribeThing, r.registry.DescribeThing)
	api.Handle(s, iot.DescribeThingGroup, r.registry.DescribeThingGroup)
	api.Handle(s, iot.DescribeThingType, r.registry.DescribeThingType)
	api.Handle(s, iot.DetachThingPrincipal, r.registry.DetachThingPrincipal)
	api.Handle(s, iot.ListBillingGroups, r.registry.ListBillingGroups)
	api.Handle(s, iot.ListPrincipalThings, r.registry.ListPrincipalThings)
	api.Handle(s, iot.ListPrincipalThingsV2, r.registry.ListPrincipalThingsV2)
	api.Handle(s, iot.ListTagsForResource, r.registry.ListTagsForResource)
	api.Handle(s, iot.ListThingGroups, r.registry.ListThingGroups)
	api.Handle(s, iot.ListThingGroupsForThing, r.registry.ListThingGroupsForThing)
	api.Handle(s, iot.ListThingPrincipals, r.registry.ListThingPrincipals)
	api.Handle(s, iot.ListThingPrincipalsV2, r.registry.ListThingPrincipalsV2)
	api.Handle(s, iot.ListThingTypes, r.registry.ListThingTypes)
	api.Handle(s, iot.ListThings, r.registry.ListThings)
	api.Handle(s, iot.ListThingsInBillingGroup, r.registry.ListThingsInBillingGroup)
	api.Handle(s, iot.ListThingsInThingGroup, r.registry.ListThingsInThingGroup)
	api.Handle(s, iot.RemoveThingFromBillingGroup, r.registry.RemoveThingFromBillingGroup)
	api.Handle(s, iot.RemoveThingFromThingGroup, r.registry.RemoveThingFromThingGroup)
	api.Handle(s, iot.TagResource, r.registry.TagResource)
	api.Handle(s, iot.UntagResource, r.registry.UntagResource)
	api.Handle(s, iot.UpdateBillingGroup, r.registry.UpdateBillingGroup)
	api.Handle(s, iot.UpdateThing, r.registry.UpdateThing)
	api.Handle(s, iot.UpdateThingGroup, r.registry.UpdateThingGroup)
	api.Handle(s, iot.UpdateThingGroupsForThing, r.registry.UpdateThingGroupsForThing)
	api.Handle(s, iot.UpdateThingType, r.registry.UpdateThingType)

	// Certificates.
	api.Handle(s, iot.CreateCertificateFromCsr, r.certificates.CreateCertificateFromCsr)
	api.Handle(s, iot.CreateKeysAndCertificate, r.certificates.CreateKeysAndCertificate)
	api.Handle(s, iot.DeleteCertificate, r.certificates.DeleteCertificate)
	api.Handle(s, iot.DescribeCertificate, r.certificates.DescribeCertificate)
	api.Handle(s, iot.ListCertificates, r.certificates.ListCertificates)
	api.Handle(s, iot.RegisterCertificate, r.certificates.RegisterCertificate)
	api.Handle(s, iot.RegisterCertificateWithoutCA, r.certificates.RegisterCertificateWithoutCA)
	api.Handle(s, iot.UpdateCertificate, r.certificates.UpdateCertificate)

	// Policies.
	api.Handle(s, iot.AttachPolicy, r.policies.AttachPolicy)
	api.Handle(s, iot.AttachPrincipalPolicy, r.policies.AttachPrincipalPolicy)
	api.Handle(s, iot.CreatePolicy, r.policies.CreatePolicy)
	api.Handle(s, iot.CreatePolicyVersion, r.policies.CreatePolicyVersion)
	api.Handle(s, iot.DeletePolicy, r.policies.DeletePolicy)
	api.Handle(s, iot.DeletePolicyVersion, r.policies.DeletePolicyVersion)
	api.Handle(s, iot.DetachPolicy, r.policies.DetachPolicy)
	api.Handle(s, iot.DetachPrincipalPolicy, r.policies.DetachPrincipalPolicy)
	api.Handle(s, iot.GetEffectivePolicies, r.policies.GetEffectivePolicies)
	api.Handle(s, iot.GetPolicy, r.policies.GetPolicy)
	api.Handle(s, iot.GetPolicyVersion, r.policies.GetPolicyVersion)
	api.Handle(s, iot.ListAttachedPolicies, r.policies.ListAttachedPolicies)
	api.Handle(s, iot.ListPolicies, r.policies.ListPolicies)
	api.Handle(s, iot.ListPolicyPrincipals, r.policies.ListPolicyPrincipals)
	api.Handle(s, iot.ListPolicyVersions, r.policies.ListPolicyVersions)
	api.Handle(s, iot.ListPrincipalPolicies, r.policies.ListPrincipalPolicies)
	api.Handle(s, iot.ListTargetsForPolicy, r.policies.ListTargetsForPolicy)
	api.Handle(s, iot.SetDefaultPolicyVersion, r.policies.SetDefaultPolicyVersion)
	api.Handle(s, iot.TestAuthorization, r.policies.TestAuthorization)

	// Custom authorizers.
	api.Handle(s, iot.ClearDefaultAuthorizer, r.authorizers.ClearDefaultAuthorizer)
	api.Handle(s, iot.CreateAuthorizer, r.authorizers.CreateAuthorizer)
	api.Handle(s, iot.DeleteAuthorizer, r.authorizers.DeleteAuthorizer)
	api.Handle(s, iot.DescribeAuthorizer, r.authorizers.DescribeAuthorizer)
	api.Handle(s, iot.DescribeDefaultAuthorizer, r.authorizers.DescribeDefaultAuthorizer)
	api.Handle(s, iot.ListAuthorizers, r.authorizers.ListAuthorizers)
	api.Handle(s, iot.SetDefaultAuthorizer, r.authorizers.SetDefaultAuthorizer)
	api.Handle(s, iot.TestInvokeAuthorizer, r.authorizers.TestInvokeAuthorizer)
	api.Handle(s, iot.UpdateAuthorizer, r.authorizers.UpdateAuthorizer)

	// Domain configurations.
	api.Handle(s, iot.CreateDomainConfiguration, r.domains.CreateDomainConfiguration)
	api.Handle(s, iot.DeleteDomainConfiguration, r.domains.DeleteDomainConfiguration)
	api.Handle(s, iot.DescribeDomainConfiguration, r.domains.DescribeDomainConfiguration)
	api.Handle(s, iot.ListDomainConfigurations, r.domains.ListDomainConfigurations)
	api.Handle(s, iot.UpdateDomainConfiguration, r.domains.UpdateDomainConfiguration)

	// Provisioning.
	api.Handle(s, iot.CreateProvisioningClaim, r.templates.CreateProvisioningClaim)
	api.Handle(s, iot.CreateProvisioningTemplate, r.templates.CreateProvisioningTemplate)
	api.Handle(s, iot.CreateProvisioningTemplateVersion, r.templates.CreateProvisioningTemplateVersion)
	api.Handle(s, iot.DeleteProvisioningTemplate, r.templates.DeleteProvisioningTemplate)
	api.Handle(s, iot.DeleteProvisioningTemplateVersion, r.templates.DeleteProvisioningTemplateVersion)
	api.Handle(s, iot.DescribeProvisioningTemplate, r.templates.DescribeProvisioningTemplate)
	api.Handle(s, iot.DescribeProvisioningTemplateVersion, r.templates.DescribeProvisioningTemplateVersion)
	api.Handle(s, iot.ListProvisioningTemplateVersions, r.templates.ListProvisioningTemplateVersions)
	api.Handle(s, iot.ListProvisioningTemplates, r.templates.ListProvisioningTemplates)
	api.Handle(s, iot.RegisterThing, r.templates.RegisterThing)
	api.Handle(s, iot.UpdateProvisioningTemplate, r.templates.UpdateProvisioningTemplate)
	api.Handle(s, flotilla.ExplainProvisioning, r.templates.ExplainProvisioning)

	// Rules.
	api.Handle(s, iot.CreateTopicRule, r.rules.CreateTopicRule)
	api.Handle(s, iot.DeleteTopicRule, r.rules.DeleteTopicRule)
	api.Handle(s, iot.DisableTopicRule, r.rules.DisableTopicRule)
	api.Handle(s, iot.EnableTopicRule, r.rules.EnableTopicRule)
	api.Handle(s, iot.GetTopicRule, r.rules.GetTopicRule)
	api.Handle(s, iot.ListTopicRules, r.rules.ListTopicRules)
	api.Handle(s, iot.ReplaceTopicRule, r.rules.ReplaceTopicRule)

	// Shadows.
	api.Handle(s, iotdata.DeleteThingShadow, r.shadows.DeleteThingShadow)
	api.Handle(s, iotdata.GetThingShadow, r.shadows.GetThingShadow)
	api.Handle(s, iotdata.ListNamedShadowsForThing, r.shadows.ListNamedShadowsForThing)
	api.Handle(s, iotdata.UpdateThingShadow, r.shadows.UpdateThingShadow)

	// Messages and connections.
	data := r.gateway.DataPlane()
	api.Handle(s, flotilla.ExplainClient, r.gateway.ExplainClient)
	api.Handle(s, iotdata.DeleteConnection, data.DeleteConnection)
	api.Handle(s, iotdata.GetConnection, data.GetConnection)
	api.Handle(s, iotdata.GetRetainedMessage, data.GetRetainedMessage)
	api.Handle(s, iotdata.ListRetainedMessages, data.ListRetainedMessages)
	api.Handle(s, iotdata.ListSubscriptions, data.ListSubscriptions)
	api.Handle(s, iotdata.Publish, data.Publish)
	api.Handle(s, iotdata.SendDirectMessage, data.SendDirectMessage)
}
