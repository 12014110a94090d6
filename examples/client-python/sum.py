#!/usr/bin/python3
"""Submits a sum to a node over gRPC, watches it until it has ended, and prints its result.

    /usr/bin/python3 sum.py unix:HOME/run/node.sock 0.1 0.2
"""

import pathlib
import sys
import uuid

import grpc
from google.protobuf import descriptor_pb2, message_factory

# The contract's messages, from its description as `make generate` puts it here: nothing to compile, whatever version of protobuf there is.
_FILES = descriptor_pb2.FileDescriptorSet.FromString((pathlib.Path(__file__).parent / "node.binpb").read_bytes())
_MESSAGES = message_factory.GetMessages(_FILES.file)
SERVICE = "shallot.node.v1.NodeService"


def message(name):
    return _MESSAGES["shallot.node.v1." + name]


def method(channel, name, stream=False):
    make = channel.unary_stream if stream else channel.unary_unary
    return make(f"/{SERVICE}/{name}", message(name + "Request").SerializeToString, message(name + "Response").FromString)


def main(address, addends):
    with grpc.insecure_channel(address) as channel:
        # Repeated with the same request_id it is the same task: so it may be tried again after anything.
        request = message("SubmitTaskRequest")(request_id=str(uuid.uuid4()), spec={"type": "sum", "sum": {"addends": addends}})
        task = method(channel, "SubmitTask")(request, timeout=30).task

        # The task now and after each change, until it has ended.
        for change in method(channel, "WatchTask", stream=True)(message("WatchTaskRequest")(task_id=task.id)):
            task = change.task
            print(task.state, file=sys.stderr)

        pieces = method(channel, "GetResult", stream=True)(message("GetResultRequest")(task_id=task.id))
        sys.stdout.buffer.write(b"".join(piece.data for piece in pieces))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: sum.py unix:HOME/run/node.sock NUMBER...   (`shallot node` names the home)")
    try:
        main(sys.argv[1], sys.argv[2:])
    except grpc.RpcError as e:
        sys.exit(f"{e.code().name}: {e.details()}")  # the details say what was wrong, with which input, and what would mend it
