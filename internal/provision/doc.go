// Package provision turns a device with a claim into a thing with a certificate, policies and configuration.
//
// It keeps provisioning templates and their versions, and carries them out:
//
//	claim certificate                        $aws/certificates/create/{json|cbor}
//	   │ connects                            $aws/certificates/create-from-csr/{json|cbor}
//	   ▼
//	certificate PENDING_ACTIVATION ──────────► deleted unless used within the hour
//	   + ownership token, single use
//	   │                                     $aws/provisioning-templates/{name}/provision/{json|cbor}
//	   ▼
//	pre-provisioning hook ── deny, error, 5 s ──► rejected, nothing has happened
//	   │ allow, parameters overridden
//	   ▼
//	one transaction: token used, thing, groups, policies, attachments, certificate ACTIVE | INACTIVE
//	   │
//	   ▼
//	accepted: thing name, device configuration
//
// Bulk registration does the last step for each line of an object, with its report in the same transaction, on the
// node that holds the task's lease. What became of an attempt is kept in a bounded journal, without secrets.
//
// RegisterThing does the last step for callers of the API, with a template of their own. The language of templates
// is in the package template. Things, certificates and policies belong to other rooms, which take part in the
// transaction through the context.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
package provision
