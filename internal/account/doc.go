// Package account answers for the account as a whole: where its endpoints are,
// which events are published, and the events that wait to be.
package account
