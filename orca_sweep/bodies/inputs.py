"""Proxy features: passes a proxy's samples through the body's own input layer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from orca_sweep.bodies.network import LoadedBody
from orca_sweep.errors import DataError, InputError, first_line
from orca_sweep.proxies import Features, Noise, Scaling, Spans, Tagged, Treatment, apply_views, draw_views
from orca_sweep.proxies.records import Inputs
from orca_sweep.streams import stream_rng

RAW = Treatment()
MAX_TOKENS = 512
"""Tokens read of a tagged sentence, if the body has that many positions."""
MAX_TEXT_TOKENS = 128
"""Tokens read of a text, if the body has that many positions."""


def match_channels(images: Tensor, channels: int) -> Tensor:
    """Returns images with the body's number of channels: grey is repeated, colours are averaged."""
    if images.shape[1] == channels:
        return images
    grey = images.mean(dim=1, keepdim=True)
    return grey.expand(-1, channels, -1, -1)


def resize_images(images: Tensor, size: int) -> Tensor:
    """Returns images (B, C, H, W) at size x size: bilinear, antialiased where they shrink.

    Differs from ORCA's code in: with the library versions of its time, that code did not smooth images before it shrank
    them. Of the benchmarks' inputs, only those of psicov shrink.
    """
    if images.shape[-2:] == (size, size):
        return images
    shrinks = images.shape[-1] > size or images.shape[-2] > size
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)


def prepare_images(images: Tensor, channels: int, size: int, scaling: Scaling | None = None) -> Tensor:
    """Returns images in [0, 1] (B, C', H, W) as a body sees them, (B, C, size, size).

    A proxy's scaling applies to the proxy's channels, before ``match_channels``; a body's scaling applies to the
    body's channels, after it.

    Raises:
        DataError: if the scaling has another number of channels.
    """
    if scaling is not None and scaling.channels_of == "proxy":
        images = _scale_images(images, scaling)
    images = match_channels(images, channels)
    if scaling is not None and scaling.channels_of == "body":
        images = _scale_images(images, scaling)
    return resize_images(images, size)


def _scale_images(images: Tensor, scaling: Scaling) -> Tensor:
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (scaling.mean, scaling.std))
    if len(mean) not in (1, images.shape[1]) or len(mean) != len(std):
        raise DataError(
            f"proxy: images of {images.shape[1]} channels cannot be scaled by the {scaling.channels_of}'s {len(mean)} means"
            f" and {len(std)} standard deviations. Give one of each, or one of each per channel."
        )
    return (images - mean) / std


@torch.inference_mode()
def compute_input_features(
    body: LoadedBody, inputs: Inputs, device: str, batch: int = 256, treatment: Treatment = RAW
) -> Tensor:
    """Returns features of the body's own input layer, (M, width_in): the mean over tokens of images and texts.

    Only the input layer is used (patch embedding, or word and position embedding with LayerNorm), never the transformer,
    as in ORCA (Shen et al. 2023, arXiv 2302.05738). The mean leaves out padding. A phrase is the mean over its word
    pieces; a labelled token is its first word piece. Both are read within their sentence. Images are augmented if asked
    for, then scaled, then resized.

    Raises:
        InputError: if texts meet a vision body or a body without a tokenizer, or images meet a text body.
        DataError: if precomputed features do not have the body's width, a scaling does not have the images' channels,
            or a sample lies beyond the tokens that are read of its sentence.
    """
    if isinstance(inputs, Features):
        return _take_precomputed(body, inputs)
    if isinstance(inputs, Tagged):
        raise TypeError("tagged sentences have no samples yet: call draw_samples first")
    if isinstance(inputs, np.ndarray):
        _check_images(inputs)
    is_text = isinstance(inputs, tuple | Spans)
    if not isinstance(inputs, Noise) and is_text != (body.spec.dims == 1):
        kinds = ("texts", "images") if is_text else ("images", "texts")
        raise InputError(f"proxy: it holds {kinds[0]}, but the body embeds {kinds[1]}. Name another proxy or body.")
    layer = body.get_input_layer().to(device).eval()
    if isinstance(inputs, Spans):
        parts = [_compute_span_features(body, layer, inputs, device)]
    else:
        embed = _make_feature_function(body, layer, inputs, device=device, treatment=treatment)
        parts = [embed(i, min(i + batch, len(inputs))) for i in range(0, len(inputs), batch)]
    layer.to("cpu")
    return torch.cat(parts).cpu().clone()


