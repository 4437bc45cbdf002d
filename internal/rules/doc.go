// Package rules runs topic rules: SQL that selects from messages, and actions that
// what it selects is owed to.
//
//	message ── FROM, in a trie ── rules/sql ── outbox row per action, in the publish's own write
//	                                                  │ commit, PUBACK
//	                                                  ▼
//	                           dispatcher of the action: in order, in batches ── rules/action
//	                                                  │ failed for good
//	                                                  ▼
//	                           outbox row of the errorAction
//
// The Engine keeps the rules (the API's operations are its methods), evaluates them
// on what the gateway publishes, and executes actions behind the outbox. What is
// acknowledged to a publisher is in the outbox, and stays there until its action
// has been executed or has failed for good. It is executed at least once.
//
// # Order and time
//
// The messages of one publisher reach an action in their order, but for those that
// fail for good. Templates and functions of the SQL, timestamp() and newuuid() among
// them, are evaluated when the message is published, not when the action is executed.
//
// # Failure
//
// An attempt that fails is repeated with growing pauses, and what is behind it waits.
// After Config.RetryFor the message goes to the rule's errorAction; without one it
// is tried for Config.KeepFor, then dropped and logged. What can not succeed is not
// tried again. The error action's message tells of one failed action; a message
// that fails in two actions causes two. SQL that fails on a message is counted and
// logged and has no error action, as in AWS.
//
// An action's outbox is bounded in rows and bytes. When it is full, Evaluate refuses
// the message with QuotaExceeded, before anything is acknowledged.
//
// # Change
//
// Nodes follow a change of rules within a second, the node that made it at once. An
// action that stays as it is in a replaced rule keeps its outbox. One that is gone,
// because its rule was deleted or replaced, finishes what it owes with its old definition.
//
// # Nodes
//
// A row belongs to the node that wrote it. A node that is gone, by its beat in the
// store, loses its rows to another. On restart a node goes on with its own.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-rules.html
package rules
