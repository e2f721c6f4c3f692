"""Fakes of OpenAI, Anthropic and Ollama on loopback: they check requests and answer by a few words.

What a fake answers is decided by the last user message: see `plan`. A request that breaks a type or
a rule of the API is answered with 400 and remembered in `FAULTS`, which fails the run.
"""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import checked

KEYS = {"openai": "sk-openai-of-the-gateway", "anthropic": "sk-ant-of-the-gateway", "ollama": "ollama-of-the-gateway"}
FAULTS = []
SEEN = []
WORDS = ["Hello", ", ", "wörld", " 🌍", "!"]
WEATHER = [("call_a", "weather", {"city": "Paris"}), ("call_b", "weather", {"city": "Köln", "days": 2})]
SHAPE = {"name": "Ada", "age": 36}


def plan(text, *about):
    """What to answer, and whether in one piece although a stream was asked for."""
    return answer_to(text, *about) | {"at once": "at once" in text}


def answer_to(text, has_results, has_tools, has_schema, images):
    """A status, words, tool calls, or a stream that breaks."""
    if "fail" in text:
        return {"status": int(text.split("fail ")[1][:3])}
    if "break" in text:
        return {"words": WORDS, "breaks": text}
    if images:
        return {"words": [f"I see {kind} of {size} bytes" for kind, size in images]}
    if has_results:
        return {"words": ["It is 21 degrees in Paris"]}
    if has_tools:
        return {"calls": WEATHER if "both" in text else WEATHER[:1]}
    if has_schema:
        return {"words": [json.dumps(SHAPE)]}
    return {"words": WORDS}


def image_of(kind, data):
    return kind, len(base64.b64decode(data, validate=True))


class Fake(BaseHTTPRequestHandler):
    """What the three have in common."""

    protocol_version = "HTTP/1.1"
    provider = ""

    def log_message(self, *_):
        pass

    def key(self):
        bearer = self.headers.get("authorization", "")
        return bearer.removeprefix("Bearer ") or self.headers.get("x-api-key", "")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        SEEN.append((self.provider, self.path, body, dict(self.headers.items())))
        if self.key() != KEYS[self.provider]:
            return self.fail(401)
        try:
            faults = self.check(body)
            if faults:
                FAULTS.append((self.provider, self.path, faults, body))
                return self.fail(400, "; ".join(faults))
            wanted = self.wanted(body)
        except Exception as error:  # a request that cannot even be read is a fault like others
            FAULTS.append((self.provider, self.path, [repr(error)], body))
            return self.fail(400, repr(error))
        if "status" in wanted:
            return self.fail(wanted["status"])
        in_pieces = self.is_stream(body) and not wanted.get("at once")
        (self.stream if in_pieces else self.whole)(body, wanted)

    def is_stream(self, body):
        return bool(body.get("stream"))

    def answer(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self, kind):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def piece(self, text):
        """Cuts in the middle of characters and of lines, as networks do."""
        data = text.encode()
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            if part:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()

    def end(self):
        self.wfile.write(b"0\r\n\r\n")

    def cut(self):
        self.close_connection = True
        self.connection.close()


def retry_after(status):
    return [("retry-after", "3")] if status == 429 else []


def embeddings(body):
    vector = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": vector, "model": body["model"], "usage": usage}


def completion(body, text="".join(WORDS), finish="stop"):
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"], "choices": [choice],
        "usage": usage if finish else None,
    }


def response(body):
    part = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    usage = {
        "input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "completed",
        "output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage,
    }


# What is no chat, and passes untouched.
OTHERS = {"/v1/embeddings": embeddings, "/v1/completions": completion, "/v1/responses": response}