def _check_images(images: np.ndarray) -> None:
    if images.ndim != 4 or images.dtype.kind != "f" or 0 in images.shape:
        raise DataError(
            f"proxy: images {images.shape} of {images.dtype}. Images must be floats in [0, 1] of shape (M, C, H, W), with at"
            " least one image, channel and pixel. Divide bytes by 255."
        )


def _take_precomputed(body: LoadedBody, inputs: Features) -> Tensor:
    width = inputs.array.shape[1]
    if width != body.spec.width_in:
        raise DataError(
            f"{inputs.where}: features are {width} wide, but the body's input layer is {body.spec.width_in} wide."
            " They were made for another body."
        )
    return torch.from_numpy(inputs.array).clone()


def _make_feature_function(
    body: LoadedBody, layer: Any, inputs: np.ndarray | tuple[str, ...] | Noise, *, device: str, treatment: Treatment
) -> Callable[[int, int], Tensor]:
    """Returns a function (start, end) -> features of the samples from start up to, not including, end."""
    if isinstance(inputs, tuple):
        return lambda i, end: _compute_text_features(body, layer, inputs[i:end], device)
    if isinstance(inputs, Noise) and body.spec.dims == 1:
        return lambda i, end: _compute_noise_features(body, layer, inputs, start=i, n=end - i, device=device)
    views = draw_views(len(inputs)) if treatment.is_augmented else None

    def embed_images(i: int, end: int) -> Tensor:
        images = _draw_noise_images(inputs, i, end - i) if isinstance(inputs, Noise) else inputs[i:end]
        images = images if views is None else apply_views(images, views[i:end])
        pixels = torch.from_numpy(images).float().to(device)
        tokens = layer(prepare_images(pixels, body.spec.in_channels, body.spec.image_size, treatment.scaling))
        return (tokens[0] if isinstance(tokens, tuple) else tokens).mean(dim=1)

    return embed_images


def _draw_noise_images(noise: Noise, start: int, n: int) -> np.ndarray:
    """Returns Gaussian noise as pixels, by default with the mean and spread of a uniform distribution on [0, 1]."""
    drawn = stream_rng(0, "dummy samples", start).normal(size=(n, *noise.image_shape))
    return (noise.pixel_mean + drawn * noise.pixel_std).astype(np.float32)


def _compute_noise_features(body: LoadedBody, layer: Any, noise: Noise, *, start: int, n: int, device: str) -> Tensor:
    """Returns features of Gaussian noise in place of word embeddings."""
    rng, words = stream_rng(0, "dummy samples", start), layer.word_embeddings.weight
    drawn = torch.from_numpy(rng.normal(size=(n, noise.n_tokens, body.spec.width_in)).astype(np.float32)).to(device)
    return layer(inputs_embeds=words.mean(dim=0) + words.std(dim=0) * drawn).mean(dim=1)


