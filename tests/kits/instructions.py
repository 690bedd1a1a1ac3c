"""Tiny chat models with tokenizers of their own, and an OpenAI-compatible server in a thread."""

import json
import random
import string
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
Answer = dict[str, Any] | int
"""A message's fields (`content`, `finish_reason`), or an HTTP status."""


def chat_tokenizer(seed: int = 0, turn: str = "<|{}|>", end: str = "<|end|>") -> PreTrainedTokenizerFast:
    """A token per character, numbered as `seed` says, and a chat template with the given marks."""
    special = ["<unk>", "</s>", turn.format("user"), turn.format("assistant"), end]
    tokens = [*special, *CHARACTERS]
    random.Random(seed).shuffle(tokens)
    tokenizer = Tokenizer(models.WordLevel({token: n for n, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    user, assistant = turn.format("user"), turn.format("assistant")
    mark = f"{{{{ '{user}' if m.role == 'user' else '{assistant}' }}}}"
    asks = f"{{% if add_generation_prompt %}}{assistant}{{% endif %}}"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="</s>",
        extra_special_tokens=special[2:],
        chat_template=f"{{% for m in messages %}}{mark}{{{{ m.content }}}}{end}{{% endfor %}}{asks}",
    )


def chat_folder(folder: Path, seed: int = 0, positions: int = 2048, **marks: str) -> Path:
    """A random one-layer Llama with such a tokenizer."""
    tokenizer = chat_tokenizer(seed, **marks)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Endpoint:
    """`requests` gathers the bodies that came, `keys` their authorization."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer]):
        self.answer, self.lock, self.url = answer, threading.Lock(), ""
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Answer]) -> Iterator[Endpoint]:
    """Chat completions as `answer(body, number of the request)` says."""
    endpoint = Endpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                number = len(endpoint.requests)
                endpoint.requests.append(body)
                endpoint.keys.append(self.headers.get("Authorization"))
            said = endpoint.answer(body, number) if self.path == "/v1/chat/completions" else 404
            reply: dict[str, Any]
            if isinstance(said, int):
                status, reply = said, {"error": {"message": f"no: {said}", "type": "test", "code": None}}
            else:
                message = {"role": "assistant", "content": said["content"]}
                choice = {"index": 0, "message": message, "finish_reason": said.get("finish_reason", "stop")}
                usage = {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}
                status = 200
                reply = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                         "choices": [choice], "usage": usage}  # fmt: skip
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def said(body: dict[str, Any]) -> str:
    """The user's only message of a request."""
    [message] = body["messages"]
    assert message["role"] == "user"
    return str(message["content"])
