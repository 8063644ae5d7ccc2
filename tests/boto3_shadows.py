"""Tests the REST service at argv[1] with boto3. The service at argv[2] allows one request a second; those of the further
arguments, STATUS=URL, refuse all requests with this status."""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def client(url):
    return boto3.client(
        "iot-data", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="a",
        aws_secret_access_key="b", config=Config(retries={"max_attempts": 1, "mode": "standard"}))


def body(answer):
    return json.loads(answer["payload"].read())


def fails(code, status, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert found == (code, status), found
        # The exception class of boto3, if it has one for this operation.
        assert type(error).__name__ in (code, "ClientError"), type(error)
        return type(error).__name__
    raise AssertionError(f"{code} was expected")


iot = client(sys.argv[1])
shadow = {"thingName": "door:1", "shadowName": "keys"}
update = lambda state, **more: body(iot.update_thing_shadow(
    **shadow, payload=json.dumps({"state": state, **more})))

# The life cycle of a named and of the classic shadow.
answer = update({"desired": {"color": "red"}}, clientToken="t1")
assert (answer["version"], answer["clientToken"]) == (1, "t1"), answer
found = body(iot.get_thing_shadow(**shadow))
assert found["state"] == {"desired": {"color": "red"}, "delta": {"color": "red"}}, found
assert update({"reported": {"color": "red"}}, version=1)["version"] == 2
assert "delta" not in body(iot.get_thing_shadow(**shadow))["state"]
classic = body(iot.update_thing_shadow(thingName="door:1", payload='{"state":{"desired":{"a":1}}}'))
assert classic["version"] == 1

# Lists are paginated and do not contain the classic shadow.
for n in range(7):
    iot.update_thing_shadow(thingName="door:1", shadowName=f"s{n}", payload='{"state":{}}')
names, token = [], None
while True:
    page = iot.list_named_shadows_for_thing(
        thingName="door:1", pageSize=3, **({"nextToken": token} if token else {}))
    assert len(page["results"]) <= 3 and page["timestamp"] > 0
    names += page["results"]
    token = page.get("nextToken")
    if token is None:
        break
assert sorted(names) == ["keys"] + [f"s{n}" for n in range(7)], names
assert iot.list_named_shadows_for_thing(thingName="nobody")["results"] == []

# Errors of requests.
modelled = [
    fails("ConflictException", 409, update, state={"reported": {"x": 1}}, version=9),
    fails("InvalidRequestException", 400, iot.update_thing_shadow, **shadow, payload="{"),
    fails("RequestEntityTooLargeException", 413, update, state={"reported": {"x": "y" * 9000}}),
    fails("UnsupportedDocumentEncodingException", 415, iot.update_thing_shadow, **shadow,
          payload=b'{"state":{"desired":{"a":"\xff"}}}'),
    fails("ResourceNotFoundException", 404, iot.get_thing_shadow, thingName="nobody"),
    fails("ResourceNotFoundException", 404, iot.delete_thing_shadow, thingName="nobody", shadowName="keys"),
]
assert "ClientError" not in modelled, modelled
busy = client(sys.argv[2])
busy.update_thing_shadow(**shadow, payload='{"state":{}}')
for attempt in range(5):
    try:
        busy.update_thing_shadow(**shadow, payload='{"state":{}}')
    except busy.exceptions.ThrottlingException as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        break
else:
    raise AssertionError("ThrottlingException was expected")

# Errors of a failing service, and of authentication.
classes = {"401": "UnauthorizedException", "403": "ForbiddenException", "405": "MethodNotAllowedException",
           "429": "ThrottlingException", "500": "InternalFailureException", "503": "ServiceUnavailableException"}
refusing = dict(argument.split("=", 1) for argument in sys.argv[3:])
assert refusing.keys() == classes.keys()
for status, url in refusing.items():
    found = fails(classes[status], int(status), client(url).update_thing_shadow, **shadow, payload='{"state":{}}')
    assert found != "ClientError" or status == "403", (status, found)

# After a deletion, the version continues.
assert body(iot.delete_thing_shadow(**shadow))["version"] == 2
fails("ResourceNotFoundException", 404, iot.get_thing_shadow, **shadow)
assert update({"desired": {"b": 1}})["version"] == 4
print("all boto3 checks passed")
