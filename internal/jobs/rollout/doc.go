// Package rollout is the thinking of jobs: how many executions may start now, whether a job is to be aborted, what may be
// tried again, and when a schedule lets a job roll out.
//
// The package is pure: time is an argument, nothing is kept.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jobs-configurations-details.html
package rollout
