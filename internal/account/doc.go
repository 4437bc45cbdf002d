// Package account answers for the account as a whole: where its endpoints are,
// which registry events are published.
package account
