"use strict";
// A device's shadow through the clients of the AWS IoT Device SDK v2, over its
// MQTT 3.1.1 and its MQTT 5 client. The argument is the options of a connection.
const assert = require("node:assert");
const { iotshadow } = require("aws-iot-device-sdk-v2");
const { session } = require("./devicesdk.js");

const thingName = "pump-1";
const limits = { maxRequestResponseSubscriptions: 4, maxStreamingSubscriptions: 3, operationTimeoutInSeconds: 10 };

// next gives the next event of a stream, once it is subscribed.
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
    assert.strictEqual(error.modeledError?.code, code, String(error));
    return true;
  });
}

async function story(shadows) {
  await refused(shadows.getShadow({ thingName }), 404);
  const nextDelta = await follow(shadows.createShadowDeltaUpdatedStream({ thingName }));
  const nextUpdate = await follow(shadows.createShadowUpdatedStream({ thingName }));

  let answer = await shadows.updateShadow({ thingName, state: { desired: { speed: 7 }, reported: { speed: 5 } } });
  assert.deepStrictEqual(answer.state, { desired: { speed: 7 }, reported: { speed: 5 } });
  const delta = await nextDelta();
  assert.deepStrictEqual(delta.state, { speed: 7 });
  assert.strictEqual(delta.version, answer.version);
  assert.ok(Math.abs(delta.timestamp * 1000 - Date.now()) < 60_000, String(delta.timestamp)); // the SDK leaves the seconds as they are
  const update = await nextUpdate();
  assert.deepStrictEqual(update.current.state.desired, { speed: 7 });

  await refused(shadows.updateShadow({ thingName, version: answer.version + 5, state: { reported: { speed: 1 } } }), 409);
  await shadows.updateShadow({ thingName, version: answer.version, state: { reported: { speed: 7 } } });
  answer = await shadows.getShadow({ thingName });
  assert.strictEqual(answer.state.delta, undefined);
  assert.deepStrictEqual(answer.state.reported, { speed: 7 });

  const named = { thingName, shadowName: "config" };
  const nextNamed = await follow(shadows.createNamedShadowDeltaUpdatedStream(named));
  await shadows.updateNamedShadow({ ...named, state: { desired: { interval: 30 } } });
  assert.deepStrictEqual((await nextNamed()).state, { interval: 30 });
  await shadows.deleteNamedShadow(named);
  await refused(shadows.getNamedShadow(named), 404);
  await shadows.deleteShadow({ thingName });
  await refused(shadows.getShadow({ thingName }), 404);
}

async function main(options) {
  for (const v5 of [false, true]) {
    const { client, close } = await session({ ...options, v5, clientId: thingName });
    const shadows = v5 ? iotshadow.IotShadowClientv2.newFromMqtt5(client, limits) : iotshadow.IotShadowClientv2.newFromMqtt311(client, limits);
    await story(shadows);
    shadows.close();
    await close();
  }
}

main(JSON.parse(process.argv[2])).then(
  () => { console.log("ok"); process.exit(0); },
  (error) => { console.log(error); process.exit(1); },
);
