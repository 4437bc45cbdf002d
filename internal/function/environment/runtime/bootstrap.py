# Runs a Python handler behind the Lambda Runtime API. It needs the standard library alone.
# https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
import http.client
import importlib
import json
import os
import sys
import time
import traceback

address, _, prefix = os.environ["AWS_LAMBDA_RUNTIME_API"].partition("/")
base = (("/" + prefix) if prefix else "") + "/2018-06-01/runtime"
connection = http.client.HTTPConnection(address)


class LambdaContext:
    def __init__(self, headers):
        env = os.environ
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = env["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = env["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = env["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = env["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = env["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        client = headers.get("Lambda-Runtime-Client-Context")
        self.client_context = json.loads(client) if client else None
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self):
        return max(self._deadline - int(time.time() * 1000), 0)


def post(path, body, kind=None):
    sys.stdout.flush()
    sys.stderr.flush()
    headers = {"Content-Type": "application/json"}
    if kind:
        headers["Lambda-Runtime-Function-Error-Type"] = kind
    connection.request("POST", base + path, body, headers)
    connection.getresponse().read()


def failure(path, error, kind=None):
    kind = kind or type(error).__name__
    print("[ERROR]", "".join(traceback.format_exception(type(error), error, error.__traceback__)), file=sys.stderr)
    trace = traceback.format_tb(error.__traceback__)
    post(path, json.dumps({"errorMessage": str(error), "errorType": kind, "requestId": "", "stackTrace": trace}), kind)


def load(handler):
    module, dot, name = handler.rpartition(".")
    if not dot:
        raise ValueError("Bad handler '%s': not enough values to unpack" % handler)
    return getattr(importlib.import_module(module.replace("/", ".")), name)


def main():
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    handler = os.environ["_HANDLER"]
    try:
        run = load(handler)
    except BaseException as e:
        kinds = {"ModuleNotFoundError": "Runtime.ImportModuleError", "ImportError": "Runtime.ImportModuleError",
                 "AttributeError": "Runtime.HandlerNotFound", "ValueError": "Runtime.MalformedHandlerName",
                 "SyntaxError": "Runtime.UserCodeSyntaxError"}
        failure("/init/error", e, kinds.get(type(e).__name__))
        sys.exit(1)
    while True:
        connection.request("GET", base + "/invocation/next")
        response = connection.getresponse()
        event = response.read()
        if response.status != 200:
            sys.exit(1)
        path = "/invocation/" + response.headers["Lambda-Runtime-Aws-Request-Id"]
        try:
            try:
                event = json.loads(event) if event else None
            except ValueError as e:
                failure(path + "/error", e, "Runtime.UnmarshalError")
                continue
            result = run(event, LambdaContext(response.headers))
            try:
                result = json.dumps(result)
            except (TypeError, ValueError) as e:
                failure(path + "/error", e, "Runtime.MarshalError")
                continue
        except Exception as e:
            failure(path + "/error", e)
            continue
        post(path + "/response", result)


main()
