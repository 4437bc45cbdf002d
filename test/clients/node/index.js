"use strict";
// Fleet indexing through the AWS SDK for JavaScript v3: searches, aggregations, dynamic thing groups, fleet metrics. It
// takes endpoint and credentials from the environment.
const assert = require("node:assert");
const iot = require("@aws-sdk/client-iot");
const data = require("@aws-sdk/client-iot-data-plane");

const control = new iot.IoTClient({ maxAttempts: 1 });
const plane = new data.IoTDataPlaneClient({ maxAttempts: 1 });
const send = (name, input) => control.send(new iot[name + "Command"](input));

async function refused(promise, name) {
  await assert.rejects(promise, (error) => {
    assert.strictEqual(error.name, name, String(error));
    return true;
  });
}

// eventually asks until the answer is the expected one.
async function eventually(what, expected, ask) {
  for (const end = Date.now() + 60_000; ; ) {
    const got = await ask();
    try {
      assert.deepStrictEqual(got, expected);
      return;
    } catch (error) {
      if (Date.now() > end) throw new Error(`${what}: ${error.message}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function found(queryString) {
  const names = [];
  for (let nextToken; ; ) {
    const page = await send("SearchIndex", { queryString, maxResults: 2, nextToken });
    names.push(...(page.things ?? []).map((thing) => thing.thingName));
    nextToken = page.nextToken;
    if (!nextToken) return names.sort();
  }
}

const report = (thingName, reported) =>
  plane.send(new data.UpdateThingShadowCommand({ thingName, payload: JSON.stringify({ state: { reported } }) }));

async function main() {
  await send("CreateThingType", { thingTypeName: "pump" });
  for (let i = 1; i <= 4; i++) {
    await send("CreateThing", { thingName: `pump-${i}`, thingTypeName: "pump", attributePayload: { attributes: { model: i % 2 ? "pro" : "basic" } } });
    await report(`pump-${i}`, { battery: i * 10, at: `${47 + i},8.5`, note: "all is well" });
  }
  await refused(send("SearchIndex", { queryString: "*" }), "ResourceNotFoundException");
  await send("UpdateIndexingConfiguration", {
    thingIndexingConfiguration: {
      thingIndexingMode: "REGISTRY_AND_SHADOW", thingConnectivityIndexingMode: "STATUS", namedShadowIndexingMode: "ON",
      filter: { namedShadowNames: ["config"], geoLocations: [{ name: "shadow.reported.at", order: "LatLon" }] },
      customFields: [{ name: "shadow.reported.battery", type: "Number" }, { name: "attributes.model", type: "String" }],
    },
    thingGroupIndexingConfiguration: { thingGroupIndexingMode: "ON" },
  });
  await eventually("the index is built", "ACTIVE", async () => (await send("DescribeIndex", { indexName: "AWS_Things" })).indexStatus);
  assert.deepStrictEqual((await send("ListIndices", {})).indexNames, ["AWS_Things", "AWS_ThingGroups"]);

  for (const [query, ...expected] of [
    ["*", 1, 2, 3, 4],
    ["thingName:pump-2", 2],
    ["attributes.model:pro AND shadow.reported.battery >= 20", 3],
    ["shadow.reported.battery:[20 TO 30]", 2, 3],
    ["thingTypeName:pump NOT attributes.model:p*", 2, 4],
    ['shadow.reported.note:"is well" -thingName:pump-4', 1, 2, 3],
    ["shadow.reported.at:geo_distance,49,8.5,120km", 1, 2, 3],
    ["NOT shadow.reported.battery:*"],
  ]) {
    assert.deepStrictEqual(await found(query), expected.map((i) => `pump-${i}`), query);
  }
  const [thing] = (await send("SearchIndex", { queryString: "thingName:pump-1" })).things;
  assert.strictEqual(thing.thingTypeName, "pump");
  assert.deepStrictEqual(thing.attributes, { model: "pro" });
  assert.strictEqual(JSON.parse(thing.shadow).reported.battery, 10);
  await refused(send("SearchIndex", { queryString: "(thingName:a" }), "InvalidQueryException");
  await refused(send("SearchIndex", { queryString: "deviceDefender.violationCount:0" }), "NotImplementedException");

  const aggregationField = "shadow.reported.battery";
  const { statistics } = await send("GetStatistics", { queryString: "*", aggregationField });
  assert.deepStrictEqual([statistics.count, statistics.average, statistics.minimum, statistics.maximum, statistics.sum], [4, 25, 10, 40, 100]);
  assert.strictEqual((await send("GetCardinality", { queryString: "*", aggregationField: "attributes.model" })).cardinality, 2);
  const { percentiles } = await send("GetPercentiles", { queryString: "*", aggregationField, percents: [0, 50, 100] });
  assert.deepStrictEqual(percentiles.map((pair) => pair.value), [10, 25, 40]);
  const { buckets, totalCount } = await send("GetBucketsAggregation", {
    queryString: "*", aggregationField: "attributes.model", bucketsAggregationType: { termsAggregation: { maxBuckets: 5 } },
  });
  assert.strictEqual(totalCount, 4);
  assert.deepStrictEqual(buckets.map((b) => [b.keyValue, b.count]), [["basic", 2], ["pro", 2]]);
  await refused(send("GetStatistics", { queryString: "*", aggregationField: "attributes.other" }), "InvalidAggregationException");

  // A dynamic group has the things that it finds, before and after they change.
  const group = { thingGroupName: "low" };
  const made = await send("CreateDynamicThingGroup", { ...group, queryString: "shadow.reported.battery<20" });
  assert.strictEqual(made.indexName, "AWS_Things");
  assert.strictEqual(made.queryVersion, "2017-09-30");
  const members = async () => (await send("ListThingsInThingGroup", group)).things.sort();
  await eventually("members at first", ["pump-1"], members);
  await eventually("status", "ACTIVE", async () => (await send("DescribeThingGroup", group)).status);
  await report("pump-3", { battery: 5 });
  await eventually("members after a report", ["pump-1", "pump-3"], members);
  assert.deepStrictEqual((await send("ListThingGroupsForThing", { thingName: "pump-3" })).thingGroups.map((g) => g.groupName), ["low"]);
  await refused(send("AddThingToThingGroup", { ...group, thingName: "pump-2" }), "InvalidRequestException");
  await send("UpdateDynamicThingGroup", { ...group, thingGroupProperties: {}, queryString: "shadow.reported.battery>=40", expectedVersion: 1 });
  await eventually("members of another query", ["pump-4"], members);
  await send("DeleteDynamicThingGroup", group);
  await refused(send("DescribeThingGroup", group), "ResourceNotFoundException");

  // A fleet metric is a gauge.
  const metric = { metricName: "batteries", period: 60, queryString: "attributes.model:basic", aggregationField };
  const { metricArn } = await send("CreateFleetMetric", {
    ...metric, aggregationType: { name: "Statistics", values: ["count", "average"] }, unit: "Percent", tags: [{ Key: "team", Value: "water" }],
  });
  assert.match(metricArn, /:fleetmetric\/batteries$/);
  const gauges = async () => {
    const text = await (await fetch(process.env.AWS_ENDPOINT_URL + "/metrics")).text();
    return text.split("\n").filter((line) => line.startsWith("flotilla_fleet_metric{")).map((line) => Number(line.split(" ").pop())).sort((a, b) => a - b);
  };
  await eventually("gauges", [2, 30], gauges);
  await refused(send("CreateFleetMetric", { ...metric, metricName: "odd", period: 90, aggregationType: { name: "Cardinality" } }), "InvalidRequestException");
  await send("UpdateFleetMetric", { metricName: "batteries", indexName: "AWS_Things", queryString: "*", expectedVersion: 1 });
  const described = await send("DescribeFleetMetric", { metricName: "batteries" });
  assert.deepStrictEqual([described.queryString, described.version, described.period, described.unit], ["*", 2, 60, "Percent"]);
  assert.ok(described.creationDate instanceof Date && Math.abs(described.creationDate - Date.now()) < 120_000);
  assert.deepStrictEqual((await send("ListFleetMetrics", {})).fleetMetrics, [{ metricName: "batteries", metricArn }]);
  assert.deepStrictEqual((await send("ListTagsForResource", { resourceArn: metricArn })).tags, [{ Key: "team", Value: "water" }]);
  await eventually("gauges of another query", [4, 18.75], gauges);
  await send("DeleteFleetMetric", { metricName: "batteries", expectedVersion: 2 });
  await eventually("no gauges", [], gauges);
}

main().then(
  () => console.log("ok"),
  (error) => { console.log(error); process.exitCode = 1; },
);