def stream_other(fake, body):
    fake.begin("text/event-stream")
    if fake.path == "/v1/completions":
        for word in WORDS:
            fake.piece(f"data: {json.dumps(completion(body, word, None))}\n\n")
        fake.piece(f"data: {json.dumps(completion(body, '', 'stop'))}\n\ndata: [DONE]\n\n")
        return fake.end()
    for number, word in enumerate(WORDS):
        event = {
            "type": "response.output_text.delta", "sequence_number": number, "item_id": "msg_1", "output_index": 0,
            "content_index": 0, "delta": word, "logprobs": [],
        }
        fake.piece(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
    event = {"type": "response.completed", "sequence_number": len(WORDS), "response": response(body)}
    fake.piece(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
    fake.end()


class OpenAi(Fake):
    provider = "openai"

    def check(self, body):
        if self.path == "/v1/chat/completions":
            return checked.openai_chat(body)
        return [] if self.path in OTHERS else [f"no such path {self.path}"]

    def wanted(self, body):
        if self.path != "/v1/chat/completions":
            return {"words": WORDS}
        messages = body["messages"]
        users = [m for m in messages if m["role"] == "user"]
        content = users[-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(part.get("text", "") for part in parts)
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        images = [image_of(*url.removeprefix("data:").split(";base64,")) for url in urls]
        has_schema = body.get("response_format", {}).get("type") == "json_schema"
        return plan(text, messages[-1]["role"] == "tool", "tools" in body, has_schema, images)

    def fail(self, status, message="as you wish"):
        kinds = {401: "authentication_error", 429: "rate_limit_error", 400: "invalid_request_error"}
        error = {"message": message, "type": kinds.get(status, "server_error"), "param": None, "code": None}
        self.answer(status, {"error": error}, retry_after(status))

    def usage(self):
        details = {"cached_tokens": 4}
        return {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "prompt_tokens_details": details}

    def whole(self, body, wanted):
        if self.path in OTHERS:
            return self.answer(200, OTHERS[self.path](body))
        message = {"role": "assistant", "content": "".join(wanted.get("words", [])) or None, "refusal": None}
        finish = "stop"
        if "calls" in wanted:
            finish = "tool_calls"
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for i, n, a in wanted["calls"]
            ]
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        self.answer(200, {
            "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": body["model"],
            "choices": [choice], "usage": self.usage(),
        })

    def stream(self, body, wanted):
        if self.path in OTHERS:
            return stream_other(self, body)
        self.begin("text/event-stream")
        asked = (body.get("stream_options") or {}).get("include_usage")

        def chunk(delta, finish=None, **more):
            choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
            frame = {
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
                "choices": choices,
            }
            self.piece(f"data: {json.dumps(frame | more, ensure_ascii=False)}\n\n")

        chunk({"role": "assistant", "content": ""})
        for word in wanted.get("words", []):
            chunk({"content": word})
        if "breaks" in wanted:
            if "error" in wanted["breaks"]:
                self.piece('data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n')
            return self.cut()
        for index, (call, name, arguments) in enumerate(wanted.get("calls", [])):
            function = {"name": name, "arguments": ""}
            chunk({"tool_calls": [{"index": index, "id": call, "type": "function", "function": function}]})
            for letter in json.dumps(arguments, ensure_ascii=False):
                chunk({"tool_calls": [{"index": index, "function": {"arguments": letter}}]})
        chunk({}, "tool_calls" if "calls" in wanted else "stop")
        if asked:
            chunk(None, usage=self.usage())
        self.piece("data: [DONE]\n\n")
        self.end()


class Anthropic(Fake):
    provider = "anthropic"

    def check(self, body):
        if self.path != "/v1/messages":
            return [f"no such path {self.path}"]
        return checked.anthropic_messages(body, {name.lower(): value for name, value in self.headers.items()})

    def wanted(self, body):
        content = body["messages"][-1]["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(block.get("text", "") for block in blocks)
        images = [
            image_of(block["source"]["media_type"], block["source"]["data"])
            for block in blocks if block["type"] == "image"
        ]
        has_results = any(block["type"] == "tool_result" for block in blocks)
        has_schema = "format" in body.get("output_config", {}) or "output_format" in body
        return plan(text, has_results, "tools" in body, has_schema, images)

    def fail(self, status, message="as you wish"):
        kinds = {401: "authentication_error", 429: "rate_limit_error", 400: "invalid_request_error", 529: "overloaded_error"}
        error = {"type": kinds.get(status, "api_error"), "message": message}
        self.answer(status, {"type": "error", "error": error, "request_id": "req_1"}, retry_after(status))

    def head(self, body):
        usage = {"input_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0, "output_tokens": 1}
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage,
        }

    def whole(self, body, wanted):
        head = self.head(body)
        head["usage"]["output_tokens"] = 7
        head["content"] = [{"type": "text", "text": "".join(wanted["words"])}] if "words" in wanted else []
        head["content"] += [
            {"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in wanted.get("calls", [])
        ]
        head["stop_reason"] = "tool_use" if "calls" in wanted else "end_turn"
        self.answer(200, head)

    def stream(self, body, wanted):
        self.begin("text/event-stream")

        def event(kind, **more):
            data = json.dumps({"type": kind} | more, ensure_ascii=False)
            self.piece(f"event: {kind}\ndata: {data}\n\n")

        event("message_start", message=self.head(body))
        event("ping")
        index = 0
        if "words" in wanted:
            event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            for word in wanted["words"]:
                event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
            if "breaks" in wanted:
                if "error" in wanted["breaks"]:
                    event("error", error={"type": "overloaded_error", "message": "overloaded"})
                return self.cut()
            event("content_block_stop", index=0)
            index = 1
        for call, name, arguments in wanted.get("calls", []):
            event("content_block_start", index=index, content_block={"type": "tool_use", "id": call, "name": name, "input": {}})
            for letter in ["", *json.dumps(arguments, ensure_ascii=False)]:
                event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": letter})
            event("content_block_stop", index=index)
            index += 1
        reason = "tool_use" if "calls" in wanted else "end_turn"
        event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 7})
        event("message_stop")
        self.end()


class Ollama(Fake):
    provider = "ollama"

    def check(self, body):
        # It speaks the rest in OpenAI's format.
        if self.path in OTHERS:
            return []
        return checked.ollama_chat(body) if self.path == "/api/chat" else [f"no such path {self.path}"]

    def is_stream(self, body):
        return body.get("stream", self.path not in OTHERS)

    def wanted(self, body):
        if self.path in OTHERS:
            return {}
        messages = body["messages"]
        last = [m for m in messages if m["role"] == "user"][-1]
        images = [("an image", image_of("", image)[1]) for image in last.get("images") or []]
        has_schema = isinstance(body.get("format"), dict)
        has_results = messages[-1]["role"] == "tool"
        return plan(last.get("content") or "", has_results, bool(body.get("tools")), has_schema, images)

    def fail(self, status, message="as you wish"):
        self.answer(status, {"error": message}, retry_after(status))

    def frame(self, body, message, **more):
        return {
            "model": body["model"], "created_at": "2026-11-01T00:00:00Z",
            "message": {"role": "assistant", "content": ""} | message, "done": False,
        } | more

    def done(self):
        return {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7, "total_duration": 1}

    def calls(self, wanted):
        calls = [{"function": {"name": n, "arguments": a}} for _, n, a in wanted.get("calls", [])]
        return {"tool_calls": calls} if calls else {}

    def whole(self, body, wanted):
        if self.path in OTHERS:
            return self.answer(200, OTHERS[self.path](body))
        message = {"content": "".join(wanted.get("words", []))} | self.calls(wanted)
        self.answer(200, self.frame(body, message, **self.done()))

    def stream(self, body, wanted):
        if self.path in OTHERS:
            return stream_other(self, body)
        self.begin("application/x-ndjson")

        def line(frame):
            self.piece(json.dumps(frame, ensure_ascii=False) + "\n")

        for word in wanted.get("words", []):
            line(self.frame(body, {"content": word}))
        if "breaks" in wanted:
            if "error" in wanted["breaks"]:
                line({"error": "overloaded"})
            return self.cut()
        if "calls" in wanted:
            line(self.frame(body, self.calls(wanted)))
        line(self.frame(body, {}, **self.done()))
        self.end()


def start():
    """Starts all three; their base URLs by provider."""
    urls = {}
    for kind in (OpenAi, Anthropic, Ollama):
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        server.daemon_threads = True
        # Clients that go away are none of a fake's business.
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls[kind.provider] = f"http://127.0.0.1:{server.server_port}"
    return urls
