"""Uploads images through boto3, streams them and makes OTA updates of them."""
import os

import boto3
from botocore.config import Config

endpoint = os.environ["AWS_ENDPOINT_URL"]  # older boto3 does not read it by itself
iot = boto3.client("iot", endpoint_url=endpoint)
s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}))
account = "123456789012"
role = "arn:aws:iam::%s:role/ota" % account

s3.create_bucket(Bucket="firmware")
for name in ("a.bin", "b.bin"):
    s3.put_object(Bucket="firmware", Key=name, Body=name.encode() * 1000)
    iot.create_stream(
        streamId=name.replace(".", "-"), roleArn=role, tags=[{"Key": "file", "Value": name}],
        files=[{"fileId": 3, "s3Location": {"bucket": "firmware", "key": name}}])
pages = iot.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 1}, ascendingOrder=True)
assert [s["streamId"] for page in pages for s in page["streams"]] == ["a-bin", "b-bin"]
arn = iot.describe_stream(streamId="a-bin")["streamInfo"]["streamArn"]
assert iot.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "file", "Value": "a.bin"}]
try:
    iot.create_stream(streamId="none", roleArn=role, files=[{"fileId": 0, "s3Location": {"bucket": "firmware", "key": "none"}}])
    raise SystemExit("a stream of nothing was made")
except iot.exceptions.InvalidRequestException:
    pass

iot.create_thing(thingName="pump")
made = iot.create_ota_update(
    otaUpdateId="v2", targets=["arn:aws:iot:us-east-1:%s:thing/pump" % account], roleArn=role, protocols=["MQTT"],
    awsJobExecutionsRolloutConfig={"maximumPerMinute": 10}, awsJobTimeoutConfig={"inProgressTimeoutInMinutes": 30},
    files=[{"fileName": "/a", "fileType": 1, "fileLocation": {"s3Location": {"bucket": "firmware", "key": "a.bin"}}}])
info = iot.get_ota_update(otaUpdateId="v2")["otaUpdateInfo"]
assert info["awsIotJobId"] == made["awsIotJobId"] and info["otaUpdateStatus"] == "CREATE_COMPLETE", info
stream = info["otaUpdateFiles"][0]["fileLocation"]["stream"]["streamId"]
assert iot.describe_stream(streamId=stream)["streamInfo"]["files"][0]["s3Location"]["key"] == "a.bin"
try:
    iot.delete_ota_update(otaUpdateId="v2")
    raise SystemExit("an update under way was deleted")
except iot.exceptions.InvalidRequestException:
    pass
iot.delete_ota_update(otaUpdateId="v2", forceDeleteAWSJob=True, deleteStream=True)
assert stream not in [s["streamId"] for s in iot.list_streams()["streams"]]
