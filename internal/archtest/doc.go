// Package archtest holds the rules of the source tree as tests: who may import
// whom, and what tests must not do.
package archtest
