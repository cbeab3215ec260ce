"""Tiny language models, saved as folders, that always say the same: with eyes (LLaVA) and without (Llama)."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers as tf
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WIDTH = 16
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %} {% endfor %}assistant "
)


def save_speaker(folder: Path, document: object, *, sees: bool) -> Path:
    """A model of one token that is the whole answer, and one that ends it: no layer changes what the weights say."""
    said = json.dumps(document)
    words = ["<unk>", "</s>", "<image>", "user", "assistant"]
    tokenizer = tokenizers.Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    fast = tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>", chat_template=TEMPLATE
    )
    fast.add_tokens(["<image>"], special_tokens=True)
    fast.add_tokens([said])
    answer = fast.convert_tokens_to_ids(said)
    assert isinstance(answer, int)
    text: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text |= {"vocab_size": len(fast), "max_position_embeddings": 4096, "eos_token_id": 1, "bos_token_id": None}
    text |= {"pad_token_id": 1}
    torch.manual_seed(0)
    model = _with_eyes(text) if sees else tf.LlamaForCausalLM(tf.LlamaConfig(**text))
    _fix(model, answer)
    model.generation_config.eos_token_id = 1
    model.generation_config.pad_token_id = 1
    model.save_pretrained(folder)
    if sees:
        pictures = tf.CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
        tf.LlavaProcessor(
            pictures, fast, patch_size=4, vision_feature_select_strategy="default", chat_template=TEMPLATE,
            num_additional_image_tokens=1,
        ).save_pretrained(folder)  # fmt: skip
    else:
        fast.save_pretrained(folder)
    return folder


def _with_eyes(text: dict) -> tf.PreTrainedModel:
    vision: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision |= {"image_size": 8, "patch_size": 4, "projection_dim": WIDTH}
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**vision), text_config=tf.LlamaConfig(**text), image_token_index=2
    )
    return tf.LlavaForConditionalGeneration(config)


def _fix(model: tf.PreTrainedModel, answer: int) -> None:
    """Every token but the answer leads to the answer, and the answer to the end."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "vision" in name:
                continue
            if name.endswith(
                ("o_proj.weight", "down_proj.weight", "linear_2.weight", "linear_2.bias", "lm_head.weight")
            ):
                weights.zero_()
            if name.endswith("embed_tokens.weight"):
                weights.zero_()
                weights[:, 0] = 1.0
                weights[answer] = torch.eye(WIDTH)[1]
            if name.endswith("linear_2.bias"):
                weights[0] = 1.0
        head: Any = model.get_output_embeddings()
        head.weight[answer, 0] = 50.0
        head.weight[1, 1] = 50.0
