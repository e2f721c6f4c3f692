"""A language model that fits into a file of half a megabyte and knows nothing, served by llama.cpp.

Called by ./run. Writes a GGUF with the architecture of Llama, two layers, random weights and some
words, then serves it with llama.cpp's own server (OpenAI's API) at the port that is given. What it
says makes no sense; everything else (chat templates, tokens, streams, usage) is the real thing.
"""

import signal
import sys
import urllib.parse
from pathlib import Path

import gguf
import numpy as np

WORDS = """ the a one two river mountain cat dog bird house garden book light night morning song
 blue green red old young quick slow and or but with under over near sees finds takes gives sings
 walks reads writes knows hello world yes no please thanks . , ! ?""".split()
WIDTH, HEADS, FEED, LAYERS, CONTEXT = 64, 4, 128, 2, 2048
# What a conversation looks like as text, which is a file's own affair.
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
)


def vocabulary():
    """Special tokens, every byte, then words, as SentencePiece has them."""
    kind = gguf.TokenType
    tokens = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    letters = [chr(code) for code in range(0x21, 0x7F)]
    tokens += [("\u2581", -1.0, kind.NORMAL)] + [(letter, -2.0, kind.NORMAL) for letter in letters]
    words = [word if word in ".,!?" else "\u2581" + word for word in WORDS]
    known = {text for text, _, _ in tokens}
    tokens += [(word, -0.5, kind.NORMAL) for word in words if word not in known]
    return tokens


def write(path):
    """Writes the model; the same bytes each time."""
    random = np.random.default_rng(7)
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)

    def tensor(name, *shape):
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) * 0.2)

    def ones(name):
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), WIDTH)
    for layer in range(LAYERS):
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        tensor(f"blk.{layer}.ffn_gate.weight", FEED, WIDTH)
        tensor(f"blk.{layer}.ffn_up.weight", FEED, WIDTH)
        tensor(f"blk.{layer}.ffn_down.weight", WIDTH, FEED)
    ones("output_norm.weight")
    # Only words are ever said: whatever else there is stays far behind them.
    output = random.standard_normal((len(tokens), WIDTH), dtype=np.float32)
    output[: 3 + 256 + 1 + 94] *= 0.01
    writer.add_tensor("output.weight", output)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(path, port, key):
    """Serves the model to those who have the key, until a signal comes."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.api_keys = [key]
    params.n_ctx = CONTEXT
    params.n_predict = 64
    params.n_parallel = 2
    params.embedding = False
    params.warmup = False
    params.use_jinja = True
    server = xllamacpp.Server(params)
    address = urllib.parse.urlsplit(server.listening_address)
    print(f"serving the model {path.name} at {address.geturl()}", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


def main():
    path, port, key = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    # Before any thread is there, so that all of them leave these to sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    if not path.is_file():
        draft = path.with_suffix(".part")
        write(draft)
        draft.rename(path)
    serve(path, port, key)


if __name__ == "__main__":
    main()
