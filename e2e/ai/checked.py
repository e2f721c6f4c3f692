"""Requests held against the types of the providers' own SDKs: what a type does not know is refused.

The SDKs' parameter types are TypedDicts, which pydantic checks once they are told to refuse members
that they do not have. `fakes.py` asks; what is wrong is a list of sentences.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import anthropic.types
import ollama
import openai.types
import pydantic
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming as MessageParams,
    MessageCreateParamsStreaming as MessageStreamParams,
)
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming as ChatParams,
    CompletionCreateParamsStreaming as ChatStreamParams,
)


def refuse_unknown(package):
    """Makes every TypedDict of a package refuse members that it does not have."""
    modules = [package]
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        modules.append(importlib.import_module(found.name))
    for module in modules:
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):
                kind.__pydantic_config__ = pydantic.ConfigDict(
                    extra="forbid", arbitrary_types_allowed=True
                )


refuse_unknown(openai.types)
refuse_unknown(anthropic.types)


def adapter(kind):
    return pydantic.TypeAdapter(kind)


OPENAI = {False: adapter(ChatParams), True: adapter(ChatStreamParams)}
ANTHROPIC = {False: adapter(MessageParams), True: adapter(MessageStreamParams)}


def exhaust(value):
    """Looks into what pydantic checks only when it is read."""
    if isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, dict):
        for member in value.values():
            exhaust(member)
    elif isinstance(value, list):
        for member in value:
            exhaust(member)


def by_type(kind, body):
    try:
        exhaust(kind.validate_python(body))
    except pydantic.ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:6]]
    return []


# Blocks may be answers given back, whose types take any member; so these are looked at by name.
BLOCKS = {
    "text": anthropic.types.TextBlockParam,
    "image": anthropic.types.ImageBlockParam,
    "document": anthropic.types.DocumentBlockParam,
    "tool_use": anthropic.types.ToolUseBlockParam,
    "tool_result": anthropic.types.ToolResultBlockParam,
    "thinking": anthropic.types.ThinkingBlockParam,
}


def unknown_members(block, where):
    kind = BLOCKS.get(block.get("type"))
    if kind is None:
        return [f"{where}: kind {block.get('type')!r} is not expected"]
    return [f"{where}.{name}: unknown member" for name in block if name not in kind.__annotations__]


def openai_chat(body):
    return by_type(OPENAI[bool(body.get("stream"))], body)


def anthropic_messages(body, headers):
    """The type, and the rules of the API that types do not show."""
    version = headers.get("anthropic-version")
    # The SDK's types are those of the newest version, which has no sampling any more.
    sampling = {"temperature", "top_p", "top_k"} if version == "2023-06-01" else set()
    typed = {name: value for name, value in body.items() if name not in sampling}
    faults = by_type(ANTHROPIC[bool(body.get("stream"))], typed)
    if not version:
        faults.append("anthropic-version: missing")
    messages = body.get("messages") or [{}]
    if messages[0].get("role") != "user":
        faults.append("messages: the first turn must be the user's")
    if (body.get("temperature") or 0) > 1:
        faults.append("temperature: above 1")
    open_calls = set()
    for index, message in enumerate(messages):
        blocks = message.get("content")
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        if not blocks:
            faults.append(f"messages.{index}: empty")
            continue
        for block in blocks:
            faults += unknown_members(block, f"messages.{index}")
        kinds = [block["type"] for block in blocks]
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            faults.append(f"messages.{index}: blank text")
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if results != open_calls:
            faults.append(f"messages.{index}: results {results} for calls {open_calls}")
        if results and "tool_result" in kinds[kinds.index("tool_result") + len(results):]:
            faults.append(f"messages.{index}: results must stand together, first")
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
        if any(not isinstance(block["input"], dict) for block in blocks if block["type"] == "tool_use"):
            faults.append(f"messages.{index}: input is no object")
    return faults


def ollama_chat(body):
    known = set(ollama._types.ChatRequest.model_fields)
    faults = [f"{name}: unknown member" for name in body if name not in known]
    try:
        ollama._types.ChatRequest.model_validate(body)
    except pydantic.ValidationError as error:
        faults += [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:6]]
    return faults
