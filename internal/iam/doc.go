// Package iam keeps the account's access keys, with which callers of the AWS
// APIs sign.
//
// [Keys.AccessKey] is asked for every request and answers from a bounded cache,
// which follows changes made on other nodes through the bus. Secrets are kept as
// they are, because a signature can't be verified from less; with a passphrase
// in the configuration new ones are sealed in the store (seal.go).
package iam
