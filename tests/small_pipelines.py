"""Tiny text-to-video pipelines with random weights, saved as diffusers saves the published ones."""

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

diffusers: Any = importlib.import_module("diffusers")  # its types are narrower than what it takes

WORDS = ["a ball rolls over the floor", "a person is jumping", "the camera pans slowly", "0123456789 rain and light"]


def t5_tokenizer() -> Any:
    """A T5 tokenizer of a few dozen pieces, trained in memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import T5Tokenizer

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(WORDS * 4, trainer)
    pieces = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def _t5(width: int, vocabulary: int, umt5: bool) -> Any:
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    sizes: dict[str, Any] = {"vocab_size": vocabulary, "d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 1}
    if umt5:
        return UMT5EncoderModel(UMT5Config(**sizes, num_heads=2))
    return T5EncoderModel(T5Config(**sizes, num_heads=2))


def save_cogvideox(folder: Path) -> Path:
    """A CogVideoX of 9 frames, 16x16."""
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=226,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip
    pipeline = diffusers.CogVideoXPipeline(
        tokenizer, _t5(32, len(tokenizer), False), vae, transformer, diffusers.CogVideoXDDIMScheduler()
    )
    return _save(pipeline, folder)


def save_wan(folder: Path) -> Path:
    """A Wan of 9 frames, 16x16."""
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True, rope_max_seq_len=32,
    )  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return _save(diffusers.WanPipeline(tokenizer, _t5(32, len(tokenizer), True), vae, scheduler, transformer), folder)


def _save(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder


SAVERS = {"cogvideox": save_cogvideox, "wan": save_wan}


@pytest.fixture(scope="session")
def small_pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny pipelines by family."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of diffusers' and transformers' own imports
        return {name: save(tmp_path_factory.mktemp("pipelines") / name) for name, save in SAVERS.items()}
