// Package observe is how the process shows itself: structured logs, Prometheus
// metrics and health.
package observe