def _compute_text_features(body: LoadedBody, layer: Any, chunk: tuple[str, ...], device: str) -> Tensor:
    ids, mask = tokenize_texts(_get_tokenizer(body), chunk, _find_text_length(body))
    empty = (mask.sum(dim=1) == 0).nonzero()
    if len(empty):
        raise DataError(
            f"proxy: the body's tokenizer makes no token from {chunk[int(empty[0])][:100]!r}. Remove such texts."
        )
    _refuse_unknown_tokens(ids, layer)
    weights = mask.to(device).unsqueeze(-1).float()
    return (layer(ids.to(device)) * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


def _find_text_length(body: LoadedBody) -> int:
    return min(body.spec.max_tokens, MAX_TEXT_TOKENS)


def count_cut_texts(body: LoadedBody, inputs: Inputs) -> int | None:
    """Returns how many texts are cut because they have more tokens than are read; None if the inputs are not texts."""
    if not isinstance(inputs, tuple):
        return None
    tokenizer, length = _get_tokenizer(body), _find_text_length(body)
    return sum(len(ids) > length for ids in tokenizer(list(inputs), verbose=False)["input_ids"])


def _get_tokenizer(body: LoadedBody) -> Any:
    if body.tokenizer is None:
        raise InputError("body.name: this text body has no tokenizer. Save tokenizer.json beside its weights.")
    return body.tokenizer


def _compute_span_features(body: LoadedBody, layer: Any, inputs: Spans, device: str) -> Tensor:
    tokenizer, features = _get_tokenizer(body), []
    length = min(body.spec.max_tokens, MAX_TOKENS)
    for number, words in enumerate(inputs.sentences):
        coded = _run_tokenizer(
            tokenizer, " ".join(words), truncation=True, max_length=length, return_tensors="pt",
            return_offsets_mapping=True,
        )  # fmt: skip
        _refuse_unknown_tokens(coded["input_ids"], layer)
        pieces = coded["offset_mapping"][0].numpy()
        hidden = layer(coded["input_ids"].to(device))[0]
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])
        for _, first, end in inputs.bounds[inputs.bounds[:, 0] == number]:
            # A token is located by its first letter, a phrase by all its letters.
            last = starts[end] - 1
            last = min(last, starts[first] + 1) if inputs.pooling == "token" else last
            chosen = _find_pieces(pieces, starts[first], last)
            is_cut = pieces[:, 1].max() < last and coded["input_ids"].shape[1] == length
            if len(chosen) == 0 or is_cut:
                why = f"lies beyond the {length} tokens that are read" if is_cut else "has no token"
                raise DataError(
                    f"proxy: word {first} of sentence {number} ({' '.join(words[first:end])[:100]!r}) {why}. Remove it."
                )
            # A token takes the last such piece: the piece before may hold only the blank.
            features.append(hidden[chosen[-1]] if inputs.pooling == "token" else hidden[chosen].mean(dim=0))
    return torch.stack(features)


def _find_pieces(pieces: np.ndarray, first: int, last: int) -> np.ndarray:
    """Returns the indices of the pieces (T, 2) that share a letter with the range from first up to, not including, last."""
    return np.flatnonzero((pieces[:, 0] < last) & (pieces[:, 1] > first) & (pieces[:, 0] < pieces[:, 1]))


def tokenize_texts(tokenizer: Any, texts: tuple[str, ...], length: int) -> tuple[Tensor, Tensor]:
    """Returns token ids and mask (M, T), padded to the longest text and cut at the length."""
    coded = _run_tokenizer(
        tokenizer, list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt",
        return_attention_mask=True,
    )  # fmt: skip
    return coded["input_ids"].long(), coded["attention_mask"]


def _run_tokenizer(tokenizer: Any, text: str | list[str], **settings: Any) -> Any:
    try:
        return tokenizer(text, **settings)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise DataError(
            f"proxy: the body's tokenizer cannot read it ({first_line(error)}). Save the tokenizer again."
        ) from None


def _refuse_unknown_tokens(ids: Tensor, layer: Any) -> None:
    """Refuses tokens without a row in the embedding: a GPU would not report them."""
    n_rows = len(layer.word_embeddings.weight)
    if ids.numel() and int(ids.max()) >= n_rows:
        raise DataError(
            f"body.name: its tokenizer makes token {int(ids.max())}, but the embedding has {n_rows} rows. Use the"
            " tokenizer that belongs to these weights."
        )
