"""Rolls out jobs and works them off through boto3: iot for the operator, iot-jobs-data for the thing."""
import json
import os
import time

import boto3

endpoint = os.environ["AWS_ENDPOINT_URL"]  # older boto3 does not read it by itself
iot = boto3.client("iot", endpoint_url=endpoint)
device = boto3.client("iot-jobs-data", endpoint_url=endpoint)
account = "123456789012"


def arn(kind, name):
    return "arn:aws:iot:us-east-1:%s:%s/%s" % (account, kind, name)


def eventually(what, ask):
    """Asks until there is an answer."""
    end = time.monotonic() + 60
    while True:
        got = ask()
        if got:
            return got
        if time.monotonic() > end:
            raise SystemExit(what + ": not in time")
        time.sleep(0.02)


def refused(exception, call, **args):
    try:
        call(**args)
    except exception:
        return
    raise SystemExit("%s was not refused" % args)


for name in ("p1", "p2", "p3"):
    iot.create_thing(thingName=name)
iot.create_thing_group(thingGroupName="pumps")
for name in ("p1", "p2"):
    iot.add_thing_to_thing_group(thingName=name, thingGroupName="pumps")

rollout = {"exponentialRate": {
    "baseRatePerMinute": 50, "incrementFactor": 2.0, "rateIncreaseCriteria": {"numberOfNotifiedThings": 10}}, "maximumPerMinute": 100}
