// Package jobs sends work to things and follows it to its end: Jobs, and the JobExecutions that each has on its things.
//
//	job        SCHEDULED ◄─► IN_PROGRESS ──► COMPLETED      a snapshot job, once every execution has ended
//	                │             └────────► CANCELED       CancelJob, an abort criterion, the end of the schedule
//	                └──────────────────────► CANCELED       DeleteJob: DELETION_IN_PROGRESS on the way
//
//	execution  QUEUED ──► IN_PROGRESS ──► SUCCEEDED | FAILED | REJECTED      the thing says so
//	              │            ├────────► TIMED_OUT                          a timer of the job or of a step
//	              └────────────┴────────► CANCELED | REMOVED                 CancelJob…; the thing left the target
//	           FAILED and TIMED_OUT may be followed by another execution of the job on the thing: a retry
//
// A job with maintenance windows is SCHEDULED between them (window.go); what it has queued is then not to be seen by its
// things.
//
// A rollout is in three places in the store, and moves on by transactions that each leave it whole: the targets of the job
// (job_target), the things that are not told yet (job_waiting), their executions (job_execution). Whichever node leads
// (runner.go) takes the steps: it expands targets page by page, starts executions at the rollout's rate, ends what ran out
// of time, aborts and completes. A restart repeats or skips none.
//
// Things ask over MQTT (ServeMQTT) or by the jobs data plane, and are told by notify and notify-next when their list of
// pending executions, or its head, changes:
//
//	$aws/things/T/jobs/get | start-next | J/get | $next/get | J/update      answered on …/accepted | …/rejected
//	$aws/things/T/jobs/notify | notify-next
//	$aws/things/T/jobs/J/namespace-N/get | update, $next/namespace-N/get, notify-namespace-N, notify-next-namespace-N
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-jobs.html
package jobs
