"""Searches the fleet through boto3, and has a continuous job follow a dynamic thing group."""
import json
import os
import time

import boto3

endpoint = os.environ["AWS_ENDPOINT_URL"]  # older boto3 does not read it by itself
iot = boto3.client("iot", endpoint_url=endpoint)
data = boto3.client("iot-data", endpoint_url=endpoint)


def eventually(what, expected, ask):
    end = time.time() + 60
    while True:
        got = ask()
        if got == expected:
            return
        if time.time() > end:
            raise SystemExit("%s: %r instead of %r" % (what, got, expected))
        time.sleep(0.02)


def found(query, **more):
    return sorted(t["thingName"] for t in iot.search_index(queryString=query, **more).get("things", []))


def report(thing, name=None, **reported):
    named = {"shadowName": name} if name else {}
    data.update_thing_shadow(thingName=thing, payload=json.dumps({"state": {"reported": reported}}), **named)


for n in range(4):
    iot.create_thing(thingName="t%d" % n, attributePayload={"attributes": {"site": "north" if n < 2 else "south"}})
    report("t%d" % n, firmware="1.%d" % n)
report("t1", "config", mode="eco drive")
iot.create_billing_group(billingGroupName="water")
iot.add_thing_to_billing_group(thingName="t2", billingGroupName="water")
iot.update_indexing_configuration(thingIndexingConfiguration={
    "thingIndexingMode": "REGISTRY_AND_SHADOW", "namedShadowIndexingMode": "ON", "filter": {"namedShadowNames": ["config"]},
    "customFields": [{"name": "shadow.reported.firmware", "type": "Number"}, {"name": "attributes.site", "type": "String"}],
})
eventually("the index is built", "ACTIVE", lambda: iot.describe_index(indexName="AWS_Things")["indexStatus"])

assert found("attributes.site:n*") == ["t0", "t1"]
assert found("shadow.reported.firmware>1.1 OR thingName:t0") == ["t0", "t2", "t3"]
assert found('shadow.name.config.reported.mode:"eco drive"') == ["t1"]
assert found("NOT shadow.name.config.reported.mode:*") == ["t0", "t2", "t3"]
assert found("thingGroupNames:water") == ["t2"]
assert found("registry.thingName : (t* AND -t1)") == ["t0", "t2", "t3"]
page = iot.search_index(queryString="*", maxResults=3)
assert len(page["things"]) == 3
assert found("*", nextToken=page["nextToken"]) == ["t3"]
statistics = iot.get_statistics(queryString="attributes.site:south", aggregationField="shadow.reported.firmware")["statistics"]
assert (statistics["count"], statistics["maximum"]) == (2, 1.3), statistics
buckets = iot.get_buckets_aggregation(
    queryString="*", aggregationField="attributes.site", bucketsAggregationType={"termsAggregation": {"maxBuckets": 1}})
assert buckets["totalCount"] == 4 and len(buckets["buckets"]) == 1 and buckets["buckets"][0]["count"] == 2, buckets
try:
    iot.search_index(queryString="thingName:[a TO")
    raise SystemExit("a query that does not parse was accepted")
except iot.exceptions.InvalidQueryException:
    pass

group = iot.create_dynamic_thing_group(thingGroupName="old", queryString="shadow.reported.firmware<1.2")
members = lambda: sorted(iot.list_things_in_thing_group(thingGroupName="old")["things"])
eventually("members", ["t0", "t1"], members)
iot.create_job(jobId="renew", targets=[group["thingGroupArn"]], targetSelection="CONTINUOUS", document="{}")
executions = lambda: sorted(
    (e["thingArn"].split("/")[1], e["jobExecutionSummary"]["status"]) for e in iot.list_job_executions_for_job(jobId="renew")["executionSummaries"])
eventually("executions", [("t0", "QUEUED"), ("t1", "QUEUED")], executions)
report("t3", firmware="1.0")
eventually("executions after a thing came", [("t0", "QUEUED"), ("t1", "QUEUED"), ("t3", "QUEUED")], executions)
report("t0", firmware="2.0")
eventually("members after a thing left", ["t1", "t3"], members)
eventually("executions then", [("t0", "REMOVED"), ("t1", "QUEUED"), ("t3", "QUEUED")], executions)
print("ok")
