"use strict";
// Jobs: the operator uses the AWS SDK for JavaScript v3, the thing the clients of the AWS IoT Device SDK v2, over its
// MQTT 3.1.1 and its MQTT 5 client, and at last the jobs data plane. The argument is the options of a connection.
const assert = require("node:assert");
const iot = require("@aws-sdk/client-iot");
const data = require("@aws-sdk/client-iot-jobs-data-plane");
const { iotjobs } = require("aws-iot-device-sdk-v2");
const { session } = require("./devicesdk.js");

const thingName = "pump-1";
const target = `arn:aws:iot:us-east-1:123456789012:thing/${thingName}`;
const limits = { maxRequestResponseSubscriptions: 4, maxStreamingSubscriptions: 3, operationTimeoutInSeconds: 30 };
const control = new iot.IoTClient({ maxAttempts: 1 });
const send = (name, input) => control.send(new iot[name + "Command"](input));

// follow gives what takes the next event of a stream, once it is subscribed.
async function follow(stream) {
  const events = [], waiting = [];
  stream.on("incomingPublish", ({ message }) => (waiting.length ? waiting.shift()(message) : events.push(message)));
  const subscribed = new Promise((resolve, reject) => {
    stream.on("subscriptionStatus", ({ type, error }) => (type === 0 ? resolve() : reject(error || new Error(`subscription status ${type}`))));
  });
  stream.open();
  await subscribed;
  return () => (events.length ? Promise.resolve(events.shift()) : new Promise((resolve) => waiting.push(resolve)));
}

async function refused(promise, code) {
  await assert.rejects(promise, (error) => {
    assert.strictEqual(error.modeledError?.code ?? error.name, code, String(error));
    return true;
  });
}

// until asks until the answer will do.
async function until(what, ask) {
  for (const end = Date.now() + 60_000; !(await ask()); ) {
    if (Date.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const near = (date) => assert.ok(date instanceof Date && Math.abs(date - Date.now()) < 60_000, String(date));

async function device(jobs, jobId) {
  const nextChange = await follow(jobs.createJobExecutionsChangedStream({ thingName }));
  const nextHead = await follow(jobs.createNextJobExecutionChangedStream({ thingName }));
  await refused(jobs.describeJobExecution({ thingName, jobId: "nothing" }), "ResourceNotFound");
  await send("CreateJob", {
    jobId, targets: [target], document: JSON.stringify({ operation: "update", version: "1.2" }),
    jobExecutionsRolloutConfig: { exponentialRate: { baseRatePerMinute: 10, incrementFactor: 1.5, rateIncreaseCriteria: { numberOfSucceededThings: 5 } } },
    timeoutConfig: { inProgressTimeoutInMinutes: 30 },
  });
  const head = await nextHead();
  assert.strictEqual(head.execution.jobId, jobId);
  assert.deepStrictEqual(head.execution.jobDocument, { operation: "update", version: "1.2" });
  const change = await nextChange();
  assert.deepStrictEqual(change.jobs.QUEUED.map((summary) => summary.jobId), [jobId]);
  assert.deepStrictEqual((await jobs.getPendingJobExecutions({ thingName })).queuedJobs.map((summary) => summary.jobId), [jobId]);

  const { execution } = await jobs.startNextPendingJobExecution({ thingName, statusDetails: { step: "download" }, stepTimeoutInMinutes: 5 });
  assert.strictEqual(execution.status, "IN_PROGRESS");
  assert.strictEqual(execution.versionNumber, 2);
  const told = await send("DescribeJobExecution", { jobId, thingName });
  assert.strictEqual(told.execution.status, "IN_PROGRESS");
  assert.deepStrictEqual(told.execution.statusDetails.detailsMap, { step: "download" });
  near(told.execution.queuedAt);
  near(told.execution.startedAt);
  assert.ok(told.execution.approximateSecondsBeforeTimedOut <= 300);

  await refused(jobs.updateJobExecution({ thingName, jobId, status: "SUCCEEDED", expectedVersion: 7 }), "VersionMismatch");
  const updated = await jobs.updateJobExecution({
    thingName, jobId, status: "SUCCEEDED", expectedVersion: 2, statusDetails: { step: "done" }, includeJobExecutionState: true,
  });
  assert.strictEqual(updated.executionState.status, "SUCCEEDED");
  await refused(jobs.updateJobExecution({ thingName, jobId, status: "FAILED" }), "InvalidStateTransition");
  await refused(jobs.describeJobExecution({ thingName, jobId }), "TerminalStateReached");
  assert.strictEqual((await nextHead()).execution, undefined); // nothing is left to do
  await until("the job is done", async () => (await send("DescribeJob", { jobId })).job.status === "COMPLETED");
}

// The same through HTTPS, as a thing's back end does it.
async function dataPlane() {
  const plane = new data.IoTJobsDataPlaneClient({ maxAttempts: 1 });
  const ask = (name, input) => plane.send(new data[name + "Command"]({ thingName, ...input }));
  await send("CreateJobTemplate", { jobTemplateId: "restart", description: "restart", document: "{}", timeoutConfig: { inProgressTimeoutInMinutes: 5 } });
  const { jobTemplateArn } = await send("DescribeJobTemplate", { jobTemplateId: "restart" });
  const { description } = await send("CreateJob", { jobId: "restart-1", targets: [target], jobTemplateArn });
  assert.strictEqual(description, "restart");
  await until("it is queued", async () => (await ask("GetPendingJobExecutions", {})).queuedJobs.length === 1);
  assert.strictEqual((await ask("DescribeJobExecution", { jobId: "$next", includeJobDocument: true })).execution.jobDocument, "{}");
  const { execution } = await ask("StartNextPendingJobExecution", {});
  assert.strictEqual(execution.jobId, "restart-1");
  await refused(ask("UpdateJobExecution", { jobId: "restart-1", status: "SUCCEEDED", expectedVersion: 9 }), "InvalidStateTransitionException");
  await ask("UpdateJobExecution", { jobId: "restart-1", status: "REJECTED", expectedVersion: execution.versionNumber });
  await refused(ask("DescribeJobExecution", { jobId: "restart-1" }), "TerminalStateException");
  const names = [];
  for await (const page of iot.paginateListJobExecutionsForThing({ client: control, pageSize: 1 }, { thingName })) {
    names.push(...page.executionSummaries.map((summary) => `${summary.jobId} ${summary.jobExecutionSummary.status}`));
  }
  assert.deepStrictEqual(names, ["restart-1 REJECTED", "update-v3 SUCCEEDED", "update-v5 SUCCEEDED"]);
}

async function main(options) {
  await send("CreateThing", { thingName });
  for (const v5 of [false, true]) {
    const { client, close } = await session({ ...options, v5, clientId: thingName });
    const jobs = v5 ? iotjobs.IotJobsClientv2.newFromMqtt5(client, limits) : iotjobs.IotJobsClientv2.newFromMqtt311(client, limits);
    await device(jobs, v5 ? "update-v5" : "update-v3");
    jobs.close();
    await close();
  }
  await dataPlane();
}

main(JSON.parse(process.argv[2])).then(
  () => { console.log("ok"); process.exit(0); },
  (error) => { console.log(error); process.exit(1); },
);
