#!/usr/bin/python3
"""An executor of the task type "grep": it prints the lines of its stdin and input files that contain a text.

    /usr/bin/python3 grep_executor.py unix:/tmp/grep.sock

It is one file to read and to change: what every executor has to do is in class Executor, what makes this one is in grep().
"""

import contextlib
import hashlib
import os
import pathlib
import shlex
import signal
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, message_factory

TYPE = "grep"
CONCURRENCY = 4  # runs side by side; the provider keeps to it
PIECE = 64 * 1024  # bytes of output in one message
SERVICE = "shallot.executor.v1.ExecutorService"

# The contract's messages, from its description as `make generate` puts it here: nothing to compile, whatever version of protobuf there is.
_FILES = descriptor_pb2.FileDescriptorSet.FromString((pathlib.Path(__file__).parent / "executor.binpb").read_bytes())
_MESSAGES = message_factory.GetMessages(_FILES.file)


def message(name):
    return _MESSAGES["shallot.executor.v1." + name]


Response = message("ExecuteResponse")


class Bad(Exception):
    """The payload is wrong, whoever runs it."""


class Limit(Exception):
    """A limit that the task came with. Its first argument is the reason."""


# ---- what makes this executor


def parse(options):
    """[-i] [--pause SECONDS] TEXT, as a shell would split it."""
    try:
        words = shlex.split(options.decode())
    except (UnicodeDecodeError, ValueError) as e:
        raise Bad(f"the options are no text that can be split into words: {e}") from e
    fold, pause = False, 0.0
    while words and words[0].startswith("-"):
        flag = words.pop(0)
        if flag == "-i":
            fold = True
        elif flag == "--pause" and words:
            try:
                pause = float(words.pop(0))
            except ValueError as e:
                raise Bad("--pause is not a number of seconds") from e
            if not 0 <= pause <= 60:
                raise Bad("--pause is not from 0 to 60 seconds")
        else:
            raise Bad(f"unknown option {flag[:40]!r}: it must be -i or --pause SECONDS")
    if len(words) != 1 or not words[0]:
        raise Bad("the options must be [-i] [--pause SECONDS] TEXT, for example: beta")
    return words[0], fold, pause


def grep(run, options):
    """Yields responses and returns the exit code: 0 when a line was found, else 1, as grep does.

    Whoever gets the same task and attempt again may run it again: there is nothing outside that would be done twice."""
    text, fold, pause = parse(options)
    wanted = (text.lower() if fold else text).encode()
    total = sum(size for _, size, _ in run.parts) or 1
    done, found, lines, hits = 0, 0, 0, bytearray()
    for name, _, body in run.parts:
        for line in iter(lambda b=body: b.readline(PIECE), b""):  # a line beyond PIECE comes in pieces, never whole into memory
            lines += 1
            if pause or lines % 256 == 0:
                run.pause(pause)
            done += len(line)
            if wanted in (line.lower() if fold else line):
                found += 1
                hits += line if line.endswith(b"\n") else line + b"\n"
            if len(hits) >= PIECE or run.time_to_tell():  # a message for each line would cost more than the search
                yield run.output("stdout", hits)
                hits.clear()
                yield Response(progress=message("Progress")(fraction=min(done / total, 1), text=f"{found} lines found"))
        yield run.output("stdout", hits)
        hits.clear()
        yield run.output("stderr", f"{name}: searched\n".encode())
    return 0 if found else 1


# ---- what every executor does


class Run:
    """One attempt: its parts, its limits, and whether anybody still wants it."""

    def __init__(self, start, context):
        self.parts = []
        self.ended = threading.Event()
        if not context.add_callback(self.ended.set):
            self.ended.set()
        self.seconds = start.limits.time.seconds + start.limits.time.nanos / 1e9
        self.deadline = None
        self.left = start.limits.output
        self.told = time.monotonic()

    def started(self):
        self.deadline = time.monotonic() + self.seconds

    def pause(self, seconds):
        """Waits, and looks whether the run has to end: call it often."""
        left = self.deadline - time.monotonic()
        if self.ended.wait(min(seconds, max(left, 0))) or self.ended.is_set():
            raise ConnectionAbortedError
        if time.monotonic() >= self.deadline:
            raise Limit("TIME_LIMIT", f"it took longer than its limit of {self.seconds:g} seconds")

    def output(self, name, data):
        if len(data) > self.left:
            raise Limit("OUTPUT_LIMIT", "it found more than its limit of output")
        self.left -= len(data)
        return Response(output=message("Output")(name=name, data=bytes(data)))

    def time_to_tell(self):
        now = time.monotonic()
        if now - self.told < 0.5:
            return False
        self.told = now
        return True


class Executor:
    def __init__(self):
        self.places = threading.Semaphore(CONCURRENCY)

    def describe(self, _request, _context):
        return message("DescribeResponse")(type=TYPE, version="1", concurrency=CONCURRENCY, attributes={"language": "python"})

    def validate(self, request, context):
        try:
            parse(request.options)
        except Bad as e:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
        return message("ValidateResponse")()

    def execute(self, requests, context):
        start = next(requests).start
        if not self.places.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{CONCURRENCY} runs at a time")
        with contextlib.ExitStack() as stack:
            stack.callback(self.places.release)
            finish = message("Finish")()
            try:
                run = Run(start, context)
                take(start, requests, run, stack)
                run.started()
                yield Response(started=message("Started")())
                finish.exit_code = yield from grep(run, start.options)
            except Bad as e:
                finish.reason, finish.message = "PAYLOAD_INVALID", str(e)
            except Limit as e:
                finish.reason, finish.message = e.args
            except (ConnectionAbortedError, grpc.RpcError):
                return  # cancelled: nobody reads what would follow
            yield Response(finish=finish)


def take(start, requests, run, stack):
    """Takes the parts: inline ones from the Start, the others as chunks, in their order."""
    for part in start.parts:
        body = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=1 << 20))
        digest, left = hashlib.sha256(), part.size
        while part.streamed and left > 0:
            data = next(requests).chunk.data
            if len(data) > left:
                raise Bad(f"{part.name} is longer than it says")
            left -= len(data)
            digest.update(data)
            body.write(data)
        if not part.streamed:
            digest.update(part.inline)
            body.write(part.inline)
        if digest.digest() != part.sha256:
            raise Bad(f"{part.name} is not what its hash says")
        body.seek(0)
        run.parts.append((part.name, part.size, body))


def handlers(executor):
    def kind(make, function, request, response):
        return make(function, request_deserializer=message(request).FromString, response_serializer=message(response).SerializeToString)

    return grpc.method_handlers_generic_handler(SERVICE, {
        "Describe": kind(grpc.unary_unary_rpc_method_handler, executor.describe, "DescribeRequest", "DescribeResponse"),
        "Validate": kind(grpc.unary_unary_rpc_method_handler, executor.validate, "ValidateRequest", "ValidateResponse"),
        "Execute": kind(grpc.stream_stream_rpc_method_handler, executor.execute, "ExecuteRequest", "ExecuteResponse"),
    })


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: grep_executor.py unix:/path/to/socket")
    os.umask(0o177)  # the socket is for this user alone
    # More threads than runs: Describe must be answered while all of them work.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=CONCURRENCY + 4))
    server.add_generic_rpc_handlers((handlers(Executor()),))
    if not server.add_insecure_port(sys.argv[1]):
        sys.exit(f"cannot listen on {sys.argv[1]}")
    server.start()
    stop = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: stop.set())
    print(f"{TYPE} is served on {sys.argv[1]}", flush=True)
    stop.wait()
    server.stop(grace=2).wait()


if __name__ == "__main__":
    main()
