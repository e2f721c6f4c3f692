"""The official clients (PyPI openai and anthropic, npm openai) through the built gateway, to fakes of
OpenAI, Anthropic and Ollama that hold requests against the SDKs' own types. Entry point: ./run.

Each case runs for every provider; one line each. The run fails when a case fails, or when a fake saw
a request that its API would refuse.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

import anthropic
import httpx
import openai
import pydantic

import fakes

PROVIDERS = ["openai", "anthropic", "ollama"]
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5", "ollama": "llama3.2"}
TEXT = "".join(fakes.WORDS)
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
AUTH = {"openai": "bearer", "anthropic": "api-key", "ollama": "bearer"}
CASES = []


class Person(pydantic.BaseModel):
    """What the structured answer must be."""

    name: str
    age: int


def case(test):
    CASES.append(test)
    return test


# --- OpenAI's SDK -------------------------------------------------------------------------------


def ask(client, text, **more):
    return client.chat.completions.create(model="default", messages=[{"role": "user", "content": text}], **more)


@case
def openai_chat(gateway, provider):
    client = gateway.openai(provider)
    answer = client.chat.completions.create(
        model="default",
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "developer", "content": "And short."},
            {"role": "user", "content": [{"type": "text", "text": "say "}, {"type": "text", "text": "hello"}]},
        ],
        temperature=1.5 if provider == "anthropic" else 0.0,
        stop=["\n\n###"],
        max_completion_tokens=50,
    )
    choice = answer.choices[0]
    assert choice.message.content == TEXT, choice
    assert choice.message.role == "assistant" and choice.finish_reason == "stop"
    assert answer.object == "chat.completion" and isinstance(answer.created, int)
    assert answer.usage.prompt_tokens == 11 and answer.usage.completion_tokens == 7, answer.usage
    assert answer.usage.total_tokens == 18
    if provider != "ollama":
        assert answer.usage.prompt_tokens_details.cached_tokens == 4, answer.usage


@case
def openai_stream(gateway, provider):
    chunks = list(ask(gateway.openai(provider), "say hello", stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert said == fakes.WORDS, said
    finished = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [it for it in finished if it] == ["stop"]
    assert not chunks[-1].choices and chunks[-1].usage.total_tokens == 18, chunks[-1]


@case
def openai_stream_without_usage(gateway, provider):
    for chunk in ask(gateway.openai(provider), "say hello", stream=True):
        assert len(chunk.choices) == 1 and chunk.usage is None, chunk


@case
def openai_async_streams(gateway, provider):
    async def one(client, number):
        said = ""
        stream = await client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": f"say hello {number}"}], stream=True
        )
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
        return said

    async def all_of_them():
        client = openai.AsyncOpenAI(base_url=gateway.url(provider), api_key="of-the-client", max_retries=0)
        return await asyncio.gather(*(one(client, number) for number in range(20)))

    assert set(asyncio.run(all_of_them())) == {TEXT}


@case
def openai_tools(gateway, provider):
    client = gateway.openai(provider)
    messages = [{"role": "user", "content": "weather of both"}]
    answer = client.chat.completions.create(model="default", messages=messages, tools=[TOOL], tool_choice="auto")
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", choice
    calls = choice.message.tool_calls
    told = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
    assert told == [(name, arguments) for _, name, arguments in fakes.WEATHER], told
    assert len({call.id for call in calls}) == 2
    messages.append(choice.message)
    for call in calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "21"})
    answer = client.chat.completions.create(model="default", messages=messages, tools=[TOOL])
    assert answer.choices[0].message.content == "It is 21 degrees in Paris"


@case
def openai_tools_stream(gateway, provider):
    calls, finish = {}, None
    for chunk in ask(gateway.openai(provider), "weather of both", tools=[TOOL], stream=True):
        choice = chunk.choices[0]
        finish = choice.finish_reason or finish
        for delta in choice.delta.tool_calls or []:
            call = calls.setdefault(delta.index, {"id": delta.id, "name": delta.function.name, "arguments": ""})
            call["arguments"] += delta.function.arguments or ""
    assert finish == "tool_calls" and sorted(calls) == [0, 1], (finish, calls)
    told = [(call["name"], json.loads(call["arguments"])) for _, call in sorted(calls.items())]
    assert told == [(name, arguments) for _, name, arguments in fakes.WEATHER], told
    assert all(call["id"] for call in calls.values())


@case
def openai_structured(gateway, provider):
    answer = gateway.openai(provider).chat.completions.parse(
        model="default", messages=[{"role": "user", "content": "who?"}], response_format=Person
    )
    assert answer.choices[0].message.parsed == Person(**fakes.SHAPE), answer


@case
def openai_vision(gateway, provider):
    content = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = gateway.openai(provider).chat.completions.create(
        model="default", messages=[{"role": "user", "content": content}]
    )
    kind = "an image" if provider == "ollama" else "image/png"
    assert answer.choices[0].message.content == f"I see {kind} of 68 bytes", answer


@case
def openai_errors(gateway, provider):
    client = gateway.openai(provider)
    wanted = {400: openai.BadRequestError, 404: openai.NotFoundError, 500: openai.InternalServerError}
    for status, kind in wanted.items():
        with raises(kind) as error:
            ask(client, f"fail {status}")
        assert "as you wish" in error.value.message, error.value
    with raises(openai.RateLimitError) as error:
        ask(client, "fail 429")
    assert error.value.response.headers["retry-after"] == "3"
    with raises(openai.RateLimitError):
        list(ask(client, "fail 429", stream=True))


@case
def openai_broken_streams(gateway, provider):
    for way in ("break with an error", "break without a word"):
        said, finish = "", None
        with raises((openai.APIError, openai.APIConnectionError)):
            for chunk in ask(gateway.openai(provider), way, stream=True):
                said += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
        assert said == TEXT and finish is None, (way, said, finish)


@case
def openai_streams_of_servers_that_do_not_stream(gateway, provider):
    client = gateway.openai(provider)
    chunks = list(ask(client, "say hello at once", stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    finished = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert said == TEXT and [it for it in finished if it] == ["stop"], chunks
    assert not chunks[-1].choices and chunks[-1].usage.total_tokens == 18, chunks[-1]
    with client.chat.completions.stream(
        model="default", messages=[{"role": "user", "content": "weather of both at once"}], tools=[TOOL]
    ) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    told = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
    assert told == [(name, arguments) for _, name, arguments in fakes.WEATHER], told


@case
def openai_refusals(gateway, provider):
    if provider == "openai":
        return
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    with raises(openai.BadRequestError) as error:
        gateway.openai(provider).chat.completions.create(
            model="default", messages=[{"role": "user", "content": [audio]}]
        )
    assert "audio" in error.value.message, error.value


@case
def openai_models(gateway, provider):
    names = {model.id for model in gateway.openai(provider).models.list()}
    assert {MODELS[provider], "default"} <= names, names


@case
def openai_structured_stream(gateway, provider):
    messages = [{"role": "user", "content": "who?"}]
    with gateway.openai(provider).chat.completions.stream(
        model="default", messages=messages, response_format=Person
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Person(**fakes.SHAPE), final


@case
def openai_vision_stream(gateway, provider):
    url = {"url": f"data:image/png;base64,{PIXEL}"}
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": url}]
    stream = gateway.openai(provider).chat.completions.create(
        model="default", messages=[{"role": "user", "content": content}], stream=True
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    kind = "an image" if provider == "ollama" else "image/png"
    assert said == f"I see {kind} of 68 bytes", said


@case
def openai_keys_that_are_refused(gateway, provider):
    with raises(openai.AuthenticationError) as error:
        ask(gateway.openai(provider), "fail 401")
    assert error.value.code == "provider_credentials", error.value


@case
def openai_other_calls(gateway, provider):
    """Embeddings, completions and responses, which pass untouched where the provider has them."""
    client = gateway.openai(provider)
    calls = {
        "embeddings": lambda: client.embeddings.create(model="default", input="hello", encoding_format="float"),
        "completions": lambda: client.completions.create(model="default", prompt="say hello"),
        "responses": lambda: client.responses.create(model="default", input="say hello"),
    }
    if provider == "anthropic":
        for call in calls.values():
            with raises(openai.BadRequestError):
                call()
        return
    assert calls["embeddings"]().data[0].embedding == [0.5, -0.25]
    assert calls["completions"]().choices[0].text == TEXT
    assert calls["responses"]().output_text == TEXT
    said = client.completions.create(model="default", prompt="say hello", stream=True)
    assert "".join(chunk.choices[0].text for chunk in said if chunk.choices) == TEXT
    events = list(client.responses.create(model="default", input="say hello", stream=True))
    assert "".join(it.delta for it in events if it.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed" and events[-1].response.usage.total_tokens == 18


@case
def the_clients_key_stays_behind(gateway, provider):
    fakes.SEEN.clear()
    ask(gateway.openai(provider), "say hello")
    (_, _, body, headers) = fakes.SEEN[-1]
    assert "of-the-client" not in json.dumps([body, headers])
    assert body["model"] == MODELS[provider], body["model"]


# --- Anthropic's SDK ----------------------------------------------------------------------------


def message(client, text, **more):
    return client.messages.create(
        model="default", max_tokens=100, messages=[{"role": "user", "content": text}], **more
    )


ANTHROPIC_TOOL = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": TOOL["function"]["parameters"],
}


@case
def anthropic_chat(gateway, provider):
    answer = message(gateway.anthropic(provider), "say hello", system="Be kind.")
    assert answer.content[0].text == TEXT and answer.stop_reason == "end_turn", answer
    assert answer.usage.output_tokens == 7, answer.usage
    cached = answer.usage.cache_read_input_tokens or 0
    assert answer.usage.input_tokens + cached == 11, answer.usage


@case
def anthropic_stream(gateway, provider):
    client = gateway.anthropic(provider)
    with client.messages.stream(
        model="default", max_tokens=100, messages=[{"role": "user", "content": "say hello"}]
    ) as stream:
        said = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(said) == TEXT and final.content[0].text == TEXT
    assert final.stop_reason == "end_turn" and final.usage.output_tokens == 7, final


@case
def anthropic_tools(gateway, provider):
    client = gateway.anthropic(provider)
    answer = message(client, "weather of both", tools=[ANTHROPIC_TOOL])
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason == "tool_use"
    assert [(call.name, call.input) for call in calls] == [(n, a) for _, n, a in fakes.WEATHER], calls
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "21"} for call in calls]
    answer = client.messages.create(
        model="default",
        max_tokens=100,
        tools=[ANTHROPIC_TOOL],
        messages=[
            {"role": "user", "content": "weather of both"},
            {"role": "assistant", "content": [call.to_dict() for call in calls]},
            {"role": "user", "content": results},
        ],
    )
    assert answer.content[0].text == "It is 21 degrees in Paris", answer


@case
def anthropic_tools_stream(gateway, provider):
    client = gateway.anthropic(provider)
    with client.messages.stream(
        model="default",
        max_tokens=100,
        tools=[ANTHROPIC_TOOL],
        messages=[{"role": "user", "content": "weather of both"}],
    ) as stream:
        final = stream.get_final_message()
    calls = [(block.name, block.input) for block in final.content if block.type == "tool_use"]
    assert calls == [(name, arguments) for _, name, arguments in fakes.WEATHER], final


@case
def anthropic_vision(gateway, provider):
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    answer = message(gateway.anthropic(provider), [
        {"type": "image", "source": source}, {"type": "text", "text": "what is it?"}
    ])
    kind = "an image" if provider == "ollama" else "image/png"
    assert answer.content[0].text == f"I see {kind} of 68 bytes", answer


@case
def anthropic_vision_stream(gateway, provider):
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "what is it?"}]
    with gateway.anthropic(provider).messages.stream(
        model="default", max_tokens=100, messages=[{"role": "user", "content": content}]
    ) as stream:
        said = stream.get_final_text()
    kind = "an image" if provider == "ollama" else "image/png"
    assert said == f"I see {kind} of 68 bytes", said


@case
def anthropic_structured(gateway, provider):
    answer = gateway.anthropic(provider).messages.parse(
        model="default", max_tokens=100, messages=[{"role": "user", "content": "who?"}], output_format=Person
    )
    assert answer.parsed_output == Person(**fakes.SHAPE), answer


@case
def anthropic_async_streams(gateway, provider):
    async def one(client, number):
        async with client.messages.stream(
            model="default", max_tokens=100, messages=[{"role": "user", "content": f"say hello {number}"}]
        ) as stream:
            return await stream.get_final_text()

    async def all_of_them():
        base = gateway.url(provider).removesuffix("/v1")
        client = anthropic.AsyncAnthropic(base_url=base, api_key="of-the-client", max_retries=0)
        return await asyncio.gather(*(one(client, number) for number in range(20)))

    assert set(asyncio.run(all_of_them())) == {TEXT}


@case
def anthropic_errors(gateway, provider):
    client = gateway.anthropic(provider)
    wanted = {
        400: anthropic.BadRequestError, 401: anthropic.AuthenticationError, 404: anthropic.NotFoundError,
        429: anthropic.RateLimitError, 500: anthropic.InternalServerError,
    }
    for status, kind in wanted.items():
        with raises(kind) as error:
            message(client, f"fail {status}")
        assert error.value.body["type"] == "error", error.value.body
        if status == 429:
            assert error.value.response.headers["retry-after"] == "3"
    with raises(anthropic.RateLimitError):
        with client.messages.stream(
            model="default", max_tokens=9, messages=[{"role": "user", "content": "fail 429"}]
        ) as stream:
            stream.get_final_message()


@case
def anthropic_broken_streams(gateway, provider):
    for way in ("break with an error", "break without a word"):
        said = ""
        # Their SDK lets the HTTP client's own errors through when a stream breaks.
        with raises((anthropic.APIError, anthropic.APIConnectionError, httpx.HTTPError)):
            with gateway.anthropic(provider).messages.stream(
                model="default", max_tokens=9, messages=[{"role": "user", "content": way}]
            ) as stream:
                for text in stream.text_stream:
                    said += text
                stream.get_final_message()
        assert said == TEXT, (way, said)


@case
def anthropic_streams_of_servers_that_do_not_stream(gateway, provider):
    client = gateway.anthropic(provider)
    with client.messages.stream(
        model="default", max_tokens=100, messages=[{"role": "user", "content": "say hello at once"}]
    ) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert said == TEXT and final.stop_reason == "end_turn" and final.usage.output_tokens == 7, final
    with client.messages.stream(
        model="default", max_tokens=100, tools=[ANTHROPIC_TOOL],
        messages=[{"role": "user", "content": "weather of both at once"}],
    ) as stream:
        final = stream.get_final_message()
    calls = [(block.name, block.input) for block in final.content if block.type == "tool_use"]
    assert calls == [(name, arguments) for _, name, arguments in fakes.WEATHER], final


@case
def anthropic_refusals(gateway, provider):
    if provider == "anthropic":
        return
    tool = {"type": "web_search_20250305", "name": "web_search"}
    with raises(anthropic.BadRequestError) as error:
        message(gateway.anthropic(provider), "search", tools=[tool])
    assert "web_search" in str(error.value), error.value


# --- The run ------------------------------------------------------------------------------------


class Raised:
    value = None


@contextlib.contextmanager
def raises(kind):
    raised = Raised()
    try:
        yield raised
    except kind as error:
        raised.value = error
        return
    raise AssertionError(f"nothing was raised, {kind} was expected")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def manifests(port, urls):
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "nantian-gw"},
        "spec": {"controllerName": "gateway.networking.k8s.io/nantian-gw"},
    }
    listener = {"name": "http", "protocol": "HTTP", "port": port}
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "ai", "namespace": "default"},
        "spec": {"gatewayClassName": "nantian-gw", "listeners": [listener]},
    }
    rules = []
    for name, url in urls.items():
        backend = {"group": "gateway.nantian.dev", "kind": "AIService", "name": name}
        rules.append({"matches": [{"path": {"value": f"/{name}"}}], "backendRefs": [backend]})
        yield {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
            "stringData": {"key": fakes.KEYS[name]},
        }
        yield {
            "apiVersion": "gateway.nantian.dev/v1alpha1", "kind": "AIService",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "provider": name, "model": MODELS[name], "aliases": {"default": MODELS[name]}, "endpoint": url,
                "auth": {"type": AUTH[name], "secretRef": {"name": name, "key": "key"}}, "timeout": "30s",
            },
        }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "ai", "namespace": "default"},
        "spec": {"parentRefs": [{"name": "ai"}], "rules": rules},
    }


class Gateway:
    """`nantian-shim standalone` on manifests made for this run."""

    def __init__(self, binary, folder, log):
        self.port = free_port()
        self.folder = Path(folder)
        self.process = None
        self.binary, self.log = binary, log

    def url(self, provider):
        return f"http://127.0.0.1:{self.port}/{provider}/v1"

    def openai(self, provider):
        return openai.OpenAI(base_url=self.url(provider), api_key="of-the-client", max_retries=0, timeout=20)

    def anthropic(self, provider):
        base = self.url(provider).removesuffix("/v1")
        return anthropic.Anthropic(base_url=base, api_key="of-the-client", max_retries=0, timeout=20)

    def start(self, urls):
        # JSON is YAML.
        text = "\n---\n".join(json.dumps(manifest) for manifest in manifests(self.port, urls))
        (self.folder / "all.yaml").write_text(text)
        admin = free_port()
        command = [self.binary, "standalone", str(self.folder), "--admin-addr", f"127.0.0.1:{admin}"]
        command += ["--control-admin-addr", f"127.0.0.1:{free_port()}"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1).close()
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)
        raise RuntimeError(f"the gateway does not serve:\n{Path(self.log).read_text()[-2000:]}")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()


def run_node(gateway, script):
    """npm's openai; its cases are in clients.mjs."""
    failed = 0
    for provider in PROVIDERS:
        command = ["node", script, gateway.url(provider), provider]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        sys.stdout.write(done.stdout)
        if done.returncode:
            print(f"FAILED npm openai -> {provider}\n{done.stderr[-2000:]}")
            failed += 1
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[2] / "target"))
    parser.add_argument("--binary", default=str(target / "debug" / "nantian-shim"))
    parser.add_argument("--node", required=True)
    parser.add_argument("--logs", required=True)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--direct", action="store_true", help="ask the fakes themselves, to test them")
    options = parser.parse_args()
    urls = fakes.start()
    failed = ran = 0
    with tempfile.TemporaryDirectory() as folder:
        log = f"{options.logs}/gateway.log"
        gateway = Gateway(options.binary, folder, log)
        if not options.direct:
            gateway.start(urls)
        try:
            for test in CASES:
                for provider in PROVIDERS:
                    name = f"{test.__name__} -> {provider}"
                    if options.only not in name:
                        continue
                    ran += 1
                    before = len(fakes.FAULTS)
                    try:
                        test(gateway, provider)
                        faults = fakes.FAULTS[before:]
                        assert not faults, f"the provider would refuse this: {faults}"
                        print(f"ok     {name}")
                    except Exception:
                        failed += 1
                        last = traceback.format_exc().strip().splitlines()
                        print(f"FAILED {name}\n       " + "\n       ".join(last[-3:]))
            if not options.only:
                before = len(fakes.FAULTS)
                failed += run_node(gateway, options.node)
                failed += len(fakes.FAULTS) > before
                for fault in fakes.FAULTS[before:]:
                    print(f"FAILED the provider would refuse this: {fault}")
            if gateway.process and gateway.process.poll() is not None:
                failed += 1
                print(f"FAILED the gateway ended by itself, see {log}")
        finally:
            gateway.stop()
    said = Path(log).read_text() if Path(log).exists() else ""
    for key in [*fakes.KEYS.values(), "of-the-client"]:
        if key in said:
            failed += 1
            print(f"FAILED a key is in the gateway's output, see {log}")
    print(f"{ran - failed} of {ran} cases passed" if not failed else f"{failed} FAILED of {ran} cases")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
