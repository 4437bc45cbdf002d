"use strict";
// The control and data planes through the AWS SDK for JavaScript v3. It takes
// endpoint and credentials from the environment.
const assert = require("node:assert");
const iot = require("@aws-sdk/client-iot");
const data = require("@aws-sdk/client-iot-data-plane");

async function refused(promise, name) {
  await assert.rejects(promise, (error) => {
    assert.strictEqual(error.name, name, String(error));
    assert.ok(error.$metadata.requestId, "no request id");
    return true;
  });
}

async function main() {
  const control = new iot.IoTClient({ maxAttempts: 1 });
  for (const [name, site] of [["pump-1", "berlin"], ["pump-2", "rome"], ["pump-3", "berlin"]]) {
    const { thingArn } = await control.send(new iot.CreateThingCommand({ thingName: name, attributePayload: { attributes: { site } } }));
    assert.match(thingArn, new RegExp(`:thing/${name}$`));
  }
  const names = [];
  for await (const page of iot.paginateListThings({ client: control, pageSize: 1 }, { attributeName: "site", attributeValue: "berlin" })) {
    names.push(...page.things.map((thing) => thing.thingName));
  }
  assert.deepStrictEqual(names.sort(), ["pump-1", "pump-3"]);
  await refused(control.send(new iot.DescribeThingCommand({ thingName: "nothing" })), "ResourceNotFoundException");

  const keys = await control.send(new iot.CreateKeysAndCertificateCommand({ setAsActive: true }));
  const policyDocument = JSON.stringify({ Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: "iot:*", Resource: "*" }] });
  await control.send(new iot.CreatePolicyCommand({ policyName: "all", policyDocument }));
  await control.send(new iot.AttachPolicyCommand({ policyName: "all", target: keys.certificateArn }));
  await control.send(new iot.AttachThingPrincipalCommand({ thingName: "pump-1", principal: keys.certificateArn }));
  const { certificateDescription } = await control.send(new iot.DescribeCertificateCommand({ certificateId: keys.certificateId }));
  assert.strictEqual(certificateDescription.status, "ACTIVE");
  assert.ok(certificateDescription.creationDate instanceof Date && Math.abs(certificateDescription.creationDate - Date.now()) < 60_000);
  await refused(control.send(new iot.DeletePolicyCommand({ policyName: "all" })), "DeleteConflictException");

  const plane = new data.IoTDataPlaneClient({ maxAttempts: 1 });
  const shadow = (output) => JSON.parse(Buffer.from(output.payload).toString());
  const updated = await plane.send(new data.UpdateThingShadowCommand({ thingName: "pump-1", payload: JSON.stringify({ state: { desired: { on: true } } }) }));
  assert.strictEqual(shadow(updated).version, 1);
  assert.deepStrictEqual(shadow(await plane.send(new data.GetThingShadowCommand({ thingName: "pump-1" }))).state.desired, { on: true });
  await refused(plane.send(new data.GetThingShadowCommand({ thingName: "pump-2" })), "ResourceNotFoundException");

  await plane.send(new data.PublishCommand({ topic: "site/berlin", qos: 1, retain: true, payload: Buffer.from("hello"), contentType: "text/plain" }));
  const kept = await plane.send(new data.GetRetainedMessageCommand({ topic: "site/berlin" }));
  assert.strictEqual(Buffer.from(kept.payload).toString(), "hello");
  assert.strictEqual(kept.qos, 1);
  const topics = [];
  for await (const page of data.paginateListRetainedMessages({ client: plane, pageSize: 1 }, {})) {
    topics.push(...page.retainedTopics.map((summary) => summary.topic));
  }
  assert.deepStrictEqual(topics, ["site/berlin"]);
}

main().then(
  () => console.log("ok"),
  (error) => { console.log(error); process.exitCode = 1; },
);
