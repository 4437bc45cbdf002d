"""Provisions a thing through boto3 and reads back what it made."""
import json
import os

import boto3

endpoint = os.environ["AWS_ENDPOINT_URL"]  # older boto3 does not read it by itself
iot = boto3.client("iot", endpoint_url=endpoint)
data = boto3.client("iot-data", endpoint_url=endpoint)
account = "123456789012"

iot.create_thing_type(thingTypeName="pump", thingTypeProperties={"searchableAttributes": ["model"]})
iot.create_thing(thingName="p1", thingTypeName="pump", attributePayload={"attributes": {"model": "x"}})
iot.create_thing_group(thingGroupName="site")
iot.create_thing_group(thingGroupName="hall", parentGroupName="site")
iot.add_thing_to_thing_group(thingName="p1", thingGroupName="hall")
assert iot.list_things_in_thing_group(thingGroupName="site", recursive=True)["things"] == ["p1"]
assert [t["thingName"] for page in iot.get_paginator("list_things").paginate() for t in page["things"]] == ["p1"]

policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]})
iot.create_policy(policyName="all", policyDocument=policy)
v2 = iot.create_policy_version(policyName="all", policyDocument=policy, setAsDefault=True)
assert v2["policyVersionId"] == "2" and v2["isDefaultVersion"]
cert = iot.create_keys_and_certificate(setAsActive=True)
iot.attach_policy(policyName="all", target=cert["certificateArn"])
iot.attach_thing_principal(thingName="p1", principal=cert["certificateArn"])
assert iot.list_principal_things(principal=cert["certificateArn"])["things"] == ["p1"]
try:
    iot.delete_certificate(certificateId=cert["certificateId"])
    raise SystemExit("an active certificate was deleted")
except iot.exceptions.CertificateStateException:
    pass

template = json.dumps({
    "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
    "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
        },
    },
})
iot.create_provisioning_template(
    templateName="t", templateBody=template, enabled=True, provisioningRoleArn="arn:aws:iam::%s:role/r" % account)
assert iot.describe_provisioning_template(templateName="t")["enabled"]
claim = iot.create_provisioning_claim(templateName="t")
assert "BEGIN CERTIFICATE" in claim["certificatePem"]

data.update_thing_shadow(thingName="p1", payload=json.dumps({"state": {"desired": {"a": 1}, "reported": {"a": 0}}}))
doc = json.loads(data.get_thing_shadow(thingName="p1")["payload"].read())
assert doc["state"]["delta"] == {"a": 1}, doc
try:
    data.update_thing_shadow(thingName="p1", payload=json.dumps({"state": {"desired": {"a": 2}}, "version": 99}))
    raise SystemExit("a wrong version was accepted")
except data.exceptions.ConflictException:
    pass
data.update_thing_shadow(thingName="p1", shadowName="config", payload=b'{"state":{"desired":{}}}')
assert data.list_named_shadows_for_thing(thingName="p1")["results"] == ["config"]
data.publish(topic="a/b/c", qos=1, payload=b"x")
tags = [{"Key": "team", "Value": "water"}]
arn = iot.describe_thing_group(thingGroupName="site")["thingGroupArn"]
iot.tag_resource(resourceArn=arn, tags=tags)
assert iot.list_tags_for_resource(resourceArn=arn)["tags"] == tags
print("ok")
