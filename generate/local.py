"""A language model in a folder on this machine, through ``transformers``: with images where it takes them."""

import hashlib
import io
import json
import threading
from pathlib import Path
from typing import Any

from ..errors import EnvironmentFault, LongreelError
from .llm import Message, Rejected, Request

HEADER_BYTES = 1 << 16  #: of each file of weights, which go into the model's name; its header is in them.


class LocalModel:
    """A folder as ``save_pretrained`` leaves it. Texts alone go to one that takes no images.

    Only files of the folder are read, safetensors and JSON; no code of the folder is run.

    Raises:
        LongreelError: When the folder holds no model.
        EnvironmentFault: When a package is missing that the model needs.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        if not (folder / "config.json").is_file():
            raise LongreelError(f"--llm-folder: {folder} has no config.json. Give a folder as transformers saves it.")
        self.model, self.host = f"{folder.name}@{_fingerprint(folder)}", "local"
        self._lock = threading.Lock()
        try:
            self._load(folder, device)
        except ImportError as error:
            raise EnvironmentFault(f"{folder}: needs a package that is not installed: {_line(error)}.") from None
        except (OSError, ValueError, KeyError) as error:
            raise LongreelError(f"{folder}: cannot be loaded as a language model: {_line(error)}.") from None

    def _load(self, folder: Path, device: str) -> None:
        import torch
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            AutoProcessor,
            AutoTokenizer,
        )

        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        config = AutoConfig.from_pretrained(folder, **here)
        self.sees = type(config) in AutoModelForImageTextToText._model_mapping
        kind = AutoModelForImageTextToText if self.sees else AutoModelForCausalLM
        self._reader: Any = (AutoProcessor if self.sees else AutoTokenizer).from_pretrained(folder, **here)
        self._tokenizer: Any = getattr(self._reader, "tokenizer", self._reader)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = kind.from_pretrained(folder, use_safetensors=True, dtype="auto", **here)
        self._model = model.to(device).eval()
        self._device = device
        self._torch = torch

    def ask(self, request: Request) -> str:
        """The model's answer, one request at a time; the same request gives the same answer on one machine.

        Raises:
            Rejected: When the request does not fit into the model.
        """
        with self._lock, self._torch.random.fork_rng(), self._torch.inference_mode():
            self._torch.manual_seed(request.seed)
            try:
                inputs = self._write(request)
            except ValueError as error:  # such as a class name that holds the model's own mark of an image
                raise Rejected(f"the model cannot read the request ({_line(error)})") from None
            length = inputs["input_ids"].shape[1]
            room = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
            most = request.max_tokens if room is None else min(request.max_tokens, room - length)
            if most < 1:
                raise Rejected(f"the request has {length} tokens, and the model takes {room}")
            sampled = request.temperature > 0
            heat = {"temperature": request.temperature} if sampled else {}
            out = self._model.generate(**inputs, max_new_tokens=most, do_sample=sampled, **heat)[0, length:]
        text = self._tokenizer.decode(out, skip_special_tokens=True)
        finish = "length" if len(out) >= most and int(out[-1]) not in self._ends() else "stop"
        usage = {"prompt_tokens": length, "completion_tokens": len(out)}
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
        return json.dumps({"model": self.model, "choices": [choice], "usage": usage})

    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}

    def _write(self, request: Request) -> Any:
        """The talk as the model takes it."""
        images = [_open(image) for message in request.messages for image in message.images] if self.sees else []
        if not self._reader.chat_template:
            text = "\n\n".join(f"{message.role}: {message.text}" for message in request.messages) + "\n\nassistant: "
            return self._tokenizer(text, return_tensors="pt").to(self._device)
        turns = [self._write_message(message) for message in request.messages]
        text = self._reader.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        if self.sees:
            return self._reader(text=text, images=images or None, return_tensors="pt").to(
                self._device, dtype=self._model.dtype
            )
        return self._reader(text, return_tensors="pt", add_special_tokens=False).to(self._device)

    def _write_message(self, message: Message) -> dict:
        if not self.sees:
            return {"role": message.role, "content": message.text}
        shown = [{"type": "image"} for _ in message.images]
        return {"role": message.role, "content": [*shown, {"type": "text", "text": message.text}]}


def _open(image: bytes) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise EnvironmentFault("--llm-folder with images needs pillow. Run: pip install 'longreel[llm]'") from None
    return Image.open(io.BytesIO(image)).convert("RGB")


def _fingerprint(folder: Path) -> str:
    """Of the configuration, and of the size and header of each file of weights: reading all of them takes minutes."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{path.stat().st_size}".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            digest.update(file.read(HEADER_BYTES))
    return digest.hexdigest()[:12]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