abort = {"criteriaList": [{"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 50.0, "minNumberOfExecutedThings": 3}]}
timeout = {"inProgressTimeoutInMinutes": 30}
retry = {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 1}]}

made = iot.create_job_template(
    jobTemplateId="firmware", description="new firmware", document=json.dumps({"version": "1.2"}), jobExecutionsRolloutConfig=rollout,
    abortConfig=abort, timeoutConfig=timeout, jobExecutionsRetryConfig=retry, tags=[{"Key": "team", "Value": "water"}])
assert made["jobTemplateArn"] == arn("jobtemplate", "firmware"), made
template = iot.describe_job_template(jobTemplateId="firmware")
assert json.loads(template["document"]) == {"version": "1.2"} and template["timeoutConfig"] == timeout, template
assert [t["jobTemplateId"] for page in iot.get_paginator("list_job_templates").paginate() for t in page["jobTemplates"]] == ["firmware"]

made = iot.create_job(jobId="update-1", targets=[arn("thinggroup", "pumps")], jobTemplateArn=made["jobTemplateArn"])
assert made["jobArn"] == arn("job", "update-1") and made["description"] == "new firmware", made
refused(iot.exceptions.ResourceAlreadyExistsException, iot.create_job, jobId="update-1", targets=[arn("thing", "p1")], document="{}")
refused(iot.exceptions.ResourceNotFoundException, iot.create_job, jobId="other", targets=[arn("thing", "nothing")], document="{}")
job = iot.describe_job(jobId="update-1")["job"]
assert job["jobExecutionsRolloutConfig"] == rollout and job["abortConfig"] == abort and job["jobExecutionsRetryConfig"] == retry, job
assert job["targetSelection"] == "SNAPSHOT" and job["targets"] == [arn("thinggroup", "pumps")], job

queued = eventually("p1 has something to do", lambda: device.get_pending_job_executions(thingName="p1")["queuedJobs"])
assert queued[0]["jobId"] == "update-1" and queued[0]["executionNumber"] == 1 and queued[0]["versionNumber"] == 1, queued
assert abs(queued[0]["queuedAt"] - time.time()) < 60, queued  # seconds
seen = device.describe_job_execution(thingName="p1", jobId="$next", includeJobDocument=True)["execution"]
assert seen["status"] == "QUEUED" and json.loads(seen["jobDocument"]) == {"version": "1.2"}, seen
execution = device.start_next_pending_job_execution(thingName="p1", statusDetails={"step": "download"}, stepTimeoutInMinutes=10)["execution"]
assert execution["status"] == "IN_PROGRESS" and execution["statusDetails"] == {"step": "download"} and execution["versionNumber"] == 2, execution
assert 0 < execution["approximateSecondsBeforeTimedOut"] <= 600, execution
state = device.update_job_execution(
    thingName="p1", jobId="update-1", status="IN_PROGRESS", statusDetails={"step": "install"}, expectedVersion=2, includeJobExecutionState=True)
assert state["executionState"] == {"status": "IN_PROGRESS", "statusDetails": {"step": "install"}, "versionNumber": 3}, state
refused(device.exceptions.InvalidStateTransitionException, device.update_job_execution, thingName="p1", jobId="update-1", status="SUCCEEDED", expectedVersion=2)
refused(device.exceptions.ResourceNotFoundException, device.update_job_execution, thingName="p1", jobId="nothing", status="SUCCEEDED")
device.update_job_execution(thingName="p1", jobId="update-1", status="FAILED", expectedVersion=3)
again = device.start_next_pending_job_execution(thingName="p1")["execution"]
assert again["executionNumber"] == 2, again
device.update_job_execution(thingName="p1", jobId="update-1", status="SUCCEEDED")
refused(device.exceptions.TerminalStateException, device.describe_job_execution, thingName="p1", jobId="update-1")

executions = iot.list_job_executions_for_thing(thingName="p1", jobId="update-1")["executionSummaries"]
assert [(e["jobExecutionSummary"]["status"], e["jobExecutionSummary"]["executionNumber"]) for e in executions] == [("FAILED", 1), ("SUCCEEDED", 2)], executions
first = iot.describe_job_execution(jobId="update-1", thingName="p1", executionNumber=1)["execution"]
assert first["status"] == "FAILED" and first["versionNumber"] == 4 and first["statusDetails"]["detailsMap"] == {"step": "install"}, first
assert first["queuedAt"] <= first["startedAt"] <= first["lastUpdatedAt"], first

eventually("p2 is told", lambda: device.get_pending_job_executions(thingName="p2")["queuedJobs"])
device.update_job_execution(thingName="p2", jobId="update-1", status="SUCCEEDED")
eventually("the job is done", lambda: iot.describe_job(jobId="update-1")["job"]["status"] == "COMPLETED")
job = iot.describe_job(jobId="update-1")["job"]
assert job["jobProcessDetails"]["numberOfSucceededThings"] == 2 and job["completedAt"] >= job["createdAt"], job

# A continuous job is given more targets and is canceled; the other is deleted.
iot.create_job(jobId="policy", targets=[arn("thing", "p1")], document="{}", targetSelection="CONTINUOUS", tags=[{"Key": "team", "Value": "water"}])
iot.associate_targets_with_job(jobId="policy", targets=[arn("thing", "p3")])
for name in ("p1", "p3"):
    eventually("%s is told" % name, lambda: device.get_pending_job_executions(thingName=name)["queuedJobs"])
iot.update_job(jobId="policy", description="newer", timeoutConfig={"inProgressTimeoutInMinutes": 5})
iot.cancel_job_execution(jobId="policy", thingName="p1", statusDetails={"why": "spare"})
things = [e["thingArn"] for page in iot.get_paginator("list_job_executions_for_job").paginate(jobId="policy", PaginationConfig={"PageSize": 1})
          for e in page["executionSummaries"]]
assert things == [arn("thing", "p1"), arn("thing", "p3")], things
device.start_next_pending_job_execution(thingName="p3")
refused(iot.exceptions.InvalidStateTransitionException, iot.cancel_job_execution, jobId="policy", thingName="p3")
refused(iot.exceptions.InvalidStateTransitionException, iot.delete_job, jobId="policy")
iot.cancel_job(jobId="policy", reasonCode="WITHDRAWN", comment="not needed", force=True)
job = eventually("p3 is told", lambda: iot.describe_job_execution(jobId="policy", thingName="p3")["execution"]["status"] == "CANCELED")
job = iot.describe_job(jobId="policy")["job"]
assert job["status"] == "CANCELED" and job["reasonCode"] == "WITHDRAWN" and job["forceCanceled"], job
assert iot.list_tags_for_resource(resourceArn=job["jobArn"])["tags"] == [{"Key": "team", "Value": "water"}]
listed = [j["jobId"] for page in iot.get_paginator("list_jobs").paginate(PaginationConfig={"PageSize": 1}) for j in page["jobs"]]
assert sorted(listed) == ["policy", "update-1"], listed
for name in listed:
    iot.delete_job(jobId=name)


def gone():
    try:
        iot.describe_job(jobId="update-1")
    except iot.exceptions.ResourceNotFoundException:
        return True


eventually("it is deleted", gone)
iot.delete_job_template(jobTemplateId="firmware")
refused(iot.exceptions.ResourceNotFoundException, iot.describe_job_template, jobTemplateId="firmware")
managed = iot.list_managed_job_templates()["managedJobTemplates"]
assert iot.describe_managed_job_template(templateName=managed[0]["templateName"])["document"]
print("ok")
