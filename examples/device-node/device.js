"use strict";
// A device, written to be read: AWS's IoT Device SDK v2 that keeps itself on its shadow and on its jobs.
//
//   npm install
//   node device.js --thing pump-1 --host localhost --port 8883 --ca root.pem --cert pump-1.pem --key pump-1.key
//
// Its shadow's desired state {"intervalSeconds": 5} says how often it sends telemetry. A job brings it firmware when the
// document is one of an OTA update (CreateOTAUpdate; docs/ota.md), whose image it fetches by its presigned URL and verifies
// with the certificate of --firmware-certificate. It rejects jobs that it does not know.
//
// The rule that makes it robust: whenever the connection is up, it asks for its state and for its next job, as if it knew
// nothing. So it needs no session and no memory of what it missed.
const { parseArgs } = require("node:util");
const { iot, mqtt5, iotshadow, iotjobs } = require("aws-iot-device-sdk-v2");
const { Installer } = require("./firmware.js");

const { values: flags } = parseArgs({
  options: {
    thing: { type: "string" }, // the one that the certificate is attached to
    host: { type: "string", default: "localhost" },
    port: { type: "string", default: "8883" }, // MQTT over mutual TLS
    ca: { type: "string", default: "root.pem" }, // what the device trusts
    cert: { type: "string", default: "cert.pem" },
    key: { type: "string", default: "key.pem" },
    "firmware-certificate": { type: "string" },
    dir: { type: "string", default: "." }, // where images are installed
  },
});
const thingName = flags.thing;
const installer = new Installer({ ca: flags.ca, certificate: flags["firmware-certificate"], dir: flags.dir });

const client = new mqtt5.Mqtt5Client(
  iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(flags.host, flags.cert, flags.key)
    .withCertificateAuthorityFromPath(undefined, flags.ca)
    .withPort(Number(flags.port))
    // The usual policy allows a device its thing's name as client id, and no other.
    .withConnectProperties({ clientId: thingName, keepAliveIntervalSeconds: 60 })
    .withSessionBehavior(mqtt5.ClientSessionBehavior.Clean)
    .build(),
);
const limits = { maxRequestResponseSubscriptions: 8, maxStreamingSubscriptions: 4, operationTimeoutInSeconds: 30 };
const shadows = iotshadow.IotShadowClientv2.newFromMqtt5(client, limits);
const jobs = iotjobs.IotJobsClientv2.newFromMqtt5(client, limits);

// What was done is done one after the other: next adds a step.
let steps = Promise.resolve();
function next(step) {
  steps = steps.then(step).catch((error) => console.error(error.modeledError ?? error));
  return steps; // when the connection is up again, all is asked for
}

// The shadow.

let interval = 10; // seconds between messages of telemetry
let version = 0; // of the shadow that was applied last

// apply takes settings over, and reports what is true now, not what was wished for. What this device does not know stays in
// the delta, for the operator to see.
async function apply(delta, deltaVersion) {
  if (deltaVersion <= version || delta?.intervalSeconds === undefined) return; // an older one, or nothing of ours
  interval = Math.min(Math.max(Number(delta.intervalSeconds) || 1, 1), 3600);
  await shadows.updateShadow({ thingName, state: { reported: { intervalSeconds: interval } } });
  version = deltaVersion;
}

async function askForShadow() {
  try {
    const shadow = await shadows.getShadow({ thingName });
    await apply(shadow.state?.delta, shadow.version);
  } catch (error) {
    if (error.modeledError?.code !== 404) throw error; // it has none yet
  }
}

// Jobs.

// work does the next job, if there is one, and says how it ended. When that is not heard, the job comes again at the next
// start, so doing it a second time must do no harm.
async function work() {
  const { execution } = await jobs.startNextPendingJobExecution({ thingName });
  if (!execution?.jobId) return;
  let status = "SUCCEEDED", reason;
  try {
    if (execution.jobDocument?.afr_ota) await installer.install(execution.jobDocument.afr_ota);
    else [status, reason] = ["REJECTED", "this device does not know such jobs"];
  } catch (error) {
    [status, reason] = ["FAILED", String(error.message).slice(0, 1000)];
  }
  console.log(`job ${execution.jobId}: ${status} ${reason ?? ""}`);
  await jobs.updateJobExecution({ thingName, jobId: execution.jobId, status, statusDetails: reason ? { reason } : {} });
}

// The connection. The SDK connects again by itself, and subscribes the streams again.

const deltas = shadows.createShadowDeltaUpdatedStream({ thingName });
deltas.on("incomingPublish", ({ message }) => next(() => apply(message.state, message.version)));
deltas.open();
const notifications = jobs.createNextJobExecutionChangedStream({ thingName });
notifications.on("incomingPublish", ({ message }) => {
  if (message.execution?.jobId) next(work); // another job is the next one; without one there is none any more
});
notifications.open();

// Between subscribing and asking nothing can be missed; between asking and subscribing it could.
for (const stream of [deltas, notifications]) {
  stream.on("subscriptionStatus", ({ type, error }) => {
    if (error) console.error(error);
    if (type === 0 /* established */) next(stream === deltas ? askForShadow : work);
  });
}
client.on("connectionFailure", ({ error }) => console.error(`connect: ${error}`));

let sequence = 0;
async function telemetry() {
  const payload = JSON.stringify({ sequence: ++sequence, temperature: 21.5 });
  try {
    const puback = await client.publish({ topicName: `telemetry/${thingName}`, payload, qos: mqtt5.QoS.AtLeastOnce });
    if (puback.reasonCode >= 0x80) console.error(`telemetry: reason code ${puback.reasonCode}`);
  } catch (error) {
    console.error(`telemetry: ${error}`);
  }
  setTimeout(telemetry, interval * 1000);
}

process.once("SIGINT", () => {
  client.once("stopped", () => process.exit(0));
  client.stop();
});
client.start();
setTimeout(telemetry, 1000);
